//! A GGUF's Jinja template, run by minijinja under the rules of Hugging Face's renderer.

mod list;
mod print;

use super::calls;
use super::parser::{self, CallFormat};
use super::{Error, Message, RenderInput, Role, ToolCall, template::MAX_OUTPUT_BYTES};
use chrono::NaiveDateTime;
use minijinja::{
    AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, ValueKind},
};
use print::{Bounded, PYTHON, Style};
use std::fmt::Write;
use std::sync::OnceLock;

/// Steps for the template's own work. A step also pays for 64 bytes of values or output, so this
/// bounds memory too.
const BASE_FUEL: usize = 250_000;
/// More steps for each message and each four bytes given, so that no conversation is refused for
/// its length.
const FUEL_PER_MESSAGE: usize = 2_000;
const BYTES_PER_FUEL: usize = 4;
/// No more steps than this: about a second.
const MAX_FUEL: usize = 4_000_000;
/// Stack for each step: a step can nest a value once, and dropping one level of a nested map takes
/// 117 bytes (measured with minijinja 3.1).
const STACK_PER_FUEL: usize = 160;
/// Stack for everything but nested values.
const BASE_STACK: usize = 2 << 20;
const NAME: &str = "chat_template";
/// How DeepSeek's templates tell a turn of calls.
const CALLS_WITHOUT_CONTENT: &str = "'assistant' and message['content'] is none";

/// How templates that know contents in parts name the text of one.
const TEXT_OF_PART: [&str; 3] = ["['text']", "[\"text\"]", ".text"];

/// What templates do not agree about.
#[derive(Debug, Clone, Copy, Default)]
struct Form {
    /// Arguments of tool calls are JSON as text, not objects.
    arguments_as_text: bool,
    /// Contents are lists of parts, not texts.
    content_as_parts: bool,
}

/// A parsed template with its environment.
#[derive(Debug)]
pub struct JinjaTemplate {
    source: String,
    env: Environment<'static>,
    bos: String,
    eos: String,
    /// Found when calls are first looked for.
    calls: OnceLock<CallFormat>,
}

impl JinjaTemplate {
    /// Parses `source`; `bos` and `eos` become `bos_token` and `eos_token`.
    pub fn parse(source: &str, bos: &str, eos: &str) -> Result<JinjaTemplate, Error> {
        let mut env = environment().map_err(|e| Error::Parse(message_of(&e)))?;
        env.add_template_owned(NAME, without_generation_tags(source))
            .map_err(|e| Error::Parse(format!("chat template: {}", message_of(&e))))?;
        Ok(JinjaTemplate {
            source: source.into(),
            env,
            bos: bos.into(),
            eos: eos.into(),
            calls: OnceLock::new(),
        })
    }

    /// How the template's model writes calls.
    pub fn call_format(&self) -> &CallFormat {
        self.calls.get_or_init(|| CallFormat::of(self))
    }

    pub fn text(&self) -> &str {
        &self.source
    }

    pub fn bos(&self) -> &str {
        &self.bos
    }

    /// The prompt for a conversation. Arguments of tool calls are given as objects, and as text
    /// to a template that fails on objects; contents as texts, and as lists of one part to a
    /// template that fails on texts or leaves them out.
    pub fn render(&self, input: &RenderInput) -> Result<String, Error> {
        let tools = input
            .tools
            .iter()
            .map(|tool| tool.to_json())
            .collect::<Vec<_>>();
        self.render_with(&tools, input)
    }

