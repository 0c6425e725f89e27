//! Modelfiles read, refused, and written back.

use super::*;
use proptest::prelude::*;
use serde_json::json;

fn commands(text: &str) -> Vec<Command> {
    parse(text.as_bytes()).unwrap()
}

fn problem(text: &str) -> String {
    match parse(text.as_bytes()).and_then(plan) {
        Ok(plan) => panic!("{text:?} gave {plan:?}"),
        Err(e) => e.to_string(),
    }
}

const COMMAND: &str = "command must be one of \"from\", \"license\", \"template\", \"system\", \"adapter\", \"draft\", \"renderer\", \"parser\", \"parameter\", \"message\", or \"requires\"";

#[test]
fn every_instruction() {
    let text = "\
# a comment
 FROM ./model.gguf
from other:tag

Adapter a.gguf
DRAFT d.gguf
TEMPLATE {{ .Prompt }} # not a comment
SYSTEM You are \"X\".
RENDERER r
PARSER p
REQUIRES v0.14.0
LICENSE L1
LICENSE L2
PARAMETER stop a
PARAMETER  stop  b
PARAMETER temperature 0.5
PARAMETER temperature 0.7
PARAMETER mirostat 1
MESSAGE user Q: what?
MESSAGE\tassistant\tA
";
    let plan = plan(commands(text)).unwrap();
    assert_eq!(plan.from, ["./model.gguf", "other:tag"]);
    assert_eq!(plan.adapter.as_deref(), Some("a.gguf"));
    assert_eq!(plan.draft, ["d.gguf"]);
    assert_eq!(plan.deprecated, ["mirostat"]);
    let request = plan.request;
    assert_eq!(request.template, "{{ .Prompt }} # not a comment");
    assert_eq!(request.system, "You are \"X\".");
    assert_eq!(
        (request.renderer.as_str(), request.parser.as_str()),
        ("r", "p")
    );
    assert_eq!(request.requires, "v0.14.0");
    assert_eq!(request.license.0, ["L1", "L2"]);
    assert_eq!(
        serde_json::to_value(&request.parameters).unwrap(),
        serde_json::from_str::<Value>(r#"{"stop":["a","b"],"temperature":0.7}"#).unwrap()
    );
    assert_eq!(
        serde_json::to_value(&request.messages).unwrap(),
        json!([{"role": "user", "content": "Q: what?"}, {"role": "assistant", "content": "A"}])
    );
}

#[test]
fn quotes() {
    for (value, expected) in [
        ("plain text", "plain text"),
        ("  padded  ", "padded"),
        ("\"one line\"", "one line"),
        ("\" kept \"", " kept "),
        ("\"two\nlines\"", "two\nlines"),
        (
            "\"\"\"three\r\nquotes \"inner\" here\n\"\"\"",
            "three\r\nquotes \"inner\" here\n",
        ),
        ("\"\"\"\nfirst\"\"\"", "\nfirst"),
        ("\"\"\"a\"\"\" b\nc\"\"\"", "a\"\"\" b\nc"),
        ("\"x\" y\nz\"", "x\" y\nz"),
        ("'single'", "'single'"),
        ("a \"b\"", "a \"b\""),
        ("\"\"", ""),
        ("\"\"\"\"\"\"", ""),
        ("a\u{a0}b\u{200d}\u{3000}c\0d", "a\u{a0}b\u{200d}\u{3000}cd"),
    ] {
        for end in ["\n", ""] {
            let text = format!("FROM m\nSYSTEM {value}{end}");
            assert_eq!(
                commands(&text)[1],
                Command::System(expected.into()),
                "{text:?}"
            );
        }
    }
}

#[test]
fn an_empty_from_is_the_folder() {
    assert_eq!(commands("FROM \n"), [Command::From(String::new())]);
}

#[test]
fn encodings() {
    let text = "FROM m\nSYSTEM grüße 𝄞\n";
    let expected = commands(text);
    let utf16 = |mark: u16, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        [mark]
            .into_iter()
            .chain(text.encode_utf16())
            .flat_map(bytes)
            .collect()
    };
    assert_eq!(
        parse(format!("\u{feff}{text}").as_bytes()).unwrap(),
        expected
    );
    assert_eq!(parse(&utf16(0xfeff, u16::to_le_bytes)).unwrap(), expected);
    assert_eq!(parse(&utf16(0xfeff, u16::to_be_bytes)).unwrap(), expected);
    for broken in [&b"FROM \xff"[..], b"\xff\xfeF", b"\xfe\xff\xd8\x00"] {
        assert_eq!(parse(broken), Err(Error::Encoding));
    }
}

