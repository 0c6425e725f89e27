//! The template that renders a model's conversations: which of its two, and parsed once a model, not once a request.

use super::App;
use super::error::ApiError;
use crate::chat::capabilities::prefers_jinja;
use crate::chat::parser::{is_renderer, named};
use crate::chat::{self, Capability, Template, shipped};
use crate::engine::Lease;
use crate::store::ResolvedModel;
use crate::tokenizer::Tokenizer;
use std::collections::VecDeque;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Most templates that are kept. A model has two: one from before it is loaded, and one with the texts of its tokens.
const MAX_KEPT: usize = 32;

/// Texts of the tokens that Jinja templates write themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EdgeTokens {
    pub bos: String,
    pub eos: String,
}

impl EdgeTokens {
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let text = |id: Option<u32>| {
            id.and_then(|id| tokenizer.token_text(id))
                .unwrap_or_default()
                .to_owned()
        };
        EdgeTokens {
            bos: text(tokenizer.bos()),
            eos: text(tokenizer.eos()),
        }
    }
}

/// What a model brings that says how its conversations are rendered and its answers are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sources<'m> {
    pub go: Option<&'m str>,
    /// The GGUF's.
    pub jinja: Option<&'m str>,
    pub family: &'m str,
    /// The config's `renderer`.
    pub renderer: &'m str,
    /// The config's `parser`.
    pub parser: &'m str,
}

impl Sources<'_> {
    /// The template that renders; none where the model has neither, or where the settings rule out the one it has.
    ///
    /// A known renderer stands for the GGUF's template, which says the same; a known parser without one leaves the Go
    /// template. `forced` is the setting `OLLAMA_GO_TEMPLATE`.
    pub fn template(
        &self,
        edges: &EdgeTokens,
        forced: Option<bool>,
    ) -> Result<Option<Template>, ApiError> {
        let go = self.go.map(Template::parse_go).transpose()?;
        let jinja = self.jinja;
        let jinja = jinja.map(|text| Template::parse_jinja(text, &edges.bos, &edges.eos));
        let has_renderer = is_renderer(self.renderer);
        let keeps_go = !has_renderer && (named(self.parser).is_some() || self.is_harmony());
        let chosen = match (go, jinja) {
            (_, Some(Ok(jinja))) if has_renderer => Some(jinja),
            (Some(go), _) if keeps_go => Some(go),
            (Some(go), Some(Ok(jinja))) if prefers_jinja(&go, &jinja, forced) => Some(jinja),
            (Some(_), None) if forced == Some(false) && !has_renderer => None,
            (Some(go), _) => Some(go),
            (None, Some(jinja)) => Some(jinja?),
            (None, None) => None,
        };
        Ok(chosen.map(|template| template.read_by(self.parser)))
    }

    /// What decided for the template that renders, by Ollama's names.
    fn decided_by(&self, template: Option<&Template>) -> &'static str {
        let has_parser = named(self.parser).is_some();
        match template {
            None => "none",
            Some(_) if is_renderer(self.renderer) && has_parser => "renderer_parser",
            Some(_) if is_renderer(self.renderer) => "renderer",
            Some(_) if has_parser => "parser",
            Some(_) if self.is_harmony() => "harmony",
            Some(template) if template.is_jinja() => "gguf_chat_template",
            Some(_) => "go_template",
        }
    }

    /// gpt-oss, whose Go template writes its messages.
    fn is_harmony(&self) -> bool {
        let writes = |go: &str| go.contains("<|start|>") && go.contains("<|end|>");
        matches!(self.family, "gptoss" | "gpt-oss") && self.go.is_some_and(writes)
    }

    /// Refuses a renderer that nothing stands for: its prompts would be wrong in silence.
    ///
    /// # Errors
    /// 500 with Ollama's text for a name that nobody knows, with our own for a model that brings no template.
    fn check_renderer(&self, template: Option<&Template>) -> Result<(), ApiError> {
        let name = self.renderer;
        if name.is_empty() {
            return Ok(());
        }
        if !is_renderer(name) {
            return Err(ApiError::internal(format!("unknown renderer {name:?}")));
        }
        if template.is_some_and(|t| t.is_jinja() || t.mentions("messages")) {
            return Ok(());
        }
        Err(ApiError::internal(format!(
            "renderer {name:?} is not built in, and the model has no chat template: give it a TEMPLATE"
        )))
    }
}

/// Templates of the models that were asked for last, newest first.
#[derive(Debug, Default)]
pub struct Templates(Mutex<VecDeque<(Key, Option<Arc<Template>>)>>);

/// What a template depends on: the digest of the model's manifest, and the texts of its tokens once it is loaded.
#[derive(Debug, PartialEq, Eq)]
struct Key {
    manifest: String,
    edges: Option<EdgeTokens>,
}

