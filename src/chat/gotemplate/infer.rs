//! What a Go template's tree tells about the model: the fields it uses, the tags around tool calls
//! and reasoning.

use super::{
    GoTemplate,
    ast::{Branch, Expr, Node, Pipe},
    parser::ROOT,
};
use std::collections::BTreeSet;

/// Names of fields and variables in all templates, in lower case.
pub fn identifiers(template: &GoTemplate) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    template
        .templates
        .values()
        .for_each(|nodes| collect(nodes, &mut out));
    out
}

fn collect(nodes: &[Node], out: &mut BTreeSet<String>) {
    for node in nodes {
        let operands = node.pipe().map(Pipe::operands).unwrap_or_default();
        for path in operands.iter().filter_map(|expr| match expr {
            Expr::Field(path) | Expr::Variable(_, path) => Some(path),
            _ => None,
        }) {
            out.extend(path.iter().map(|name| name.to_lowercase()));
        }
        node.bodies().iter().for_each(|body| collect(body, out));
    }
}

/// The text that comes before a tool call: the first in the body of the first `if` on
/// `.ToolCalls`, up to a brace. `{` where there is none.
pub fn tool_tag(template: &GoTemplate) -> String {
    let body = template
        .templates
        .get(ROOT)
        .and_then(|nodes| tool_calls_body(nodes));
    let text = body
        .and_then(|body| first_text(body).ok().flatten())
        .unwrap_or_default();
    match text.split('{').next().unwrap_or_default().trim() {
        "" => "{".into(),
        tag => tag.into(),
    }
}

fn tool_calls_body(nodes: &[Node]) -> Option<&[Node]> {
    nodes.iter().find_map(|node| {
        if let Node::If(branch) = node
            && branch
                .pipe
                .direct_fields()
                .any(|path| path.iter().any(|name| name == "ToolCalls"))
        {
            return Some(&branch.body[..]);
        }
        node.bodies().into_iter().find_map(tool_calls_body)
    })
}

/// The first text that is not blank; an error where something is printed before it.
fn first_text(nodes: &[Node]) -> Result<Option<&str>, ()> {
    for node in nodes {
        match node {
            Node::Text(text) if !text.trim().is_empty() => return Ok(Some(text)),
            Node::Action(pipe) if pipe.variables.is_empty() => return Err(()),
            node => {
                for body in node.bodies() {
                    if let Some(text) = first_text(body)? {
                        return Ok(Some(text));
                    }
                }
            }
        }
    }
    Ok(None)
}

/// The tags around a message's reasoning: the texts at both ends of the list of nodes in which
/// `.Thinking` is printed, inside a range over `.Messages`.
pub fn thinking_tags(template: &GoTemplate) -> Option<(String, String)> {
    let mut tags = (String::new(), String::new());
    if let Some(nodes) = template.templates.get(ROOT) {
        find_thinking(nodes, false, &mut tags);
    }
    (!tags.0.is_empty() && !tags.1.is_empty()).then_some(tags)
}

fn find_thinking(nodes: &[Node], in_messages: bool, tags: &mut (String, String)) {
    for node in nodes {
        // A range over messages holds for its own pipeline too.
        let in_messages = match node {
            Node::Range(branch) => ranges_over_messages(branch),
            _ => in_messages,
        };
        let uses_thinking = node.pipe().is_some_and(|pipe| {
            pipe.operands()
                .iter()
                .any(|expr| matches!(expr, Expr::Field(path) if path[0] == "Thinking"))
        });
        if uses_thinking && in_messages {
            if let Some(Node::Text(text)) = nodes.first() {
                tags.0 = text.trim().to_string();
            }
            if let Some(Node::Text(text)) = nodes.last() {
                tags.1 = text.trim().to_string();
            }
        }
        node.bodies()
            .iter()
            .for_each(|body| find_thinking(body, in_messages, tags));
    }
}

fn ranges_over_messages(branch: &Branch) -> bool {
    branch
        .pipe
        .direct_fields()
        .any(|path| path.iter().any(|name| name == "Messages"))
}

/// The nodes up to and with the first action that prints `.Response`, and whether there is one.
pub fn cut_after_response(nodes: &[Node]) -> (Vec<Node>, bool) {
    let mut out = Vec::new();
    for node in nodes {
        let (node, is_cut) = cut_node(node);
        out.push(node);
        if is_cut {
            return (out, true);
        }
    }
    (out, false)
}

fn cut_node(node: &Node) -> (Node, bool) {
    let cut = |branch: &Branch, wrap: fn(Branch) -> Node| {
        let (body, in_body) = cut_after_response(&branch.body);
        let (otherwise, in_otherwise) = match in_body {
            true => (Vec::new(), true),
            false => cut_after_response(&branch.otherwise),
        };
        (
            wrap(Branch {
                pipe: branch.pipe.clone(),
                body,
                otherwise,
            }),
            in_body || in_otherwise,
        )
    };
    match node {
        Node::If(branch) => cut(branch, Node::If),
        Node::With(branch) => cut(branch, Node::With),
        Node::Range(branch) => cut(branch, Node::Range),
        Node::Action(pipe) => (node.clone(), prints_response(pipe)),
        node => (node.clone(), false),
    }
}