    /// The same, with tools as they are to be written.
    pub fn render_with(
        &self,
        tools: &[serde_json::Value],
        input: &RenderInput,
    ) -> Result<String, Error> {
        let (messages, prefill) = split_prefill(input.messages);
        let render = |form| self.run(messages, tools, form, input);
        let mut form = Form::default();
        let mut result = render(form);
        let has_calls = messages.iter().any(|m| !m.tool_calls.is_empty());
        if has_calls && matches!(result, Err(Error::Render(_))) {
            form.arguments_as_text = true;
            result = render(form);
        }
        let is_told = |prompt: &String| is_told(prompt, messages);
        if self.reads_parts() && !result.as_ref().is_ok_and(is_told) {
            form.content_as_parts = true;
            result = render(form).ok().filter(is_told).map_or(result, Ok);
        }
        let mut prompt = result?;
        if let Some(dialect) = parser::dialect_of(&self.source).filter(|_| !prefill.is_empty()) {
            prompt.push_str(dialect.answer);
        }
        prompt.push_str(prefill);
        Ok(prompt)
    }

    fn reads_parts(&self) -> bool {
        TEXT_OF_PART.iter().any(|part| self.source.contains(part))
    }

    fn run(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        form: Form,
        input: &RenderInput,
    ) -> Result<String, Error> {
        let given = messages.iter().map(size).sum::<usize>()
            + tools
                .iter()
                .map(|tool| tool.to_string().len())
                .sum::<usize>();
        let fuel = BASE_FUEL + given / BYTES_PER_FUEL + messages.len() * FUEL_PER_MESSAGE;
        let fuel = fuel.min(MAX_FUEL);
        let mut env = self.env.clone();
        env.set_fuel(Some(fuel as u64));
        let render = || {
            let context = self.context(messages, tools, form, input);
            let template = env.get_template(NAME).map_err(|e| to_error(e, fuel))?;
            template.render(context).map_err(|e| to_error(e, fuel))
        };
        with_stack(BASE_STACK + fuel * STACK_PER_FUEL, render)
    }

    fn context(
        &self,
        messages: &[Message],
        tools: &[serde_json::Value],
        form: Form,
        input: &RenderInput,
    ) -> Value {
        let now = input.now;
        let messages = messages.iter().map(|m| self.message_value(m, form));
        let mut context = vec![
            ("messages", Value::from_iter(messages)),
            ("add_generation_prompt", true.into()),
            ("bos_token", self.bos.as_str().into()),
            ("eos_token", self.eos.as_str().into()),
            // Two names that Firefunction's template expects.
            (
                "functions",
                serde_json::Value::from(tools).to_string().into(),
            ),
            (
                "datetime",
                now.format("%b %d %Y %H:%M:%S GMT").to_string().into(),
            ),
            (
                "strftime_now",
                Value::from_function(move |format: &str| strftime(now, format)),
            ),
        ];
        // The reference renderer always defines `tools`; templates compare it with none.
        context.push((
            "tools",
            match tools {
                [] => Value::from(()),
                tools => Value::from_iter(tools.iter().map(from_json)),
            },
        ));
        if let Some(think) = input.think {
            // Two spellings are in use for one switch.
            context.push(("enable_thinking", think.is_on().into()));
            context.push(("thinking", think.is_on().into()));
            if let Some(level) = think.named_level() {
                context.push(("reasoning_effort", level.into()));
            }
        }
        Value::from_pairs(context)
    }

    /// A turn as templates read it. A template that knows no calls gets them as text, in the model's own form; to one that
    /// looks for calls where there is no content, an empty one is none.
    fn message_value(&self, message: &Message, form: Form) -> Value {
        let content = match message.tool_calls.as_slice() {
            [] => message.content.as_str().into(),
            calls if !self.source.contains("tool_calls") => {
                let calls = calls::written_by_jinja(self).text(calls);
                Value::from(message.content.clone() + &calls)
            }
            _ if message.content.is_empty() && self.source.contains(CALLS_WITHOUT_CONTENT) => {
                Value::from(())
            }
            _ => message.content.as_str().into(),
        };
        let content = match content.as_str() {
            Some(text) if form.content_as_parts => {
                Value::from_iter([Value::from_pairs([("type", "text"), ("text", text)])])
            }
            _ => content,
        };
        let mut out: Vec<(&str, Value)> =
            vec![("role", message.role.as_str().into()), ("content", content)];
        if !message.thinking.is_empty() {
            out.push(("reasoning_content", message.thinking.as_str().into()));
            out.push(("thinking", message.thinking.as_str().into()));
        }
        if !message.tool_calls.is_empty() {
            let calls = message
                .tool_calls
                .iter()
                .map(|call| call_value(call, form.arguments_as_text));
            out.push(("tool_calls", Value::from_iter(calls)));
        }
        for (key, text) in [
            ("name", &message.tool_name),
            ("tool_call_id", &message.tool_call_id),
        ] {
            if !text.is_empty() {
                out.push((key, text.as_str().into()));
            }
        }
        Value::from_pairs(out)
    }
}

