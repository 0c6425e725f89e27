//! The form of a template's calls, read off what it writes: calls whose names and arguments are known are rendered, and
//! what stands between those is the form. So models of formats that nobody has described are read, too.

use super::pieces;
use super::{Body, HOLE, Words, Written};
use crate::chat::jinja::JinjaTemplate;
use crate::chat::parser::Call;
use crate::chat::{Message, RenderInput, Role, Tool, ToolCall};
use chrono::NaiveDateTime;
use serde_json::{Value, json};

/// A form and how its calls are told from the text around them.
#[derive(Debug, Clone, PartialEq)]
pub struct Inferred {
    pub written: Written,
    /// What ends the calls; empty where they last to the end of the answer.
    pub close: String,
}

impl Inferred {
    /// What begins the calls.
    pub fn open(&self) -> &str {
        &self.written.tag
    }

    /// A call in this form, as it is written.
    pub fn example(&self) -> (String, Call) {
        let (name, arguments) = call(&(NAMES[0], json!({KEYS[0]: TEXTS[0]})));
        let call = ToolCall {
            id: String::new(),
            index: 0,
            name: name.clone(),
            arguments: arguments.clone(),
        };
        let text = self.written.text(&[call]).replace(HOLE, "0");
        (text, (name, arguments))
    }

    /// Texts of the form that may be control tokens.
    pub fn tokens(&self) -> &[String] {
        &self.written.tags
    }
}

/// Names and texts that no template has.
const NAMES: [&str; 2] = ["probe_function", "other_tool"];
const IDS: [&str; 2] = ["idprobe01", "xotherid2"];
const KEYS: [&str; 2] = ["first_key", "second_arg"];
const TEXTS: [&str; 2] = ["the value", "another text"];
const NUMBER: (&str, i64) = ("count_key", 8_315_472);
const WORDS: &str = "Words before calls.";
/// Longest text that a template may write for two short calls, in bytes.
const MAX_ANSWER: usize = 4096;

/// The form of the calls that `template` writes; none where it writes none or they cannot be read back.
pub fn inferred(template: &JinjaTemplate) -> Option<Inferred> {
    if !template.text().contains("tool_calls") {
        return None;
    }
    let probe = Probe {
        template,
        tools: NAMES.map(tool).to_vec(),
    };
    let texts = |call: usize| (NAMES[call], json!({KEYS[0]: TEXTS[0], KEYS[1]: TEXTS[1]}));
    let number = (NAMES[0], json!({NUMBER.0: NUMBER.1}));
    let two = probe.answer(&[texts(0), texts(1)]);
    let one = probe.answer(&[texts(0)])?;
    let with_number = probe.answer(std::slice::from_ref(&number))?;
    let form = form(&one, two.as_deref(), &with_number, &probe.after_words())?;
    // A form that does not read what it was read off is none.
    let is_read = |answer: &str, calls: &[(&str, Value)]| {
        let expected: Vec<Call> = calls.iter().map(call).collect();
        read(&form, answer, &probe.tools).is_some_and(|read| read == expected)
    };
    let reads_two = || two.is_none_or(|two| is_read(&two, &[texts(0), texts(1)]));
    let none = (NAMES[0], json!({}));
    let reads_none = || {
        let answer = probe.answer(std::slice::from_ref(&none));
        answer.is_none_or(|answer| is_read(&answer, &[none]))
    };
    let is_whole = is_read(&one, &[texts(0)])
        && is_read(&with_number, std::slice::from_ref(&number))
        && reads_two()
        && reads_none();
    is_whole.then_some(form)
}

fn tool(name: &str) -> Tool {
    let text = json!({"type": "string", "description": "A text."});
    let tool = json!({"type": "function", "function": {"name": name, "description": "Does it.", "parameters": {
        "type": "object", "properties": {KEYS[0]: text, KEYS[1]: text,
        NUMBER.0: {"type": "integer", "description": "A number."}}}}});
    Tool::from_json(&tool).expect("a tool of the right form")
}

fn call((name, arguments): &(&str, Value)) -> Call {
    let arguments = arguments.as_object().cloned().unwrap_or_default();
    ((*name).to_owned(), arguments)
}

/// What is rendered.
struct Probe<'t> {
    template: &'t JinjaTemplate,
    tools: Vec<Tool>,
}

impl Probe<'_> {
    /// What the template writes for an answer of these calls, from the first text of its own to the end.
    fn answer(&self, calls: &[(&str, Value)]) -> Option<String> {
        // Some templates refuse words beside calls.
        self.answer_with(WORDS, calls)
            .or_else(|| self.answer_with("", calls))
    }

    fn answer_with(&self, words: &str, calls: &[(&str, Value)]) -> Option<String> {
        let user = Message::new(Role::User, "Please call.");
        let calls = calls.iter().zip(IDS).enumerate();
        let answer = Message {
            tool_calls: calls
                .map(|(index, (call, id))| ToolCall {
                    id: id.to_owned(),
                    index,
                    name: call.0.to_owned(),
                    arguments: call.1.as_object().cloned().unwrap_or_default(),
                })
                .collect(),
            ..Message::new(Role::Assistant, words)
        };
        let prompt = self.render(std::slice::from_ref(&user))?;
        let whole = self.render(&[user, answer])?;
        let pairs = prompt.char_indices().zip(whole.chars());
        let common = pairs.take_while(|((_, a), b)| a == b).last();
        let common = common.map_or(0, |((at, c), _)| at + c.len_utf8());
        // Two tags may begin alike.
        let begun = prompt[..common]
            .rfind('<')
            .filter(|&at| !prompt[at..common].contains('>'));
        let answer = &whole[begun.unwrap_or(common)..];
        if answer.len() > MAX_ANSWER {
            return None;
        }
        let call = answer.find(NAMES[0])?;
        let answer = match answer[..call].find(WORDS) {
            Some(at) => &answer[at + WORDS.len()..],
            None => after_reasoning(answer, call),
        };
        Some(IDS.iter().fold(answer.trim_start().to_owned(), |text, id| {
            text.replace(id, &HOLE.to_string())
        }))
    }

    /// What follows an answer without calls.
    fn after_words(&self) -> String {
        let user = || Message::new(Role::User, "Please call.");
        let talk = [user(), Message::new(Role::Assistant, WORDS), user()];
        let whole = self.render(&talk).unwrap_or_default();
        let after = whole.split_once(WORDS);
        after.map_or_else(String::new, |(_, after)| after.to_owned())
    }

    fn render(&self, messages: &[Message]) -> Option<String> {
        let input = RenderInput {
            messages,
            tools: &self.tools,
            think: None,
            now: NaiveDateTime::default(),
        };
        self.template.render(&input).ok()
    }
}

