//! Which shipped template writes the same prompts as a model's own.

use super::{SHIPPED, Shipped};
use crate::chat::{Message, RenderInput, Role, Template};
use chrono::NaiveDateTime;

const SYSTEM: &str = "Talk like a pirate.";
/// Longest system text of a model's template that is left out, in bytes. Longer ones make the model what it is; Ollama's
/// measure does not reach them either.
const MAX_DEFAULT_BYTES: usize = 150;
/// A user's turn; one after an answer; the same behind a system text.
const PROBES: [&[(Role, &str)]; 3] = [
    &[(Role::User, "Hello!")],
    &[
        (Role::User, "Hello!"),
        (Role::Assistant, "What shall we talk about?"),
        (Role::User, "The weather."),
    ],
    &[
        (Role::System, SYSTEM),
        (Role::User, "Hello!"),
        (Role::Assistant, "What shall we talk about?"),
        (Role::User, "The weather."),
    ],
];

/// The shipped template that says the same as `jinja`, if there is one; `bos` and `eos` are the texts of those tokens, and
/// `adds_bos` says that the tokenizer writes the first.
///
/// Ollama goes by the edit distance of the texts. Here the prompts count, and the model keeps a template of its own that
/// can do more (tools, thinking). As there, a short system text that the model's template brings for conversations
/// without one is left out.
pub fn recognise(jinja: &str, bos: &str, eos: &str, adds_bos: bool) -> Option<Shipped> {
    let own = Template::parse_jinja(jinja, bos, eos).ok()?;
    let abilities = own.capabilities();
    let prompts = PROBES.map(|probe| {
        let prompt = prompt(&own, &conversation(probe))?;
        match prompt.strip_prefix(bos) {
            Some(rest) if adds_bos => Some(rest.to_owned()),
            _ => Some(prompt),
        }
    });
    let says_the_same = |shipped: &&Shipped| {
        let Ok(go) = Template::parse_go(shipped.template) else {
            return false;
        };
        let does_as_much = abilities.iter().all(|a| go.capabilities().contains(a));
        let mut probes = PROBES.iter().zip(&prompts);
        does_as_much
            && probes.all(|(probe, own)| is_same(own.as_deref(), &go, &conversation(probe)))
    };
    SHIPPED.iter().find(says_the_same).copied()
}

fn conversation(turns: &[(Role, &str)]) -> Vec<Message> {
    let message = |(role, text): &(Role, &str)| Message::new(role.clone(), *text);
    turns.iter().map(message).collect()
}

/// The prompt without blanks behind; none where the template refuses the conversation.
fn prompt(template: &Template, messages: &[Message]) -> Option<String> {
    let input = RenderInput {
        messages,
        tools: &[],
        think: None,
        now: NaiveDateTime::default(),
    };
    let prompt = template.render(&input).ok()?;
    Some(prompt.trim_end_matches(' ').into())
}

/// Whether `own`, the model's prompt for a conversation, is that of `go`. A template that refuses system texts or leaves
/// them out has no say on them.
fn is_same(own: Option<&str>, go: &Template, messages: &[Message]) -> bool {
    let has_system = messages[0].role == Role::System;
    match own {
        None => has_system,
        Some(own) if has_system && !own.contains(SYSTEM) => true,
        Some(own) if has_system => prompt(go, messages).is_some_and(|prompt| prompt == own),
        Some(own) => {
            prompt(go, messages).is_some_and(|prompt| prompt == own)
                || has_default_system(own, go, messages)
        }
    }
}

/// Whether `own` is the prompt of `go` for the conversation behind some system text.
fn has_default_system(own: &str, go: &Template, messages: &[Message]) -> bool {
    let system = Message::new(Role::System, SYSTEM);
    let with_system = [&[system], messages].concat();
    let Some(prompt) = prompt(go, &with_system) else {
        return false;
    };
    let Some((before, after)) = prompt.split_once(SYSTEM) else {
        return false;
    };
    own.strip_prefix(before)
        .and_then(|rest| rest.strip_suffix(after))
        .is_some_and(|default| (1..=MAX_DEFAULT_BYTES).contains(&default.len()))
}