fn environment() -> Result<Environment<'static>, minijinja::Error> {
    let mut env = Environment::new();
    env.set_syntax(
        SyntaxConfig::builder()
            .trim_blocks(true)
            .lstrip_blocks(true)
            .build()?,
    );
    env.set_undefined_behavior(UndefinedBehavior::Lenient);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_formatter(format_as_python);
    env.add_filter("tojson", to_json);
    // As in Jinja2: none is not iterable; texts and maps are sequences.
    env.add_test("iterable", is_iterable);
    env.add_test("sequence", is_iterable);
    env.add_function("raise_exception", raise_exception);
    env.add_function("namespace", list::namespace);
    Ok(env)
}

/// A last turn of the assistant without calls is continued instead of closed.
fn split_prefill(messages: &[Message]) -> (&[Message], &str) {
    match messages.split_last() {
        Some((last, rest)) if last.role == Role::Assistant && last.tool_calls.is_empty() => {
            (rest, &last.content)
        }
        _ => (messages, ""),
    }
}

/// Whether a prompt holds what was said first and last.
fn is_told(prompt: &str, messages: &[Message]) -> bool {
    let ends = messages.first().into_iter().chain(messages.last());
    ends.map(|m| m.content.trim())
        .all(|text| prompt.contains(text))
}

fn size(message: &Message) -> usize {
    message.content.len() + message.thinking.len()
}

fn call_value(call: &ToolCall, arguments_as_text: bool) -> Value {
    let arguments = match arguments_as_text {
        true => serde_json::to_string(&call.arguments)
            .unwrap_or_default()
            .into(),
        false => Value::from_pairs(
            call.arguments
                .iter()
                .map(|(k, v)| (k.as_str(), from_json(v))),
        ),
    };
    let function = Value::from_pairs([
        ("name", call.name.as_str().into()),
        ("arguments", arguments),
    ]);
    let kind = Value::from("function");
    Value::from_pairs([
        ("id", call.id.as_str().into()),
        ("type", kind),
        ("function", function),
    ])
}

/// JSON as template values, by hand: with serde_json's `arbitrary_precision` a number would pass
/// through serde as a map.
fn from_json(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::from(()),
        serde_json::Value::Bool(b) => (*b).into(),
        serde_json::Value::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(i), _) => i.into(),
            (None, Some(u)) => u.into(),
            (None, None) => n.as_f64().unwrap_or(f64::NAN).into(),
        },
        serde_json::Value::String(s) => s.as_str().into(),
        serde_json::Value::Array(items) => Value::from_iter(items.iter().map(from_json)),
        serde_json::Value::Object(map) => {
            Value::from_pairs(map.iter().map(|(k, v)| (k.as_str(), from_json(v))))
        }
    }
}

