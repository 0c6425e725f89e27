//! What a model can do, from its config, its template and its GGUF files.

use super::GgufFacts;
use super::manifest::Config;
use crate::chat::parser::named;
use crate::chat::{Capability, Template, capabilities_of_model};

/// Capabilities in Ollama's order, without duplicates: config, the Jinja template's, completion or embedding, towers,
/// the Go template's, the parser's.
pub(super) fn collect(
    config: &Config,
    facts: &GgufFacts,
    projectors: &[&GgufFacts],
    template: Option<&Template>,
) -> Vec<Capability> {
    let known = [
        Capability::Completion,
        Capability::Tools,
        Capability::Insert,
        Capability::Vision,
        Capability::Embedding,
        Capability::Thinking,
        Capability::Audio,
    ];
    let of_config = known
        .into_iter()
        .filter(|c| config.capabilities.iter().any(|text| text == c.as_str()));
    // A parser that the config names says itself what its models can do.
    let parser = named(&config.parser);
    let template = template.filter(|template| parser.is_none() || !template.is_jinja());
    let mut of_model = capabilities_of_model(template, facts.pools);
    let base = if facts.pools {
        Capability::Embedding
    } else {
        Capability::Completion
    };
    let after_base = of_model
        .iter()
        .position(|c| *c == base)
        .map_or(0, |at| at + 1);
    of_model.splice(after_base..after_base, towers(facts, projectors));
    if let Some(parser) = parser {
        of_model.extend(parser.calls.then_some(Capability::Tools));
        of_model.extend(parser.thinks.then_some(Capability::Thinking));
    }
    if matches!(config.model_family.as_str(), "gptoss" | "gpt-oss") {
        of_model.push(Capability::Thinking);
    }
    let mut found = Vec::new();
    for capability in of_config.chain(of_model) {
        if !found.contains(&capability) {
            found.push(capability);
        }
    }
    found
}

/// Vision and hearing, in the model's own file or in a separate one.
fn towers(facts: &GgufFacts, projectors: &[&GgufFacts]) -> Vec<Capability> {
    let sees = facts.sees || !projectors.is_empty();
    let hears = facts.hears || projectors.iter().any(|facts| facts.hears);
    let vision = sees.then_some(Capability::Vision);
    vision
        .into_iter()
        .chain(hears.then_some(Capability::Audio))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Capability::{Audio, Completion, Embedding, Insert, Thinking, Tools, Vision};

    #[test]
    fn in_order_without_duplicates() {
        let config = Config {
            capabilities: vec!["vision".into(), "nonsense".into()],
            model_family: "gpt-oss".into(),
            ..Config::default()
        };
        let facts = GgufFacts {
            sees: true,
            hears: true,
            ..GgufFacts::default()
        };
        assert_eq!(
            collect(&config, &facts, &[], None),
            [Vision, Completion, Audio, Thinking]
        );
    }

    #[test]
    fn a_named_parser_says_what_it_reads() {
        let jinja = "{{ tools }}<think></think>";
        let jinja = Template::parse_jinja(jinja, "", "").unwrap();
        let go = "{{ range .Messages }}{{ end }}{{ .Suffix }}";
        let go = Template::parse_go(go).unwrap();
        let tower = GgufFacts {
            hears: true,
            ..GgufFacts::default()
        };
        let found = |parser: &str, template: Option<&Template>, projectors: &[&GgufFacts]| {
            let config = Config {
                parser: parser.into(),
                ..Config::default()
            };
            collect(&config, &GgufFacts::default(), projectors, template)
        };
        let seeing = [Completion, Vision, Audio, Tools, Thinking];
        assert_eq!(found("gemma4", None, &[&tower]), seeing);
        // What the GGUF's template could do does not count, what a Go template can does.
        assert_eq!(found("qwen3-coder", Some(&jinja), &[]), [Completion, Tools]);
        assert_eq!(found("passthrough", Some(&jinja), &[]), [Completion]);
        assert_eq!(
            found("olmo3-think", Some(&go), &[]),
            [Completion, Insert, Thinking]
        );
        let of_template = [Tools, Thinking, Completion];
        assert_eq!(found("nosuch", Some(&jinja), &[]), of_template);
    }

    #[test]
    fn embedders_and_projectors() {
        let facts = GgufFacts {
            pools: true,
            ..GgufFacts::default()
        };
        let config = Config::default();
        assert_eq!(collect(&config, &facts, &[], None), [Embedding]);
        let tower = GgufFacts {
            hears: true,
            ..GgufFacts::default()
        };
        assert_eq!(
            collect(&config, &facts, &[&tower], None),
            [Embedding, Vision, Audio]
        );
    }
}
