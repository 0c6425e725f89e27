//! A model's template, in either of the two languages that models bring, rendered to a prompt.

use super::{
    Callable, Capability, Error, Message, OutputParser, Rules, Think, Tool, calls, capabilities,
    go_data,
    gotemplate::GoTemplate,
    jinja::JinjaTemplate,
    parser::{self, Named, named},
};
use chrono::NaiveDateTime;

/// Longest source of a template, in bytes: published ones stay under 20 KiB.
pub const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Longest prompt a template may write beyond the text it was given, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 64 << 20;

/// The Go template of a model that has none.
pub const BARE: &str = "{{ .Prompt }}";

/// What a prompt is made from.
#[derive(Debug, Clone, Copy)]
pub struct RenderInput<'a> {
    pub messages: &'a [Message],
    pub tools: &'a [Tool],
    pub think: Option<Think>,
    /// Local time, for templates that write the date.
    pub now: NaiveDateTime,
}

/// A parsed template; cheap to render, parsed once a model.
#[derive(Debug)]
pub struct Template {
    language: Language,
    /// Reads the answers, if the model's config names it.
    named: Option<&'static Named>,
}

#[derive(Debug)]
enum Language {
    Go(GoTemplate),
    Jinja(Box<JinjaTemplate>),
}

impl Template {
    /// Parses a Go template: the TEMPLATE of a Modelfile or of a request. Error texts are Go's
    /// (`template: :1: unclosed action`).
    pub fn parse_go(text: &str) -> Result<Template, Error> {
        check_source(text)?;
        Ok(Template::of(Language::Go(go_data::parse(text)?)))
    }

    /// Parses a GGUF's `tokenizer.chat_template`. `bos` and `eos` are the texts of those tokens,
    /// empty where the vocabulary has none.
    pub fn parse_jinja(text: &str, bos: &str, eos: &str) -> Result<Template, Error> {
        check_source(text)?;
        let template = JinjaTemplate::parse(text, bos, eos)?;
        Ok(Template::of(Language::Jinja(Box::new(template))))
    }

    fn of(language: Language) -> Template {
        Template {
            language,
            named: None,
        }
    }

    /// The same, with answers read by the parser that the model's config names. A name that nobody knows changes nothing.
    pub fn read_by(self, parser: &str) -> Template {
        Template {
            named: named(parser),
            ..self
        }
    }

    /// Whether a Go template uses this field or variable, in lower case.
    pub fn mentions(&self, identifier: &str) -> bool {
        match &self.language {
            Language::Go(template) => template.identifiers().contains(identifier),
            Language::Jinja(_) => false,
        }
    }

    /// Whether this is a GGUF's Jinja template.
    pub fn is_jinja(&self) -> bool {
        matches!(self.language, Language::Jinja(_))
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        match &self.language {
            Language::Go(template) => template.text(),
            Language::Jinja(template) => template.text(),
        }
    }

    /// The prompt for a conversation, up to where the model's answer begins. A conversation that
    /// ends with the assistant's words leaves that turn open, to be continued.
    pub fn render(&self, input: &RenderInput) -> Result<String, Error> {
        let input = &RenderInput {
            think: input.think.map(|think| self.known_level(think)),
            ..*input
        };
        match &self.language {
            Language::Go(template) => go_data::render(template, input),
            Language::Jinja(template) => template.render(input),
        }
    }

    /// Models with messages that have headers know no level above `high`.
    fn known_level(&self, think: Think) -> Think {
        match think {
            Think::Max if parser::dialect_of(self.text()).is_some() => Think::High,
            think => think,
        }
    }

    /// The prompt for filling in between `prompt` and `suffix`. Jinja templates cannot.
    pub fn render_insert(
        &self,
        prompt: &str,
        suffix: &str,
        input: &RenderInput,
    ) -> Result<String, Error> {
        match &self.language {
            Language::Go(template) => go_data::render_insert(template, prompt, suffix, input),
            Language::Jinja(_) => Err(Error::Render(
                "the model's chat template has no insert form".into(),
            )),
        }
    }

    /// What the template lets a model do: some of tools, insert and thinking.
    pub fn capabilities(&self) -> Vec<Capability> {
        match &self.language {
            Language::Go(template) => capabilities::of_go(template),
            Language::Jinja(template) => capabilities::of_jinja(template.text()),
        }
    }

    /// The parser for text generated after `prompt`.
    pub fn output_parser(
        &self,
        prompt: &str,
        tools: &[Tool],
        think: Option<Think>,
    ) -> OutputParser {
        if let Some(named) = self.named {
            return parser::for_named(named, prompt, tools, think);
        }
        match &self.language {
            Language::Go(template) => parser::for_go(template, prompt, tools, think),
            Language::Jinja(template) => parser::for_jinja(template, prompt, tools, think),
        }
    }

    /// The grammar of answers that call tools as this template's models do; see [`Rules`].
    ///
    /// # Errors
    /// [`Error::Tool`] names an argument whose schema the model's format cannot hold.
    pub fn call_grammar(
        &self,
        tools: &[Callable],
        rules: Rules,
        control: &dyn Fn(&str) -> Option<u32>,
    ) -> Result<String, Error> {
        let named = self.named.and_then(calls::written_by_named);
        let written = named.unwrap_or_else(|| match &self.language {
            Language::Go(template) => calls::written_by_go(template.text(), &template.tool_tag()),
            Language::Jinja(template) => calls::written_by_jinja(template),
        });
        written.grammar(tools, rules, control)
    }

    /// Texts of special tokens that the parser needs to see: the engine must not hide them.
    pub fn visible_tokens(&self, tools: &[Tool]) -> Vec<String> {
        if let Some(named) = self.named {
            return parser::visible_for_named(named, tools);
        }
        match &self.language {
            Language::Go(template) => parser::visible_for_go(template, tools),
            Language::Jinja(template) => parser::visible_for_jinja(template, tools),
        }
    }

    /// `prompt` without the BOS text that a tokenizer adding BOS would double. Call it only for
    /// such a tokenizer. A Go template's own BOS stays unless it is `<bos>`, as in Ollama.
    pub fn without_bos<'p>(&self, prompt: &'p str) -> &'p str {
        let bos = match &self.language {
            Language::Go(_) => "<bos>",
            Language::Jinja(template) => template.bos(),
        };
        prompt.strip_prefix(bos).unwrap_or(prompt)
    }
}

fn check_source(text: &str) -> Result<(), Error> {
    if text.len() > MAX_SOURCE_BYTES {
        return Err(Error::Limit {
            what: "bytes of source",
            limit: MAX_SOURCE_BYTES,
        });
    }
    Ok(())
}