/// Hugging Face's `{% generation %}` marks the trained part of a text and writes nothing. The tags
/// become an `if` that always holds, so that whitespace control stays.
fn without_generation_tags(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let Some(end) = rest.find("%}").map(|end| end + 2) else {
            break;
        };
        let tag = &rest[..end];
        match tag.trim_matches(|c: char| "{}%+-".contains(c) || c.is_whitespace()) {
            "generation" => out.push_str(&tag.replacen("generation", "if true", 1)),
            "endgeneration" => out.push_str(&tag.replacen("endgeneration", "endif", 1)),
            _ => {
                out.push_str("{%");
                rest = &rest[2..];
                continue;
            }
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn is_iterable(value: &Value) -> bool {
    use ValueKind::{Iterable, Map, Seq, String};
    matches!(value.kind(), Seq | Map | Iterable | String)
}

/// `raise_exception(message)`: the template refuses the conversation.
fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// `strftime_now(format)`, with an error in place of chrono's panic on an unknown directive.
fn strftime(now: NaiveDateTime, format: &str) -> Result<String, minijinja::Error> {
    let mut out = String::new();
    write!(out, "{}", now.format(format)).map_err(|_| {
        let message = format!("strftime_now does not know the format {format:?}");
        minijinja::Error::new(ErrorKind::InvalidOperation, message)
    })?;
    Ok(out)
}

/// `tojson` as Hugging Face defines it: Python's `json.dumps` without HTML escapes.
fn to_json(
    state: &State,
    value: &Value,
    indent: Option<usize>,
    options: Kwargs,
) -> Result<Value, minijinja::Error> {
    let indent = match indent {
        Some(indent) => Some(indent),
        None => options.get::<Option<usize>>("indent")?,
    };
    let separators = options.get::<Option<Vec<String>>>("separators")?;
    let ensure_ascii = options
        .get::<Option<bool>>("ensure_ascii")?
        .unwrap_or(false);
    let sort_keys = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    // json.dumps ends lines without a blank once it indents.
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.as_str(), key.as_str()),
        _ if indent.is_some() => (",", ": "),
        _ => (", ", ": "),
    };
    let style = Style {
        item,
        key,
        indent,
        ensure_ascii,
        sort_keys,
        python: false,
    };
    let mut out = Bounded {
        text: Vec::new(),
        limit: MAX_OUTPUT_BYTES,
    };
    style.write(&mut out, value, 0)?;
    let text = String::from_utf8_lossy(&out.text).into_owned();
    state.consume_fuel(text.len() as u64 / 8)?;
    Ok(Value::from_safe_string(text))
}

/// `{{ value }}` as Python prints it: `True`, `None`, `{'a': 1}`.
fn format_as_python(
    out: &mut Output,
    _: &mut State,
    value: &Value,
) -> Result<(), minijinja::Error> {
    match value.kind() {
        ValueKind::Bool | ValueKind::None | ValueKind::Seq | ValueKind::Map => {
            let mut text = Bounded {
                text: Vec::new(),
                limit: MAX_OUTPUT_BYTES,
            };
            PYTHON.write(&mut text, value, 0)?;
            out.write_str(&String::from_utf8_lossy(&text.text))
                .map_err(Into::into)
        }
        _ => write!(out, "{value}").map_err(Into::into),
    }
}

/// Runs `render` on a stack of its own: a template can nest values as deep as its steps reach, and
/// a stack that overflows ends the process. Pages that are not touched cost nothing.
fn with_stack(
    n_bytes: usize,
    render: impl FnOnce() -> Result<String, Error> + Send,
) -> Result<String, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".into())
            .stack_size(n_bytes)
            .spawn_scoped(scope, render)
            .map_err(|e| Error::Render(format!("no thread for the chat template: {e}")))?;
        let panicked = |_| Err(Error::Render("chat template: the renderer panicked".into()));
        thread.join().unwrap_or_else(panicked)
    })
}

fn to_error(error: minijinja::Error, fuel: usize) -> Error {
    match error.kind() {
        ErrorKind::OutOfFuel => Error::Limit {
            what: "template steps",
            limit: fuel,
        },
        _ => Error::Render(format!("chat template: {}", message_of(&error))),
    }
}

/// What went wrong and in which line, without minijinja's classification.
fn message_of(error: &minijinja::Error) -> String {
    let detail = error
        .detail()
        .map_or_else(|| error.kind().to_string(), str::to_string);
    match error.line() {
        Some(line) => format!("{detail} (line {line})"),
        None => detail,
    }
}