impl Templates {
    /// What was made for this key, or what `make` makes.
    fn get(
        &self,
        key: Key,
        make: impl FnOnce() -> Result<Option<Template>, ApiError>,
    ) -> Result<Option<Arc<Template>>, ApiError> {
        if let Some(found) = self.newest_first(|kept| {
            let at = kept.iter().position(|(known, _)| *known == key)?;
            let found = kept.remove(at)?;
            let template = found.1.clone();
            kept.push_front(found);
            Some(template)
        }) {
            return Ok(found);
        }
        // Outside of the lock: a template may take long to parse. Two requests may both do it.
        let made = make()?.map(Arc::new);
        self.newest_first(|kept| {
            kept.push_front((key, made.clone()));
            kept.truncate(MAX_KEPT);
        });
        Ok(made)
    }

    fn newest_first<T>(
        &self,
        change: impl FnOnce(&mut VecDeque<(Key, Option<Arc<Template>>)>) -> T,
    ) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a model without any template completes prompts with.
pub static BARE: LazyLock<Arc<Template>> = LazyLock::new(|| own(chat::template::BARE));
/// What a model without any template chats with.
pub static FALLBACK: LazyLock<Arc<Template>> = LazyLock::new(|| own(shipped::chatml().template));

fn own(text: &str) -> Arc<Template> {
    Arc::new(Template::parse_go(text).expect("a template of our own"))
}

impl App {
    /// What a model can do, by the template that will render its chats.
    pub fn capabilities(&self, model: &ResolvedModel) -> Result<Vec<Capability>, ApiError> {
        let template = self.parsed(model, None)?;
        Ok(model.capabilities(&self.store, template.as_deref())?)
    }

    /// The template that renders a loaded model's chats.
    pub fn template(
        &self,
        model: &ResolvedModel,
        lease: &Lease,
    ) -> Result<Option<Arc<Template>>, ApiError> {
        let template = self.parsed(model, Some(EdgeTokens::of(lease.tokenizer())))?;
        let facts = self.store.facts(&model.model_digest)?;
        let sources = model_sources(model, facts.chat_template.as_deref());
        sources.check_renderer(template.as_deref())?;
        Ok(template)
    }

