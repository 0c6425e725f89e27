//! The engine against what Go's `text/template` documents.

use super::{GoTemplate, value::Value};
use chrono::NaiveDateTime;

fn now() -> NaiveDateTime {
    NaiveDateTime::parse_from_str("2026-11-22 21:00", "%Y-%m-%d %H:%M").unwrap()
}

/// The output, or the error's text.
fn render(source: &str, data: serde_json::Value) -> String {
    let data = Value::from_json(&data);
    let result = GoTemplate::parse(source).and_then(|t| t.run(&data, now(), 100_000));
    result.unwrap_or_else(|error| error.to_string())
}

fn check(cases: &[(&str, &str)]) {
    let data = serde_json::json!({
        "s": "text", "e": "", "n": 2, "list": ["a", "b", "c"], "none": null,
        "map": {"z": 1, "a": {"b": "deep"}}, "T": true,
    });
    for (source, expected) in cases {
        assert_eq!(render(source, data.clone()), *expected, "{source}");
    }
}

#[test]
fn conditions() {
    check(&[
        ("{{if .s}}1{{else}}2{{end}}", "1"),
        (
            "{{if .e}}1{{else if .none}}2{{else if eq .s \"x\" \"text\"}}3{{else}}4{{end}}",
            "3",
        ),
        ("{{if not .missing}}1{{end}}", "1"),
        ("{{with .map.a}}{{.b}}{{end}}", "deep"),
        ("{{with .e}}1{{else with .s}}{{.}}{{else}}3{{end}}", "text"),
        ("{{if and .s .e (index .list 9)}}1{{else}}2{{end}}", "2"),
        ("{{or .e .s}}{{and .s .T}}", "texttrue"),
        ("{{or .e .none}}", "<no value>"),
    ]);
}

#[test]
fn ranges() {
    check(&[
        ("{{range .list}}{{.}},{{end}}", "a,b,c,"),
        (
            "{{range $x := .list}}{{$x}}{{$.s}}{{end}}",
            "atextbtextctext",
        ),
        ("{{range $i, $x := .list}}{{$i}}{{$x}}{{end}}", "0a1b2c"),
        (
            "{{range $k, $v := .map}}{{$k}}={{$v}};{{end}}",
            "a=map[b:deep];z=1;",
        ),
        ("{{range .missing}}1{{else}}none{{end}}", "none"),
        ("{{range 3}}{{.}}{{end}}", "012"),
        (
            "{{range .list}}{{if eq . \"b\"}}{{continue}}{{end}}{{.}}{{end}}",
            "ac",
        ),
        (
            "{{range .list}}{{if eq . \"b\"}}{{break}}{{end}}{{.}}{{end}}",
            "a",
        ),
        (
            "{{range .s}}{{end}}",
            "template: :1: range can't iterate over text",
        ),
    ]);
}

#[test]
fn variables_have_blocks_as_scope() {
    check(&[
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
        ("{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"),
        (
            "{{$last := \"\"}}{{range .list}}{{$last = .}}{{end}}{{$last}}",
            "c",
        ),
        ("{{$i := 0}}{{range $i, $x := .list}}{{end}}{{$i}}", "0"),
        ("{{if $x := .s}}{{$x}}{{end}}", "text"),
        (
            "{{if true}}{{$x := 1}}{{end}}{{$x}}",
            "template: :1: undefined variable \"$x\"",
        ),
        ("{{with $x := .map}}{{$x.a.b}}{{end}}", "deep"),
    ]);
}

#[test]
fn pipelines_and_templates() {
    check(&[
        ("{{.s | printf \"%s-%s\" \"a\" | len}}", "6"),
        ("{{(index .list 1)}}{{(.map).a.b}}", "bdeep"),
        ("{{printf \"%d %v\" (len .list) .n}}", "3 2"),
        (
            "{{define \"t\"}}<{{.}}{{$}}>{{end}}{{template \"t\" .s}}{{range .list}}{{template \"t\" .}}{{end}}",
            "<texttext><aa><bb><cc>",
        ),
        ("{{block \"b\" .s}}[{{.}}]{{end}}", "[text]"),
        ("{{template \"t\"}}", "undefined template specified"),
        (
            "{{1 | .s}}",
            "template: :1: can't give argument to non-function",
        ),
        ("{{range .list}}{{len (slice $.list 1)}}{{end}}", "222"),
    ]);
}

#[test]
fn missing_values() {
    check(&[
        ("{{.missing}}", "<no value>"),
        ("{{.missing.x.y}}{{if .missing.x}}1{{end}}", "<no value>"),
        (
            "{{.none.x}}",
            "template: :1: nil pointer evaluating interface {}.x",
        ),
        (
            "\n{{.s.x}}",
            "template: :2: can't evaluate field x in type string",
        ),
    ]);
}

#[test]
fn parse_errors() {
    check(&[
        ("{{ .Foo", "template: :1: unclosed action"),
        ("{{if .s}}", "template: :1: unexpected EOF"),
        ("{{end}}", "template: :1: unexpected {{end}}"),
        ("{{else}}", "template: :1: unexpected {{else}}"),
        (
            "a\n{{nope .s}}",
            "template: :2: function \"nope\" not defined",
        ),
        ("{{if}}x{{end}}", "template: :1: missing value for if"),
        ("{{break}}", "template: :1: {{break}} outside {{range}}"),
        (
            "{{.s | 1}}",
            "template: :1: non executable command in pipeline stage 2",
        ),
        (
            "{{(.s}}",
            "template: :1: unexpected }} in parenthesized pipeline",
        ),
        ("{{$x = 1}}", "template: :1: undefined variable \"$x\""),
        ("{{\"a\".b}}", "template: :1: unexpected . after term \"b\""),
    ]);
}

/// A template may ask for anything; what it costs is bounded.
#[test]
fn hostile_templates_end_in_an_error() {
    let nested = "{{if true}}".repeat(100_000);
    let parens = format!("{{{{{}1{}}}}}", "(".repeat(100_000), ")".repeat(100_000));
    let chain = format!(
        "{{{{if .a}}}}{}{{{{end}}}}",
        "{{else if .a}}".repeat(50_000)
    );
    let doubling = format!(
        "{{{{$x := \"0123456789abcdef\"}}}}{}",
        "{{$x = printf \"%s%s\" $x $x}}".repeat(64)
    );
    let recursive =
        "{{define \"t\"}}{{template \"t\" .}}{{template \"t\" .}}{{end}}{{template \"t\" .}}";
    let counting = "{{range 999999999999}}{{end}}";
    let fanout = "{{range 1000}}{{range 1000}}{{range 1000}}x{{end}}{{end}}{{end}}";
    for source in [
        &nested[..],
        &parens,
        &chain,
        &doubling,
        recursive,
        counting,
        fanout,
    ] {
        let message = render(source, serde_json::json!({}));
        assert!(
            message.starts_with("template exceeds"),
            "{}: {message}",
            &source[..30.min(source.len())]
        );
    }
}

#[test]
fn any_text_parses_or_fails() {
    let pieces = [
        "{{", "}}", "{{-", "-}}", " ", "if", "range", "end", ".", "$", "x", "\"", "(", ")", "|",
        ":=", "1", "/*", "*/", "é", "'", "`",
    ];
    // A fixed generator: every run tries the same texts.
    let mut state = 1u64;
    for _ in 0..5_000 {
        let mut source = String::new();
        for _ in 0..12 {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            source.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        render(&source, serde_json::json!({"x": 1}));
    }
}
