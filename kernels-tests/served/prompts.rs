//! Prompts as the server renders them: recognised templates, the setting that chooses, what generate does otherwise.

use serde_json::{Value, json};

use crate::hostile_templates::model_with_template;
use crate::server::Server;
use crate::tools::extended;

/// Phi-3's format, as models bring it.
const PHI_3: &str = "{% for m in messages %}{{ '<|' + m['role'] + '|>\\n' + m['content'] + '<|end|>\\n' }}{% endfor %}{{ '<|assistant|>\\n' }}";

/// A server with a model `phi` that has this template.
fn server(variables: &[(&str, &str)]) -> Server {
    let server = Server::start(variables);
    let path = server.home.path().join("model.gguf");
    std::fs::write(&path, model_with_template(PHI_3)).expect("write");
    let (created, stderr) = server.try_create("phi", &path);
    assert!(created, "{stderr}");
    assert!(
        stderr.contains("using autodetected template phi-3\n"),
        "{stderr}"
    );
    server
}

/// The prompt of a request, which generates nothing.
async fn prompt(server: &Server, path: &str, body: Value) -> String {
    let reply = server
        .post(path, &extended(body, &json!({"_debug_render_only": true})))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.text);
    let text = &reply.json()["_debug_info"]["rendered_template"];
    // The model's template is filled up with blanks.
    let text = text.as_str().expect("a prompt");
    text.trim_end_matches(' ').to_owned()
}

#[tokio::test]
async fn a_recognised_template_renders_unless_the_setting_says_no() {
    for setting in ["", "1", "0"] {
        let server = server(&[("OLLAMA_GO_TEMPLATE", setting)]);
        let shown = server
            .post("/api/show", &json!({"model": "phi"}))
            .await
            .json();
        let template = shown["template"].as_str().expect("a template");
        assert_eq!(
            template.contains("{%"),
            setting == "0",
            "{setting}: {template}"
        );
        let stops: Vec<&str> = shown["parameters"]
            .as_str()
            .expect("parameters")
            .lines()
            .filter_map(|line| line.strip_prefix("stop")?.trim().strip_prefix('"'))
            .collect();
        assert_eq!(
            stops,
            ["<|end|>\"", "<|system|>\"", "<|user|>\"", "<|assistant|>\""]
        );
        assert_eq!(shown["capabilities"], json!(["completion"]));
        let messages =
            json!([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]);
        let body = json!({"model": "phi", "messages": messages});
        assert_eq!(
            prompt(&server, "/api/chat", body).await,
            "<|system|>\nS<|end|>\n<|user|>\nU<|end|>\n<|assistant|>\n"
        );
    }
}

#[tokio::test]
async fn generate_fills_gaps_and_takes_a_template_of_its_own() {
    let server = server(&[]);
    let template = "{{ if .Suffix }}<P>{{ .Prompt }}<S>{{ .Suffix }}<M>{{ else }}{{ if .System }}[{{ .System }}]{{ end }}{{ .Prompt }}{{ end }}";
    let model = json!({"model": "own", "from": "phi", "template": template, "system": "MODEL", "stream": false});
    let created = server.post("/api/create", &model).await;
    assert_eq!(created.status, 200, "{}", created.text);
    let cases = [
        (json!({}), "[MODEL]a"),
        (json!({"system": "REQUEST"}), "[REQUEST]a"),
        (json!({"suffix": "b"}), "<P>a<S>b<M>"),
        (json!({"template": "<{{ .Prompt }}>"}), "<a>"),
        (json!({"raw": true}), "a"),
    ];
    for (more, expected) in cases {
        let body = extended(json!({"model": "own", "prompt": "a"}), &more);
        assert_eq!(
            prompt(&server, "/api/generate", body).await,
            expected,
            "{more}"
        );
    }
    let bad = json!({"model": "own", "prompt": "a", "template": "{{ .Prompt"});
    let reply = server.post("/api/generate", &bad).await;
    assert_eq!(reply.status, 500, "{}", reply.text);
    assert!(reply.text.contains("unclosed action"), "{}", reply.text);
    let insert = json!({"model": "phi", "prompt": "a", "suffix": "b"});
    let reply = server.post("/api/generate", &insert).await;
    assert_eq!(reply.status, 400, "{}", reply.text);
    assert!(
        reply.text.contains("does not support insert"),
        "{}",
        reply.text
    );
}

/// Models of Ollama's library bring a template that says nothing, and the names of what renders and reads instead.
#[tokio::test]
async fn the_models_own_template_stands_for_a_named_renderer() {
    let server = server(&[("OLLAMA_GO_TEMPLATE", "1")]);
    let create = async |name: &str, more: Value| {
        let body = json!({"model": name, "from": "phi", "stream": false});
        let created = server.post("/api/create", &extended(body, &more)).await;
        assert_eq!(created.status, 200, "{}", created.text);
    };
    let stub =
        json!({"template": "{{ .Prompt }}", "renderer": "qwen3-coder", "parser": "qwen3-coder"});
    create("coder", stub).await;
    let shown = server.post("/api/show", &json!({"model": "coder"})).await;
    let shown = shown.json();
    let modelfile = shown["modelfile"].as_str().expect("a Modelfile");
    for line in ["RENDERER qwen3-coder\n", "PARSER qwen3-coder\n"] {
        assert!(modelfile.contains(line), "{modelfile}");
    }
    assert_eq!(shown["capabilities"], json!(["completion", "tools"]));
    let messages = json!([{"role": "user", "content": "U"}]);
    let chat = json!({"model": "coder", "messages": messages});
    let expected = "<|user|>\nU<|end|>\n<|assistant|>\n";
    assert_eq!(prompt(&server, "/api/chat", chat.clone()).await, expected);
    // The log says once what renders, and why.
    assert_eq!(prompt(&server, "/api/chat", chat.clone()).await, expected);
    let log = server.log();
    let chosen = log.matches("chose the template of chats").count();
    assert_eq!(chosen, 1, "{log}");
    assert!(log.contains("renderer_parser"), "{log}");
    // It is inherited, and another template is seen at once.
    let child = json!({"model": "child", "from": "coder", "stream": false});
    let created = server.post("/api/create", &child).await;
    assert_eq!(created.status, 200, "{}", created.text);
    let of_child = extended(chat.clone(), &json!({"model": "child"}));
    assert_eq!(prompt(&server, "/api/chat", of_child).await, expected);
    let own =
        json!({"template": "{{ range .Messages }}<{{ .Content }}>{{ end }}", "parser": "qwen3"});
    create("coder", own).await;
    assert_eq!(prompt(&server, "/api/chat", chat.clone()).await, "<U>");
    let shown = server.post("/api/show", &json!({"model": "coder"})).await;
    let capabilities = &shown.json()["capabilities"];
    assert_eq!(capabilities, &json!(["completion", "tools", "thinking"]));
    create("coder", json!({"renderer": "nosuch"})).await;
    let refused = server.post("/api/chat", &chat).await;
    assert_eq!(refused.status, 500, "{}", refused.text);
    let text = "unknown renderer \\\"nosuch\\\"";
    assert!(refused.text.contains(text), "{}", refused.text);
}