    /// The template, parsed before or now. A model that is not loaded has no tokens.
    pub fn parsed(
        &self,
        model: &ResolvedModel,
        edges: Option<EdgeTokens>,
    ) -> Result<Option<Arc<Template>>, ApiError> {
        // A weights file that is gone or damaged is found here.
        let facts = self.store.facts(&model.model_digest)?;
        let sources = model_sources(model, facts.chat_template.as_deref());
        let key = Key {
            manifest: model.digest.clone(),
            edges: edges.clone(),
        };
        let make = || {
            let is_loaded = edges.is_some();
            let template =
                sources.template(&edges.unwrap_or_default(), self.settings.go_template)?;
            if is_loaded {
                let model = &model.name;
                let by = sources.decided_by(template.as_ref());
                let language = match &template {
                    None => "none",
                    Some(template) if template.is_jinja() => "jinja",
                    Some(_) => "go",
                };
                tracing::info!(%model, by, language, "chose the template of chats");
            }
            Ok(template)
        };
        self.templates.get(key, make)
    }
}

fn model_sources<'m>(model: &'m ResolvedModel, jinja: Option<&'m str>) -> Sources<'m> {
    Sources {
        go: model.template.as_deref(),
        jinja,
        family: &model.config.model_family,
        renderer: &model.config.renderer,
        parser: &model.config.parser,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GO: &str = "{{ range .Messages }}{{ .Content }}{{ end }}";
    const STUB: &str = "{{ .Prompt }}";
    const JINJA: &str = "{{ messages }}";
    const ABLER: &str = "{{ messages }}{{ tools }}";
    /// The setting unset, `1` and `0`.
    const SETTINGS: [Option<bool>; 3] = [None, Some(true), Some(false)];

    /// Which language renders under each setting.
    fn chosen(sources: Sources) -> [&'static str; 3] {
        SETTINGS.map(|forced| {
            let template = sources.template(&EdgeTokens::default(), forced);
            let template = template.expect("templates that parse");
            template.map_or("none", |t| if t.is_jinja() { "jinja" } else { "go" })
        })
    }

    fn sources<'m>(go: &'m str, jinja: &'m str) -> Sources<'m> {
        let given = |text: &'m str| (!text.is_empty()).then_some(text);
        Sources {
            go: given(go),
            jinja: given(jinja),
            ..Sources::default()
        }
    }

    #[test]
    fn one_of_two_templates_renders() {
        for (go, jinja, expected) in [
            (GO, JINJA, ["go", "go", "jinja"]),
            (GO, ABLER, ["jinja", "go", "jinja"]),
            (GO, "{% if %}", ["go", "go", "go"]),
            ("", JINJA, ["jinja", "jinja", "jinja"]),
            (GO, "", ["go", "go", "none"]),
            ("", "", ["none", "none", "none"]),
        ] {
            assert_eq!(chosen(sources(go, jinja)), expected, "{go:?} {jinja:?}");
        }
        let fails = |sources: Sources| sources.template(&EdgeTokens::default(), None).is_err();
        assert!(fails(sources("{{ .Prompt", JINJA)));
        assert!(fails(sources("", "{% if %}")));
    }

    #[test]
    fn names_in_the_config_win_over_the_setting() {
        let harmony = "<|start|>{{ range .Messages }}{{ .Content }}{{ end }}<|end|>";
        for (go, jinja, renderer, parser, family, expected) in [
            (STUB, JINJA, "qwen3-coder", "qwen3-coder", "", "jinja"),
            (GO, JINJA, "gemma4", "", "", "jinja"),
            (GO, "{% if %}", "gemma4", "", "", "go"),
            (GO, "", "gemma4", "", "", "go"),
            // A parser alone renders through the Go template, where there is one.
            (GO, ABLER, "", "qwen3", "", "go"),
            ("", ABLER, "", "qwen3", "", "jinja"),
            (harmony, ABLER, "", "", "gptoss", "go"),
            (harmony, ABLER, "", "", "gpt-oss", "go"),
        ] {
            let sources = Sources {
                renderer,
                parser,
                family,
                ..sources(go, jinja)
            };
            assert_eq!(chosen(sources), [expected; 3], "{sources:?}");
        }
        // What is no name of a parser's changes nothing, nor does another family.
        let odd = Sources {
            parser: "nosuch",
            family: "llama",
            ..sources(harmony, ABLER)
        };
        assert_eq!(chosen(odd), ["jinja", "go", "jinja"]);
    }

    #[test]
    fn the_reason_of_a_choice_has_ollamas_name() {
        let harmony = "<|start|>{{ .Prompt }}<|end|>";
        for (go, jinja, renderer, parser, family, expected) in [
            (STUB, JINJA, "gemma4", "gemma4", "", "renderer_parser"),
            (STUB, JINJA, "gemma4", "", "", "renderer"),
            (GO, ABLER, "", "qwen3", "", "parser"),
            (harmony, ABLER, "", "", "gptoss", "harmony"),
            (GO, JINJA, "", "", "", "go_template"),
            (GO, ABLER, "", "nosuch", "", "gguf_chat_template"),
            ("", JINJA, "", "", "", "gguf_chat_template"),
            ("", "", "", "", "", "none"),
        ] {
            let sources = Sources {
                renderer,
                parser,
                family,
                ..sources(go, jinja)
            };
            let template = sources.template(&EdgeTokens::default(), None);
            let by = sources.decided_by(template.expect("parses").as_ref());
            assert_eq!(by, expected, "{sources:?}");
        }
    }

    #[test]
    fn renderers_that_nothing_stands_for_are_refused() {
        for (renderer, go, jinja, part) in [
            ("", STUB, "", None),
            ("olmo3", GO, "", None),
            ("olmo3", STUB, JINJA, None),
            (
                "olmo3",
                STUB,
                "",
                Some("renderer \"olmo3\" is not built in"),
            ),
            ("olmo3", "", "", Some("renderer \"olmo3\" is not built in")),
            ("nosuch", GO, JINJA, Some("unknown renderer \"nosuch\"")),
        ] {
            let sources = Sources {
                renderer,
                ..sources(go, jinja)
            };
            let template = sources.template(&EdgeTokens::default(), None);
            let refused = sources.check_renderer(template.expect("parses").as_ref());
            let text = refused.err().map(|e| (e.status.as_u16(), e.message));
            match (&text, part) {
                (None, None) => {}
                (Some((500, text)), Some(part)) if text.contains(part) => {}
                _ => panic!("{sources:?}: {text:?}"),
            }
        }
    }

    #[test]
    fn templates_are_parsed_once() {
        let kept = Templates::default();
        let key = |manifest: usize, bos: &str| Key {
            manifest: manifest.to_string(),
            edges: Some(EdgeTokens {
                bos: bos.into(),
                eos: String::new(),
            }),
        };
        let parse = || Ok(Some(Template::parse_go(GO)?));
        let never = || panic!("it was parsed before");
        let first = kept.get(key(0, ""), parse).unwrap().unwrap();
        let again = kept.get(key(0, ""), never).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        // Another manifest or another vocabulary is another template; what fails is not kept.
        assert!(kept.get(key(1, ""), || Ok(None)).unwrap().is_none());
        assert!(kept.get(key(1, ""), never).unwrap().is_none());
        let fails = || Err(ApiError::internal("no"));
        assert!(kept.get(key(0, "<s>"), fails).is_err());
        assert!(kept.get(key(0, "<s>"), parse).unwrap().is_some());
        // The one that was not asked for longest goes.
        for manifest in 2..MAX_KEPT {
            kept.get(key(manifest, ""), parse).unwrap();
            kept.get(key(0, ""), never).unwrap();
        }
        assert!(kept.get(key(1, ""), fails).is_err());
        assert_eq!(kept.newest_first(|kept| kept.len()), MAX_KEPT);
    }
}
