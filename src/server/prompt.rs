//! From a request's words to the tokens that the model reads.

use super::error::ApiError;
use crate::api;
use crate::chat::{self, Message, RenderInput, Role, Template, Think, Tool, ToolCall};
use crate::engine::{self, truncate_prompt};
use crate::store::ResolvedModel;
use crate::tokenizer::Tokenizer;
use warp::http::StatusCode;

/// What Ollama answers to a prompt that does not fit and may not be cut.
const TOO_LONG: &str = "the prompt is longer than the context length currently available to the model; shorten the \
    prompt, adjust the context length in settings, or use a model with a longer context length";

/// Bytes of the texts that one answer is about: about as long as the rendered prompt may be.
const MAX_PROMPT_BYTES: usize = 64 << 20;

/// Refuses what would be tokenized for minutes.
///
/// # Errors
/// 400 that names the limit.
pub fn check_size<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<(), ApiError> {
    let n_bytes: usize = texts.into_iter().map(str::len).sum();
    if n_bytes > MAX_PROMPT_BYTES {
        let text = format!("the prompt is longer than {} MiB", MAX_PROMPT_BYTES >> 20);
        return Err(ApiError::bad_request(text));
    }
    Ok(())
}

/// A rendered prompt, before it is tokens.
#[derive(Debug)]
pub struct Rendered {
    pub text: String,
    /// Images of the messages that were kept.
    pub n_images: usize,
}

