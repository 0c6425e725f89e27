//! Recorded runs of Ollama's command line, repeated with this one: exit code, stdout and stderr.
//!
//! The cases of `golden/ollama/cli.jsonl` run in their order against one server. Texts are equal but for what a case
//! calls variable, the program's own name, digests, and the amendments below, each of which
//! `docs/differences-from-ollama.md` names.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::models;
use crate::server::{Server, binary};

const CASES: &str = include_str!("../golden/ollama/cli.jsonl");
const DIFFERENCES: &str = include_str!("../../docs/differences-from-ollama.md");

/// Where this command line says something else on purpose: in the recorded text, the first becomes the second.
const AMENDMENTS: [(&str, &str, &str); 9] = [
    (
        "create-unknown-quantize",
        "F32, F16, Q4_K_S, Q4_K_M, Q8_0",
        "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K_S, Q3_K_M, Q3_K_L, Q4_K_S, Q4_K_M, Q5_K_S, Q5_K_M, Q6_K",
    ),
    (
        "push-unknown",
        "open $OLLAMA_MODELS/manifests/127.0.0.1:1/ns/nope/latest: no such file or directory",
        "model '127.0.0.1:1/ns/nope:latest' not found",
    ),
    ("show-verbose", "1.34515008e+08    ", "134515008         "),
    (
        "create-missing-modelfile",
        "gathering model components\nError: no Modelfile or safetensors files found",
        "Error: cannot read the Modelfile nope: No such file or directory (os error 2)",
    ),
    (
        "create-missingfile",
        "400 Bad Request: invalid model name",
        "FROM ./nope.gguf: there is no file $PWD/nope.gguf; \
         give the path of a GGUF file, relative to the Modelfile, or a model's name",
    ),
    (
        "no-server-list",
        "ollama server,",
        "ollama server at http://127.0.0.1:1,",
    ),
    ("no-server-version", "Ollama instance", "ollama instance"),
    (
        "serve-port-in-use",
        "already in use",
        "already in use; stop the server that runs there, or set OLLAMA_HOST to another address",
    ),
    (
        "serve-bad-origins",
        "panic: bad origin: origins must contain '*' or include http://,https://,chrome-extension://,\
         safari-extension://,moz-extension://,ms-browser-extension://",
        "Error: OLLAMA_ORIGINS entry \"example.com\" is not an origin: \
         give a scheme (such as https://) or one *",
    ),
];

/// What the recorded help offers and this program does not.
const NOT_OFFERED: [&str; 13] = [
    "signin",
    "signout",
    "--draft-quantize",
    "--experimental",
    "help --nowordwrap",
    "help --verbose",
    "OLLAMA_MAX_TRANSFER_STREAMS",
    "OLLAMA_SCHED_SPREAD",
    "OLLAMA_FLASH_ATTENTION",
    "OLLAMA_LLM_LIBRARY",
    "OLLAMA_IGPU_ENABLE",
    "LLAMA_ARG_FIT",
    "LLAMA_ARG_FIT_TARGET",
];

/// The Modelfiles of the recording; each of the bad ones holds the mistake of its name.
const MODELFILES: [(&str, &str); 12] = [
    (
        "ok",
        "FROM smollm2\nSYSTEM You are brief.\nPARAMETER temperature 0\nPARAMETER num_predict 3\n",
    ),
    ("badcmd", "FROM smollm2\nBOGUS x\n"),
    ("nofrom", "SYSTEM x\n"),
    ("badparam", "FROM smollm2\nPARAMETER bogus 1\n"),
    ("badint", "FROM smollm2\nPARAMETER num_ctx abc\n"),
    ("badfloat", "FROM smollm2\nPARAMETER temperature hot\n"),
    ("badrole", "FROM smollm2\nMESSAGE robot hi\n"),
    ("openquote", "FROM smollm2\nSYSTEM \"never closed\n"),
    ("missingfile", "FROM ./nope.gguf\n"),
    ("adapter", "FROM smollm2\nADAPTER ./nope.gguf\n"),
    ("requires", "FROM smollm2\nREQUIRES soon\n"),
    ("deprecated", "FROM smollm2\nPARAMETER mirostat 1\n"),
];

/// What one run gave.
#[derive(Debug)]
struct Run {
    exit: Option<i32>,
    stdout: String,
    stderr: String,
}

/// The server under test, and the folder that the runs start in.
struct Setting {
    server: Server,
    folder: tempfile::TempDir,
}

