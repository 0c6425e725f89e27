//! Formats that nobody has described: what their templates write is read, and the grammar allows it.

use serde_json::{Value, json};

use super::call_tests::{REQUIRED, grammar, parsed};
use super::tests::accepts;
use crate::chat::{Rules, Template};

/// A template whose calls are `call` for each, after `before` and between `between`, and before `after`.
fn template(before: &str, call: &str, between: &str, after: &str) -> Template {
    // Written by an expression, so that no blank is trimmed.
    let said = |text: &str| format!("{{{{ {} }}}}", json!(text));
    let (before, between, after) = (said(before), said(between), said(after));
    let text = format!(
        "{{% for m in messages %}}<|{{{{ m.role }}}}|>{{{{ m.content }}}}{{% if m.tool_calls %}}{before}\
         {{% for c in m.tool_calls %}}{call}{{% if not loop.last %}}{between}{{% endif %}}{{% endfor %}}\
         {after}{{% endif %}}<|stop|>{{% endfor %}}<|assistant|>"
    );
    Template::parse_jinja(&text, "", "").expect("a template")
}

const ARGUMENTS: &str = "{{ c.function.arguments | tojson }}";
const NAME: &str = "{{ c.function.name }}";

/// A call of `f` and one of `g` in each.
fn formats() -> Vec<(Template, &'static str)> {
    let members = |open: &str, middle: &str, close: &str| {
        format!(
            "{{% for k, v in c.function.arguments.items() %}}{open}{{{{ k }}}}{middle}{{{{ v }}}}{close}{{% endfor %}}"
        )
    };
    let quoted = "{% for k, v in c.function.arguments.items() %}{{ k }}: {{ v | tojson }}{% if not loop.last %}; {% endif %}{% endfor %}";
    vec![
        // A JSON object in tags of its own.
        (
            template(
                "",
                &format!("<invoke>{{\"tool\": \"{NAME}\", \"input\": {ARGUMENTS}}}</invoke>"),
                "\n",
                "",
            ),
            "<invoke>{\"tool\": \"f\", \"input\": {\"city\": \"Paris\", \"n\": 7}}</invoke>\n<invoke>{\"tool\": \"g\", \"input\": {}}</invoke>",
        ),
        // Elements.
        (
            template(
                "<use>\n",
                &format!(
                    "<fn id=\"{NAME}\">\n{}</fn>\n",
                    members("<arg id=\"", "\">", "</arg>\n")
                ),
                "",
                "</use>",
            ),
            "<use>\n<fn id=\"f\">\n<arg id=\"city\">Paris</arg>\n<arg id=\"n\">7</arg>\n</fn>\n<fn id=\"g\">\n</fn>\n</use>",
        ),
        // A notation of functions.
        (
            template("```tool\n", &format!("{NAME}({quoted})"), "\n", "\n```"),
            "```tool\nf(city: \"Paris\"; n: 7)\ng()\n```",
        ),
    ]
}

#[test]
fn what_is_read_off_a_template_is_read_and_allowed() {
    let expected = vec![
        ("f".to_owned(), json!({"city": "Paris", "n": 7})),
        ("g".to_owned(), json!({})),
    ];
    let free = Rules {
        required: false,
        several: true,
    };
    for (template, text) in formats() {
        assert_eq!(
            parsed(&template, text),
            (expected.clone(), String::new()),
            "{text}"
        );
        let spoken = format!("Let me see. {text}");
        let (calls, content) = parsed(&template, &spoken);
        assert_eq!(
            (calls, content.trim_end()),
            (expected.clone(), "Let me see."),
            "{text}"
        );
        let required = grammar(&template, REQUIRED);
        assert!(accepts(required.clone(), text), "{text}");
        assert!(
            !accepts(required.clone(), &text.replace('7', "70")),
            "{text}"
        );
        assert!(!accepts(required, "Let me see."), "{text}");
        assert!(accepts(grammar(&template, free), &spoken), "{text}");
    }
}

#[test]
fn text_that_only_begins_like_a_call_stays() {
    for (template, text) in formats() {
        let tag = &text[..text.find(['f', '{']).expect("a name")];
        let broken = format!("{tag} and so on");
        let (calls, content) = parsed(&template, &broken);
        assert!(
            calls.is_empty() && content.contains("and so on"),
            "{broken}: {content}"
        );
    }
}

/// A list, a nested object, a text with markup in it: as the model of the format writes them.
#[test]
fn values_keep_their_types() {
    let (elements, _) = formats().remove(1);
    let text = "<use><fn id=\"f\"><arg id=\"city\">a < b\n</arg><arg id=\"n\"> 7 </arg></fn></use>";
    let expected: Vec<(String, Value)> = vec![("f".into(), json!({"city": "a < b\n", "n": 7}))];
    assert_eq!(parsed(&elements, text).0, expected);
    let (functions, _) = formats().remove(2);
    let text = "```tool\nf(city: 'it\\'s'; n: [1, {\"x\": None}])\n```";
    let expected: Vec<(String, Value)> =
        vec![("f".into(), json!({"city": "it's", "n": [1, {"x": null}]}))];
    assert_eq!(parsed(&functions, text).0, expected);
}