impl From<chat::Error> for ApiError {
    fn from(error: chat::Error) -> ApiError {
        let status = match error {
            chat::Error::Tool(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::new(status, error.to_string())
    }
}

/// The conversation a request asks for, on top of what the model brings.
pub struct Conversation {
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub think: Option<Think>,
}

impl Conversation {
    /// Renders it, leaving out old messages beyond `n_ctx` tokens if that is given.
    pub fn render(
        &self,
        template: &Template,
        tokenizer: &Tokenizer,
        n_ctx: Option<usize>,
    ) -> Result<Rendered, ApiError> {
        let now = chrono::Local::now().naive_local();
        let input = RenderInput {
            messages: &self.messages,
            tools: &self.tools,
            think: self.think,
            now,
        };
        let count = |text: &str| encode(tokenizer, Some(template), text).len();
        let prompt = chat::fit(template, &input, n_ctx, count)?;
        Ok(Rendered {
            n_images: prompt.images.len(),
            text: prompt.text,
        })
    }
}

/// A message of the wire as templates see it.
pub fn message(sent: &api::Message) -> Message {
    let call = |call: &api::ToolCall| ToolCall {
        id: call.id.clone(),
        index: usize::try_from(call.function.index).unwrap_or_default(),
        name: call.function.name.clone(),
        arguments: call.function.arguments.clone(),
    };
    Message {
        thinking: sent.thinking.clone(),
        n_images: sent.images.len(),
        tool_calls: sent.tool_calls.iter().map(call).collect(),
        tool_name: sent.tool_name.clone(),
        tool_call_id: sent.tool_call_id.clone(),
        ..Message::new(Role::new(&sent.role), sent.content.clone())
    }
}

/// The wire's `think` as templates see it.
pub fn think(sent: &api::Think) -> Think {
    match (sent, sent.level()) {
        (api::Think::Switch(true), _) => Think::On,
        (_, "low") => Think::Low,
        (_, "medium") => Think::Medium,
        (_, "high") => Think::High,
        (_, "max") => Think::Max,
        _ => Think::Off,
    }
}

/// A chat's messages: the model's own first, its system text before all unless the request begins with another.
pub fn assembled(model: &ResolvedModel, sent: &[api::Message]) -> Vec<Message> {
    let starts_with_system = sent
        .first()
        .is_some_and(|m| Role::new(&m.role) == Role::System);
    let system = model
        .system
        .as_deref()
        .filter(|s| !s.is_empty() && !starts_with_system);
    let mut messages: Vec<Message> = system
        .map(|s| Message::new(Role::System, s))
        .into_iter()
        .collect();
    messages.extend(model.messages.iter().chain(sent).map(message));
    if forgets_reasoning(model) {
        drop_old_reasoning(&mut messages);
    }
    messages
}

/// Models trained on conversations without the reasoning of earlier turns.
fn forgets_reasoning(model: &ResolvedModel) -> bool {
    model.config.model_family == "qwen3" || model.name.model().eq_ignore_ascii_case("deepseek-r1")
}

/// Takes a leading `<think>...</think>` off every answer before the last question.
fn drop_old_reasoning(messages: &mut [Message]) {
    let last_question = messages
        .iter()
        .rposition(|m| m.role == Role::User)
        .unwrap_or(0);
    for message in messages[..last_question]
        .iter_mut()
        .filter(|m| m.role == Role::Assistant)
    {
        let rest = message
            .content
            .strip_prefix("<think>")
            .and_then(|text| text.split_once("</think>"));
        if let Some((_, rest)) = rest {
            message.content = rest.trim_start().to_owned();
        }
    }
}

/// Text to tokens, special tokens in it recognised; a BOS is not doubled.
pub fn encode(tokenizer: &Tokenizer, template: Option<&Template>, text: &str) -> Vec<u32> {
    let text = match template {
        Some(template) if tokenizer.adds_bos() => template.without_bos(text),
        _ => text,
    };
    tokenizer.encode(text, true, true)
}

/// How a prompt is made to fit.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub n_ctx: usize,
    pub n_keep: i64,
    pub truncate: bool,
    pub shift: bool,
}

impl Room {
    /// The tokens, cut in the middle if they must be and may be.
    ///
    /// # Errors
    /// 400 for a prompt that is too long to be taken whole and may not be cut.
    pub fn fit(&self, tokens: Vec<u32>, adds_bos: bool) -> Result<Vec<u32>, ApiError> {
        if tokens.len() < self.n_ctx {
            return Ok(tokens);
        }
        match (self.truncate, self.shift) {
            (true, true) => Ok(truncate_prompt(&tokens, self.n_ctx, self.n_keep, adds_bos)),
            (true, false) => Err(ApiError::bad_request(TOO_LONG)),
            (false, _) => Err(engine::Error::PromptTooLong {
                n_tokens: tokens.len(),
                n_ctx: self.n_ctx,
            }
            .into()),
        }
    }
}

impl From<engine::Error> for ApiError {
    fn from(error: engine::Error) -> ApiError {
        use engine::Error as E;
        match error {
            E::Busy => ApiError::busy(),
            E::Canceled => ApiError::canceled(),
            E::ShuttingDown => ApiError::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
            E::EmptyPrompt
            | E::UnknownToken { .. }
            | E::PromptTooLong { .. }
            | E::Grammar(_)
            | E::NotAnEmbedder
            | E::NotAGenerator
            | E::InvalidEmbedding => ApiError::bad_request(error.to_string()),
            _ => ApiError::internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(messages: &[Message]) -> Vec<String> {
        messages
            .iter()
            .map(|m| format!("{}:{}", m.role.as_str(), m.content))
            .collect()
    }

    #[test]
    fn reasoning_of_earlier_turns_is_dropped() {
        let mut messages = vec![
            Message::new(Role::User, "q"),
            Message::new(Role::Assistant, "<think>long</think>\n\na"),
            Message::new(Role::Assistant, "no <think>x</think>"),
            Message::new(Role::User, "r"),
            Message::new(Role::Assistant, "<think>kept</think>b"),
        ];
        drop_old_reasoning(&mut messages);
        let expected = [
            "user:q",
            "assistant:a",
            "assistant:no <think>x</think>",
            "user:r",
            "assistant:<think>kept</think>b",
        ];
        assert_eq!(words(&messages), expected);
    }

    #[test]
    fn prompts_that_do_not_fit() {
        let room = |truncate, shift| Room {
            n_ctx: 8,
            n_keep: 3,
            truncate,
            shift,
        };
        let tokens: Vec<u32> = (0..10).collect();
        assert_eq!(
            room(true, true).fit(tokens.clone(), false).unwrap(),
            [0, 1, 2, 7, 8, 9]
        );
        assert_eq!(
            room(true, false).fit(tokens.clone(), false).unwrap_err(),
            ApiError::bad_request(TOO_LONG)
        );
        let refused = room(false, true).fit(tokens, false).unwrap_err();
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(
            refused.message.contains("context") && refused.message.contains("longer"),
            "{refused}"
        );
        assert_eq!(room(false, false).fit(vec![1; 7], false).unwrap().len(), 7);
    }

    #[test]
    fn thinking_on_the_wire_and_in_templates() {
        let level = |text: &str| think(&api::Think::Level(text.into()));
        assert_eq!([level("low"), level("max")], [Think::Low, Think::Max]);
        assert_eq!(think(&api::Think::Switch(true)), Think::On);
        assert_eq!(think(&api::Think::Switch(false)), Think::Off);
    }
}
