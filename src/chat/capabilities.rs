//! What a model can do, read from its template and its files.

use super::{Template, gotemplate::GoTemplate};

/// Something a model can do, as the API lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Capability {
    Completion,
    Embedding,
    Tools,
    Insert,
    Thinking,
    Vision,
    Audio,
}

impl Capability {
    /// The name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Capability::Completion => "completion",
            Capability::Embedding => "embedding",
            Capability::Tools => "tools",
            Capability::Insert => "insert",
            Capability::Thinking => "thinking",
            Capability::Vision => "vision",
            Capability::Audio => "audio",
        }
    }
}

/// A model's capabilities in Ollama's order: what its Jinja template adds, completion or embedding,
/// what its Go template adds. `/api/show` passes the template that renders; `/api/tags` passes it
/// only when it is a Go template.
pub fn capabilities_of_model(template: Option<&Template>, is_embedder: bool) -> Vec<Capability> {
    let base = if is_embedder {
        Capability::Embedding
    } else {
        Capability::Completion
    };
    let from_template = template.map(Template::capabilities).unwrap_or_default();
    if template.is_some_and(Template::is_jinja) {
        return from_template.into_iter().chain([base]).collect();
    }
    [base].into_iter().chain(from_template).collect()
}

/// Capabilities that a Jinja template's text shows.
pub(super) fn of_jinja(text: &str) -> Vec<Capability> {
    let has = |part: &str| text.contains(part);
    let mut found = Vec::new();
    if has("tools") || has("tool_call") {
        found.push(Capability::Tools);
    }
    // Templates that cut old reasoning at the closing tag write it themselves, unless they carry
    // it in a field or in Nemotron's private tag.
    let cuts = ["content.split('</think>')", "content.split(\"</think>\")"]
        .iter()
        .any(|c| has(c));
    let other_form = has("reasoning_content") || has("<SPECIAL_12>");
    let gemma_4 = has("<|channel>thought");
    if (has("<think>") && has("</think>")) || (cuts && !other_form) || gemma_4 {
        found.push(Capability::Thinking);
    }
    found
}

/// Capabilities that a Go template's fields show.
pub(super) fn of_go(template: &GoTemplate) -> Vec<Capability> {
    let identifiers = template.identifiers();
    let has = |name: &str| identifiers.contains(name);
    let mut found = Vec::new();
    if has("tools") {
        found.push(Capability::Tools);
    }
    if has("suffix") {
        found.push(Capability::Insert);
    }
    if template.thinking_tags().is_some() {
        found.push(Capability::Thinking);
    }
    found
}

/// Whether the GGUF's Jinja template renders although the model has a Go template: when it can do
/// more than the Go template, or as much with tool results besides. `forced` is the setting
/// `OLLAMA_GO_TEMPLATE`, absent when it is not set.
pub fn prefers_jinja(go: &Template, jinja: &Template, forced: Option<bool>) -> bool {
    if let Some(go_wanted) = forced {
        return !go_wanted;
    }
    let (of_go, of_jinja) = (go.capabilities(), jinja.capabilities());
    let same = of_go.len() == of_jinja.len() && of_jinja.iter().all(|c| of_go.contains(c));
    let (go_round_trip, jinja_round_trip) = (has_go_round_trip(go), has_jinja_round_trip(jinja));
    if of_jinja.len() > of_go.len() {
        return jinja_round_trip || !go_round_trip;
    }
    same && of_go.contains(&Capability::Tools) && jinja_round_trip && !go_round_trip
}

/// Whether a Go template writes both calls and their results.
fn has_go_round_trip(template: &Template) -> bool {
    let text = template.text();
    let results = ["eq .Role \"tool\"", "tool_response", "TOOL_RESULTS"];
    template.mentions("tools")
        && template.mentions("toolcalls")
        && results.iter().any(|mark| text.contains(mark))
}

/// Whether a Jinja template writes both calls and their results.
fn has_jinja_round_trip(template: &Template) -> bool {
    let text = template.text();
    let role_is_tool = ["['role']", "[\"role\"]", ".role"]
        .iter()
        .flat_map(|field| ["'tool'", "\"tool\""].map(|tool| format!("{field} == {tool}")))
        .any(|test| text.contains(&test));
    let has = |part: &str| text.contains(part);
    template.capabilities().contains(&Capability::Tools)
        && (has("tool_calls") || has("assistant_tool_call"))
        && (has("tool_response") || has("tool_results") || has("ipython") || role_is_tool)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO_PLAIN: &str = "{{ range .Messages }}{{ .Content }}{{ end }}";
    const GO_TOOLS: &str = "{{ range .Messages }}{{ .Content }}{{ .Tools }}{{ end }}";
    const GO_ROUND_TRIP: &str = "{{ range .Messages }}{{ if eq .Role \"tool\" }}{{ .ToolCalls }}{{ .Tools }}{{ end }}{{ end }}";
    const JINJA_TOOLS: &str = "{{ tools }}";
    const JINJA_ROUND_TRIP: &str = "{{ tools }}{{ m.tool_calls }}<tool_response>";
    const JINJA_BOTH: &str = "{{ tools }}<think></think>";

    fn go(source: &str) -> Template {
        Template::parse_go(source).unwrap()
    }

    fn jinja(source: &str) -> Template {
        Template::parse_jinja(source, "", "").unwrap()
    }

    #[test]
    fn lists_have_ollamas_order() {
        use Capability::*;
        assert_eq!(
            capabilities_of_model(Some(&jinja(JINJA_TOOLS)), false),
            [Tools, Completion]
        );
        assert_eq!(
            capabilities_of_model(Some(&go(GO_TOOLS)), false),
            [Completion, Tools]
        );
        assert_eq!(capabilities_of_model(None, false), [Completion]);
        assert_eq!(capabilities_of_model(None, true), [Embedding]);
    }

    #[test]
    fn jinja_texts_show_thinking() {
        let thinks = |text: &str| of_jinja(text).contains(&Capability::Thinking);
        assert!(thinks("<think>x</think>"));
        assert!(thinks("{{ content.split('</think>')[-1] }}"));
        assert!(!thinks(
            "{{ content.split('</think>') }}{{ reasoning_content }}"
        ));
        assert!(thinks("{{ '<|channel>thought\n' + text + '<channel|>' }}"));
        assert!(!thinks("{{ content }}"));
    }

    #[test]
    fn the_abler_template_renders() {
        let cases = [
            (GO_PLAIN, JINJA_TOOLS, None, true),
            (GO_TOOLS, JINJA_TOOLS, None, false),
            (GO_TOOLS, JINJA_ROUND_TRIP, None, true),
            (GO_ROUND_TRIP, JINJA_ROUND_TRIP, None, false),
            (GO_ROUND_TRIP, JINJA_BOTH, None, false),
            (GO_PLAIN, "plain", None, false),
            (GO_PLAIN, JINJA_TOOLS, Some(true), false),
            (GO_ROUND_TRIP, "plain", Some(false), true),
        ];
        for (source, text, forced, expected) in cases {
            assert_eq!(
                prefers_jinja(&go(source), &jinja(text), forced),
                expected,
                "{source} {text}"
            );
        }
    }
}