fn prints_response(pipe: &Pipe) -> bool {
    let is_response =
        |expr: &&Expr| matches!(expr, Expr::Field(path) if path.iter().any(|n| n == "Response"));
    pipe.operands().iter().any(is_response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(source: &str) -> GoTemplate {
        GoTemplate::parse(source).unwrap()
    }

    #[test]
    fn identifiers_are_those_of_all_chains() {
        let names = |source: &str| identifiers(&parsed(source)).into_iter().collect::<Vec<_>>();
        assert_eq!(
            names("{{ range $.Messages }}{{ .Role }}{{ .Content }}{{ end }}"),
            ["content", "messages", "role"]
        );
        assert_eq!(
            names("{{ define \"x\" }}{{ .A.B }}{{ end }}{{ if (eq .C 1) }}{{ end }}"),
            ["a", "b", "c"]
        );
        assert_eq!(names("{{ (index .Messages 0).Content }}"), ["messages"]);
    }

    #[test]
    fn tool_tags_are_found() {
        let cases = [
            ("{{ if .ToolCalls }}{{ end }}", "{"),
            ("{{ if .ToolCalls }}  {{ end }}", "{"),
            (
                "{{ if .ToolCalls }}{{ range .ToolCalls }}{\"name\": \"x\"}{{ end }}{{ end }}",
                "{",
            ),
            (
                "{{ if .ToolCalls }}[{{ range .ToolCalls }}{{ . }}{{ end }}]{{ end }}",
                "[",
            ),
            (
                "{{ if .ToolCalls }}\n [ {{ range .ToolCalls }}{{ . }}{{ end }}{{ end }}",
                "[",
            ),
            ("{{ if .ToolCalls }}```json\n{{ . }}{{ end }}", "```json"),
            (
                "{{ if .ToolCalls }}<tool_call>{\"name\": {{ . }}}{{ end }}",
                "<tool_call>",
            ),
            (
                "{{ if .ToolCalls }}{{ range .ToolCalls }}<tool_call>\n{{ . }}{{ end }}{{ end }}",
                "<tool_call>",
            ),
            (
                "{{ if .ToolCalls }}[TOOL_CALLS] [{{ range .ToolCalls }}{{ end }}{{ end }}",
                "[TOOL_CALLS] [",
            ),
            ("{{ if .ToolCalls }}{{ . }}after{{ end }}", "{"),
            (
                "{{ if .ToolCalls }}[TOOL_CALL][{{ range .ToolCalls }}{{ end }}{{ end }}",
                "[TOOL_CALL][",
            ),
            (
                "{{ if .ToolCalls }}functools[{{ range .ToolCalls }}{{ . }}{{ end }}]{{ end }}",
                "functools[",
            ),
            (
                "{{ if .ToolCalls }}Action: ```json\n{{ range .ToolCalls }}{{ . }}{{ end }}{{ end }}",
                "Action: ```json",
            ),
            (
                "{{ if .ToolCalls }}<|tool▁calls▁begin|>{{ range .ToolCalls }}{\"name\"{{ end }}{{ end }}",
                "<|tool▁calls▁begin|>",
            ),
            (
                "{{ if .ToolCalls }}{{ range .ToolCalls }}{{ . }}}]{{ end }}{{ end }}",
                "{",
            ),
            (
                "{{ if .ToolCalls }}First text{{ if .X }}Second{{ end }}{{ end }}",
                "First text",
            ),
            (
                "{{ range .Messages }}{{ if .Content }}a{{ else if .ToolCalls }}<call>{{ end }}{{ end }}",
                "<call>",
            ),
            ("{{ if $.ToolCalls }}<call>{{ end }}", "{"),
            ("{{ .Content }}", "{"),
        ];
        for (source, tag) in cases {
            assert_eq!(tool_tag(&parsed(source)), tag, "{source}");
        }
    }

    #[test]
    fn thinking_tags_are_found() {
        let tags = |source: &str| thinking_tags(&parsed(source));
        let found = |open: &str, close: &str| Some((open.to_string(), close.to_string()));
        assert_eq!(
            tags(
                "{{ range .Messages }}{{ if .Thinking }}\n<think>\n{{ .Thinking }}</think>{{ end }}x{{ end }}"
            ),
            found("<think>", "</think>")
        );
        assert_eq!(
            tags(
                "{{ range $i, $_ := .Messages }}a{{ if and .Thinking $.X }}<t>{{ .Thinking }}</t>{{ end }}{{ end }}"
            ),
            found("<t>", "</t>")
        );
        assert_eq!(
            tags("{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}"),
            None
        );
        assert_eq!(
            tags(
                "{{ range .Messages }}{{ range .Other }}<think>{{ .Thinking }}</think>{{ end }}{{ end }}"
            ),
            None
        );
        assert_eq!(
            tags("{{ range $.Messages }}<think>{{ .Thinking }}</think>{{ end }}"),
            None
        );
    }
}