#[test]
fn errors_name_the_line() {
    for (text, line) in [
        ("FROM m\nBADCOMMAND x\n", 2),
        ("FROM m\nSYSTEM\n", 3),
        ("FROM m\nPARAMETER\nSYSTEM x", 3),
        ("FROM m\r\nBAD x", 3),
        ("1 x", 1),
        ("FROM2 x", 1),
        ("FROM m\n\n# c\nMESSAGES user x\n", 4),
        ("FROM m\nSYSTEM \"two\nlines\"\nBAD x", 4),
    ] {
        assert_eq!(
            problem(text),
            format!("(line {line}): {COMMAND}"),
            "{text:?}"
        );
    }
    for role in ["User", "tool", ""] {
        assert_eq!(
            problem(&format!("FROM m\nMESSAGE {role}x y\n")),
            "(line 2): message role must be one of \"system\", \"user\", or \"assistant\""
        );
    }
}

#[test]
fn broken_off() {
    for text in [
        "FRO",
        "FROM",
        "FROM m\nSYSTEM \"open",
        "FROM m\nSYSTEM \"\"\"open\"\n",
        "FROM m\nPARAMETER key",
        "FROM m\nMESSAGE user",
    ] {
        assert_eq!(problem(text), "unexpected EOF", "{text:?}");
    }
    assert_eq!(problem("FROM m\nPARAMETER key\n"), "unexpected EOF: key");
    assert_eq!(problem("FROM m\nPARAMETER ke-y 1\n"), "unexpected EOF: ke");
    assert_eq!(problem("FROM m\nMESSAGE user\n"), "unexpected EOF: user");
}

#[test]
fn other_errors() {
    assert_eq!(problem(""), "no FROM line");
    assert_eq!(problem("# FROM m\nSYSTEM x"), "no FROM line");
    assert_eq!(
        problem("FROM m\nPARAMETER bogus 1"),
        "unknown parameter 'bogus'"
    );
    assert_eq!(
        problem("FROM m\nPARAMETER num_ctx abc"),
        "invalid int value [abc]"
    );
    for version in [
        "x", "1.2.3.4", "01.2", "1.2-rc1", "v", "1.2.3-", "1.2.3-01", "",
    ] {
        let text = format!("FROM m\nREQUIRES {version}\n");
        assert_eq!(
            problem(&text),
            "requires must be a valid semver (e.g. 0.14.0)",
            "{version}"
        );
    }
    for version in ["0.14.0", "0.14", "v1", "1.2.3-rc.1+b01"] {
        plan(commands(&format!("FROM m\nREQUIRES {version}\n"))).unwrap();
    }
}

#[test]
fn written_as_ollama_does() {
    let text = "FROM /x/sha256-00\nTEMPLATE \"{{ .Prompt }}\n\"\nSYSTEM \"\"\"You are \"X\".\nLine 2\"\"\"\nPARAMETER stop <|im_end|>\nLICENSE L1\nMESSAGE user Q\n";
    assert_eq!(render(&commands(text)), text);
    let quoted = Command::System("\"quoted\"".into());
    assert_eq!(quoted.to_string(), "SYSTEM \"\"\"\"quoted\"\"\"\"");
}

proptest! {
    #[test]
    fn values_round_trip(value in "[ a\"\n#]{0,12}") {
        // Three quotes before a line end close the value early, whatever stands around it.
        prop_assume!(!value.contains("\"\"\""));
        let command = Command::System(value);
        let read = parse(format!("FROM m\n{command}\n").as_bytes());
        prop_assert_eq!(read, Ok(vec![Command::From("m".into()), command]));
    }

    #[test]
    fn any_bytes_parse_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = parse(&bytes).and_then(plan);
    }
}