/// A template that drops words beside calls may write an empty reasoning in front of them.
fn after_reasoning(answer: &str, call: usize) -> &str {
    let end = answer[..call].rfind("</think>");
    &answer[end.map_or(0, |at| at + "</think>".len())..]
}

/// The calls of an answer, as the parser cuts it.
fn read(form: &Inferred, answer: &str, tools: &[Tool]) -> Option<Vec<Call>> {
    let mut calls = Vec::new();
    let mut rest = answer;
    while let Some((_, body)) = rest.split_once(form.open()) {
        let (body, after) = match form.close.as_str() {
            "" => (&body[..end_of_last(body, form)], ""),
            close => body.split_once(close)?,
        };
        calls.extend(form.written.read(body, tools)?);
        rest = after;
    }
    Some(calls)
}

/// Where the calls end that nothing but the end of the answer ends: the template writes more after it.
fn end_of_last(body: &str, form: &Inferred) -> usize {
    let after = form.written.after.as_str();
    match after {
        "" => body.rfind(['}', ')', '>']).map_or(body.len(), |at| at + 1),
        after => body.rfind(after).map_or(body.len(), |at| at + after.len()),
    }
}

/// The form of an answer of one call, and of two if the template writes several.
fn form(one: &str, two: Option<&str>, with_number: &str, after_words: &str) -> Option<Inferred> {
    let (before, rest) = one.split_once(NAMES[0])?;
    let tag = pieces::tag_of(before, after_words)?.to_owned();
    let second = two.and_then(|two| {
        let (_, after) = two.split_once(NAMES[0])?;
        after.split_once(NAMES[1])
    });
    // A quote that is no part of the tag belongs to the name.
    let quote = match before[tag.len()..].ends_with('"') {
        true => "\"",
        false => "",
    };
    let unquoted = |text: &str| text.strip_suffix(quote).map(str::to_owned);
    let (call, after, between) = match pieces::json_call(rest) {
        Some((middle, after)) => {
            let (mut middle, mut between) = (middle.to_owned(), None);
            if let Some((first, second)) = second {
                middle = pieces::merged(&middle, pieces::json_call(second)?.0);
                between = Some(unquoted(pieces::json_call(first)?.1)?);
            }
            (pieces::json_body(quote, middle), after.to_owned(), between)
        }
        None => members(rest, second, with_number)?,
    };
    let before = match &call {
        Body::Json { .. } => unquoted(before)?,
        Body::Members { .. } => before.to_owned(),
    };
    let unit = between
        .as_deref()
        .and_then(|between| pieces::end_of_unit(between, &tag));
    let after = match unit.filter(|end| after.starts_with(end)) {
        Some(end) => end.to_owned(),
        None => after[..pieces::end_of_turn(&after, after_words)].to_owned(),
    };
    let close = pieces::close_of(&after, &before, &tag, between.as_deref(), &call);
    let mut written = Written {
        before,
        call,
        between,
        after,
        tag,
        tags: Vec::new(),
        words: Words::Around,
    };
    let literals = pieces::literals(&written);
    let of_probe = [NAMES, KEYS, TEXTS];
    let mut of_probe = of_probe.as_flattened().iter();
    if of_probe.any(|text| literals.iter().any(|literal| literal.contains(text))) {
        return None;
    }
    written.tags = pieces::tokens(&literals);
    Some(Inferred { written, close })
}

/// One call whose arguments stand one by one, what follows the last call, and what stands between two.
fn members(
    rest: &str,
    second: Option<(&str, &str)>,
    with_number: &str,
) -> Option<(Body, String, Option<String>)> {
    let read = pieces::Members::of(rest, KEYS, TEXTS)?;
    let (_, of_number) = with_number.split_once(NUMBER.0)?;
    let (of_number, _) = of_number.split_once(&NUMBER.1.to_string())?;
    let style = read.style(of_number)?;
    let rest_of = |text: &'_ str| pieces::without(&style, text);
    let after = rest_of(&read.after)?;
    let mut middle = read.before.strip_suffix(&*style.open)?.to_owned();
    let mut between = None;
    if let Some((first, second)) = second {
        let (first, second) = (
            pieces::Members::of(first, KEYS, TEXTS)?,
            pieces::Members::of(second, KEYS, TEXTS)?,
        );
        middle = pieces::merged(&middle, second.before.strip_suffix(&*style.open)?);
        between = Some(rest_of(&first.after)?);
    }
    Some((pieces::members_body(middle, style), after, between))
}