impl Setting {
    async fn new() -> Setting {
        let server = Server::start(&[]);
        let smollm2 = models::path("smollm2-135m-instruct-q4_1.gguf");
        server.create("smollm2", &smollm2);
        server.create("minilm", &models::path("all-minilm-l6-v2-f16.gguf"));
        for name in ["gemma", "qwen-coder"] {
            let copy = json!({ "source": "smollm2", "destination": name });
            let copied = server.post("/api/copy", &copy).await;
            assert_eq!(copied.status, 200, "{}", copied.text);
        }
        let setting = Setting {
            server,
            folder: tempfile::tempdir().expect("a temporary folder"),
        };
        for (name, text) in MODELFILES {
            setting.write(name, text);
        }
        // The value is missing, so the next line is where the reader stands.
        setting.write("emptyvalue", "FROM smollm2\nSYSTEM\nPARAMETER seed 1\n");
        let tiny = models::path("tiny/tiny-llama.gguf");
        setting.write("gguf", &format!("FROM {}\n", tiny.display()));
        setting
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(format!("Modelfile.{name}"));
        std::fs::write(path, text).expect("a Modelfile");
    }

    fn run(&self, case: &Value) -> Run {
        let strings = |value: &Value| -> Vec<String> {
            let items = value.as_array().into_iter().flatten();
            items.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let mut command = binary();
        command
            .args(&strings(&case["argv"])[1..])
            .current_dir(self.folder.path())
            .env("HOME", self.server.home.path())
            .env("OLLAMA_HOST", &self.server.address)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        for (name, value) in case["env"].as_object().into_iter().flatten() {
            command.env(name, self.filled_in(value.as_str().unwrap_or_default()));
        }
        let mut child = command.spawn().expect("the program starts");
        let stdin = case["stdin"].as_str().unwrap_or_default().as_bytes();
        let mut pipe = child.stdin.take().expect("a pipe");
        // Commands that read nothing may have ended already.
        pipe.write_all(stdin).ok();
        drop(pipe);
        let output = child.wait_with_output().expect("the program ends");
        Run {
            exit: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A recorded text with this server's own port and folders.
    fn filled_in(&self, text: &str) -> String {
        let (_, port) = self.server.address.rsplit_once(':').expect("a port");
        let models = self.server.home.path().join("models");
        // The program sees its folder without links on the way.
        let folder = std::fs::canonicalize(self.folder.path()).expect("the folder");
        text.replace("$PORT", port)
            .replace("$OLLAMA_MODELS", &models.display().to_string())
            .replace("$PWD", &folder.display().to_string())
    }

    /// What the recording did before some of its cases.
    fn prepare(&self, name: &str) {
        let run = |words: &[&str]| {
            let run = self.run(&json!({ "argv": words, "stdin": "" }));
            assert_eq!(run.exit, Some(0), "before {name}: {run:?}");
        };
        match name {
            "ps-loaded" => run(&["ollama", "run", "smollm2", ""]),
            "ps-loaded-forever" => run(&["ollama", "run", "smollm2", "--keepalive", "-1s", ""]),
            "rm-two-second-unknown" => run(&["ollama", "cp", "cli1", "cli2"]),
            _ => {}
        }
    }
}

/// Replaces what differs from run to run and from program to program.
fn masked(text: &str) -> String {
    let text = text.replace("ollama-wgpu", "ollama");
    let mut masked = String::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("sha256") {
        let end = at + "sha256:".len();
        masked += &rest[..at];
        masked += "sha256:HEX";
        rest = rest[end.min(rest.len())..].trim_start_matches(|c: char| c.is_ascii_hexdigit());
    }
    masked + rest
}

/// The cells of a table, line by line, without those that vary.
fn cells(text: &str) -> Vec<Vec<String>> {
    let line = |line: &str| {
        let cells = line.split("  ").map(str::trim);
        let cells = cells.filter(|cell| !cell.is_empty() && is_steady(cell));
        cells.map(str::to_owned).collect()
    };
    let mut lines: Vec<Vec<String>> = text.lines().map(line).collect();
    // The header stays first; models of one second come in any order.
    if let Some(rows) = lines.get_mut(1..) {
        rows.sort();
    }
    lines
}

/// A list's names, headers and what is the same for every model.
fn is_steady(cell: &str) -> bool {
    let is_id = cell.len() == 12 && cell.bytes().all(|b| b.is_ascii_hexdigit());
    !is_id && !cell.ends_with(" ago") && !cell.ends_with("MB") && !cell.ends_with(" from now")
}

/// What stays the same of a case's stdout.
fn steady_stdout(variable: &str, text: &str) -> String {
    let text = masked(text);
    if variable.contains("generated text") {
        let is_answer = !text.trim().is_empty() && text.ends_with("\n\n");
        return if is_answer {
            "an answer and two line feeds".into()
        } else {
            text
        };
    }
    if variable == "numbers" {
        return vector(&text);
    }
    let is_table = ["MODIFIED", "as list", "ID, SIZE"];
    if is_table.iter().any(|what| variable.contains(what)) {
        return format!("{:#?}", cells(&text));
    }
    if variable == "version number" {
        return text.replace(env!("CARGO_PKG_VERSION"), "0.0.0");
    }
    // The recording is cut; tensors come in the order of the file, which Ollama rewrites.
    let metadata = text.split("  Tensors\n").next();
    metadata.unwrap_or_default().to_owned()
}

/// The first numbers of a vector to two places; recordings are cut after some.
fn vector(text: &str) -> String {
    let Some(numbers) = text.strip_prefix('[') else {
        return text.to_owned();
    };
    let numbers = numbers.split([',', ']']).take(3);
    let rounded = numbers.map(|n| n.parse().map(|n: f32| format!("{n:.2}")));
    format!("{rounded:?}", rounded = rounded.collect::<Vec<_>>())
}

/// What stays the same of a case's stderr.
fn steady_stderr(name: &str, variable: &str, text: &str) -> String {
    let text = masked(text);
    let lines: Vec<&str> = text.lines().collect();
    if variable.contains("all numbers") {
        let labels = lines.iter().map(|line| line.split_inclusive(':').next());
        return format!("{:?}", labels.collect::<Vec<_>>());
    }
    if variable.contains("progress lines") {
        let last = lines.len().saturating_sub(2);
        return format!("{:?} ... {:?}", lines.first(), &lines[last..]);
    }
    if name.starts_with("serve-") {
        // Log lines may come before the error.
        return lines.last().copied().unwrap_or_default().to_owned();
    }
    text
}

/// What is wrong with a run, one line each.
fn faults(case: &Value, expected: &Run, found: &Run) -> Vec<String> {
    let name = case["name"].as_str().unwrap_or_default();
    let variable = case["variable"].as_str().unwrap_or_default();
    let stdout = |run: &Run| steady_stdout(variable, &run.stdout);
    let stderr = |run: &Run| steady_stderr(name, variable, &run.stderr);
    let exit = |run: &Run| format!("{:?}", run.exit);
    let pairs = [
        ("exit", exit(expected), exit(found)),
        ("stdout", stdout(expected), stdout(found)),
        ("stderr", stderr(expected), stderr(found)),
    ];
    let different = pairs
        .into_iter()
        .filter(|(_, expected, found)| expected != found);
    let mut faults: Vec<String> = different
        .map(|(what, expected, found)| format!("{what}: expected {expected:?}, found {found:?}"))
        .collect();
    faults.extend(missing_lines(&expected.stdout, &found.stdout));
    faults
}

/// A recording that was cut says how many lines are left out.
fn missing_lines(expected: &str, found: &str) -> Option<String> {
    let (head, rest) = expected.split_once("\n... ")?;
    let more: usize = rest.strip_suffix(" more lines")?.parse().ok()?;
    // The recording counted what follows the last line feed too.
    let (expected, found) = (head.lines().count() + more, found.split('\n').count());
    (expected != found).then(|| format!("lines: expected {expected}, found {found}"))
}

/// Help is compared by its facts: usage, commands, flags, variables.
fn missing_facts(case: &Value, found: &Run) -> Vec<String> {
    let name = case["name"].as_str().unwrap_or_default();
    let command = name.strip_prefix("help-").unwrap_or(name);
    let notes = &case["notes"];
    let text = masked(&found.stdout);
    let mut facts: Vec<String> = Vec::new();
    for list in ["usage", "commands", "environment"] {
        let items = notes[list].as_array().into_iter().flatten();
        facts.extend(items.filter_map(Value::as_str).map(str::to_owned));
    }
    for flag in notes["flags"].as_array().into_iter().flatten() {
        let (long, short) = (flag["flag"].as_str(), flag["short"].as_str());
        let short = short.map(|short| format!("{short}, "));
        facts.push(format!(
            "{}{}",
            short.unwrap_or_default(),
            long.unwrap_or_default()
        ));
    }
    let is_offered = |fact: &String| {
        let flag = fact.rsplit(' ').next().unwrap_or_default();
        let here = format!("{command} {flag}");
        !NOT_OFFERED.contains(&flag) && !NOT_OFFERED.contains(&here.as_str())
    };
    let missing = facts
        .into_iter()
        .filter(is_offered)
        .filter(|fact| !text.contains(fact.as_str()));
    missing.map(|fact| format!("help lacks {fact:?}")).collect()
}

#[tokio::test]
async fn recorded_runs_of_the_command_line() {
    let setting = Setting::new().await;
    let cases = CASES
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("a case"));
    let mut failures = Vec::new();
    let mut n_run = 0;
    for mut case in cases {
        let name = case["name"].as_str().expect("a name").to_owned();
        let mut expected = Run {
            exit: case["exit"].as_i64().map(|exit| exit as i32),
            stdout: case["stdout"].as_str().unwrap_or_default().to_owned(),
            stderr: case["stderr"].as_str().unwrap_or_default().to_owned(),
        };
        for (_, from, to) in AMENDMENTS.iter().filter(|(amended, ..)| *amended == name) {
            expected.stdout = expected.stdout.replace(from, to);
            expected.stderr = expected.stderr.replace(from, to);
        }
        if name == "serve-bad-origins" {
            // Two is the exit code of a Go panic.
            expected.exit = Some(1);
            case["env"]["OLLAMA_HOST"] = "127.0.0.1:0".into();
        }
        expected.stdout = setting.filled_in(&expected.stdout);
        expected.stderr = setting.filled_in(&expected.stderr);
        setting.prepare(&name);
        let found = setting.run(&case);
        let faults = if case["stream"].is_string() {
            missing_facts(&case, &found)
        } else {
            faults(&case, &expected, &found)
        };
        n_run += 1;
        if !faults.is_empty() {
            failures.push(format!("{name}:\n    {}", faults.join("\n    ")));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {n_run} runs differ:\n{}\n{}",
        failures.len(),
        failures.join("\n"),
        setting.server.log()
    );
    assert!(n_run > 70, "only {n_run} cases were run");
}

#[test]
fn shells_complete_the_commands() {
    for (shell, command) in [("bash", "--quantize"), ("zsh", "create"), ("fish", "push")] {
        let run = binary()
            .args(["completions", shell])
            .output()
            .expect("the program runs");
        assert!(run.status.success(), "{shell}");
        let script = String::from_utf8(run.stdout).expect("UTF-8");
        assert!(script.contains(command), "{shell}: {script}");
    }
}

#[test]
fn devices_are_compared_op_by_op() {
    let compare = |devices: &str| {
        let run = binary()
            .args(["debug", "compare"])
            .arg(models::path("tiny/tiny-llama.gguf"))
            .args(["--devices", devices, "--prompt", "ab"])
            .output()
            .expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (run.status.success(), text(run.stdout), text(run.stderr))
    };
    let (is_well, found, errors) = compare("cpu,vulkan:llvmpipe");
    assert!(is_well, "{errors}");
    assert!(
        found.starts_with("A: CPU (") && found.contains("\nB: llvmpipe"),
        "{found}"
    );
    assert!(
        found.contains("blk.0.") && found.ends_with("no op differs by more than 1e-6\n"),
        "{found}"
    );
    let (is_well, _, errors) = compare("cpu");
    assert!(
        !is_well && errors.contains("two devices are needed"),
        "{errors}"
    );
}

#[test]
fn the_doctor_examines_the_device() {
    let doctor = |device: &str| {
        let run = binary()
            .arg("doctor")
            .env("OLLAMA_WGPU_DEVICE", device)
            .output()
            .expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (run.status.success(), text(run.stdout), text(run.stderr))
    };
    for (device, name) in [
        ("cpu", "models run on: CPU ("),
        ("vulkan:llvmpipe", "models run on: llvmpipe"),
    ] {
        let (is_well, found, errors) = doctor(device);
        assert!(is_well, "{device}: {errors}");
        for part in [
            name,
            "adapters:\n  0: vulkan:llvmpipe",
            "GB/s",
            "billion at Q4_K_M",
            "context where nobody names one: 4096 tokens",
            "self-test: products of 13 types are right",
        ] {
            assert!(found.contains(part), "{device}: {part:?} is not in {found}");
        }
    }
    let (is_well, _, errors) = doctor("no such device");
    assert!(!is_well && errors.contains("available: cpu"), "{errors}");
}

#[test]
fn differences_are_documented() {
    let names = AMENDMENTS.iter().map(|(name, ..)| name);
    let missing: Vec<_> = names
        .chain(&NOT_OFFERED)
        .filter(|name| !DIFFERENCES.contains(&format!("`{name}`")))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/differences-from-ollama.md: {missing:?}"
    );
    for (name, from, _) in AMENDMENTS {
        let case = CASES
            .lines()
            .find(|line| line.contains(&format!("\"name\": {name:?}")));
        let case: Value = serde_json::from_str(case.expect(name)).expect("a case");
        let recorded = [&case["stdout"], &case["stderr"]];
        let applies = recorded
            .iter()
            .any(|text| text.as_str().unwrap_or_default().contains(from));
        assert!(applies, "the amendment of {name} changes nothing");
    }
}
