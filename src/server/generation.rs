//! A running generation: the engine's events as pieces of an answer, with reasoning and tool calls told apart.

use super::error::ApiError;
use super::stream::Objects;
use super::time;
use crate::api;
use crate::chat::{Delta, OutputParser, ToolCall};
use crate::engine::{Event, FinishReason, Logprob, TokenLogprob, Usage};
use futures_util::{Stream, StreamExt, stream};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::pin::Pin;
use std::time::{Duration, Instant};

/// The engine's events of one request. Dropping it cancels the request.
pub type Events = Pin<Box<dyn Stream<Item = Event> + Send + Sync>>;

/// What one object of an answer holds.
#[derive(Debug, Default, PartialEq)]
pub struct Piece {
    pub content: String,
    pub thinking: String,
    pub tool_calls: Vec<api::ToolCall>,
    pub logprobs: Vec<api::LogProb>,
    /// Those of the prompt's tokens that were in the cache.
    pub cached_tokens: usize,
    /// On the last piece.
    pub finish: Option<Finish>,
}

/// How a generation ended, and what it took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Finish {
    /// `stop` or `length`.
    pub reason: &'static str,
    pub usage: Usage,
    /// Those of the generated tokens that were reasoning.
    pub reasoning_tokens: usize,
    /// From the request's arrival to its last token.
    pub total: Duration,
    /// From the request's arrival until the model was ready.
    pub load: Duration,
    /// Tokens of the prompt and of everything generated.
    pub context: Vec<u32>,
}

/// What the pieces are made from.
pub struct Generation {
    pub events: Events,
    pub parser: OutputParser,
    /// The prompt's tokens, without a BOS that the tokenizer put there.
    pub context: Vec<u32>,
    pub received: Instant,
    pub load: Duration,
    /// Calls so far; they are numbered through.
    pub n_calls: usize,
    /// Tokens of reasoning so far.
    pub n_reasoning: usize,
}

/// The pieces in order. `held` lives as long as they do: the use of the model.
pub fn pieces(generation: Generation, held: impl Send + Sync + 'static) -> Objects<Piece> {
    let pieces = stream::unfold(Some((generation, held)), |state| async move {
        let (mut generation, held) = state?;
        match generation.next().await {
            Ok(piece) if piece.finish.is_none() => Some((Ok(piece), Some((generation, held)))),
            last => Some((last, None)),
        }
    });
    Box::pin(pieces)
}

impl Generation {
    /// Waits for the next piece that has something to say.
    async fn next(&mut self) -> Result<Piece, ApiError> {
        loop {
            let event = self
                .events
                .next()
                .await
                .ok_or_else(|| ApiError::internal("the model ended without a result"))?;
            match event {
                Event::Piece {
                    text,
                    tokens,
                    logprobs,
                    cached_tokens,
                } => {
                    let was_thinking = self.parser.is_thinking();
                    let piece = self.piece(|parser| parser.push(&text), &logprobs);
                    if was_thinking || !piece.thinking.is_empty() {
                        self.n_reasoning += tokens.len();
                    }
                    self.context.extend(tokens);
                    if piece != Piece::default() {
                        return Ok(Piece {
                            cached_tokens,
                            ..piece
                        });
                    }
                }
                Event::Done { reason, usage } => {
                    let mut piece = self.piece(OutputParser::finish, &[]);
                    piece.cached_tokens = usage.cached_tokens;
                    piece.finish = Some(self.finish(reason, usage));
                    return Ok(piece);
                }
                Event::Failed(e) => return Err(e.into()),
            }
        }
    }

    fn piece(
        &mut self,
        parse: impl FnOnce(&mut OutputParser) -> Delta,
        logprobs: &[TokenLogprob],
    ) -> Piece {
        let delta = parse(&mut self.parser);
        let tool_calls = delta
            .tool_calls
            .into_iter()
            .map(|call| self.numbered(call))
            .collect();
        Piece {
            content: delta.content,
            thinking: delta.thinking,
            tool_calls,
            logprobs: logprobs.iter().map(logprob).collect(),
            cached_tokens: 0,
            finish: None,
        }
    }

    fn numbered(&mut self, call: ToolCall) -> api::ToolCall {
        let index = self.n_calls;
        self.n_calls += 1;
        let function = api::ToolCallFunction {
            index: i64::try_from(index).unwrap_or(i64::MAX),
            name: call.name,
            arguments: call.arguments,
        };
        api::ToolCall {
            id: ToolCall::new_id(random()),
            function,
        }
    }

    fn finish(&mut self, reason: FinishReason, usage: Usage) -> Finish {
        Finish {
            reason: match reason {
                FinishReason::Stop => "stop",
                FinishReason::Length => "length",
            },
            usage,
            reasoning_tokens: self.n_reasoning,
            total: self.received.elapsed(),
            load: self.load,
            context: std::mem::take(&mut self.context),
        }
    }
}

/// Numbers that nobody needs to be unable to guess: ids of replies and calls.
pub fn random() -> u64 {
    // Every `RandomState` has new keys.
    RandomState::new().build_hasher().finish()
}

fn logprob(sent: &TokenLogprob) -> api::LogProb {
    let text = |p: &Logprob| String::from_utf8_lossy(&p.bytes).into_owned();
    let alternative = |p: &Logprob| api::TokenLogProb {
        token: text(p),
        logprob: f64::from(p.logprob),
        bytes: p.bytes.clone(),
    };
    api::LogProb {
        token: text(&sent.chosen),
        logprob: f64::from(sent.chosen.logprob),
        bytes: sent.chosen.bytes.clone(),
        top_logprobs: sent.top.iter().map(alternative).collect(),
    }
}

/// The metrics of a final object, in the order of the wire; the last two are for other APIs.
pub struct Metrics {
    pub total_duration: u64,
    pub load_duration: u64,
    pub prompt_eval_count: u64,
    pub prompt_eval_duration: u64,
    pub eval_count: u64,
    pub eval_duration: u64,
    pub cached_tokens: u64,
    pub reasoning_tokens: u64,
}

impl From<&Finish> for Metrics {
    fn from(finish: &Finish) -> Self {
        // A duration of zero would be left out of the reply, though it was measured.
        let nanos = |duration| time::nanos(duration).max(1);
        Metrics {
            total_duration: nanos(finish.total),
            load_duration: nanos(finish.load),
            prompt_eval_count: finish.usage.prompt_tokens as u64,
            prompt_eval_duration: nanos(finish.usage.prompt_duration),
            eval_count: finish.usage.eval_tokens as u64,
            eval_duration: nanos(finish.usage.eval_duration),
            cached_tokens: finish.usage.cached_tokens as u64,
            reasoning_tokens: finish.reasoning_tokens as u64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{Message, RenderInput, Role, Template, Think, Tool};
    use crate::engine;
    use serde_json::json;

    fn text(text: &str, tokens: &[u32]) -> Event {
        Event::Piece {
            text: text.into(),
            tokens: tokens.to_vec(),
            logprobs: Vec::new(),
            cached_tokens: 0,
        }
    }

    fn done() -> Event {
        let usage = Usage {
            prompt_tokens: 3,
            eval_tokens: 2,
            ..Usage::default()
        };
        Event::Done {
            reason: FinishReason::Stop,
            usage,
        }
    }

    fn run(events: Vec<Event>, parser: OutputParser) -> Objects<Piece> {
        let generation = Generation {
            events: Box::pin(stream::iter(events)),
            parser,
            context: vec![7, 8],
            received: Instant::now(),
            load: Duration::from_millis(1),
            n_calls: 0,
            n_reasoning: 0,
        };
        pieces(generation, ())
    }

    async fn whole(mut pieces: Objects<Piece>) -> Result<Piece, ApiError> {
        let mut whole = Piece::default();
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            whole.content.push_str(&piece.content);
            whole.thinking.push_str(&piece.thinking);
            whole.tool_calls.extend(piece.tool_calls);
            whole.logprobs.extend(piece.logprobs);
            whole.finish = piece.finish;
        }
        Ok(whole)
    }

    fn weather() -> Tool {
        let tool = json!({"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}});
        Tool::from_json(&tool).unwrap()
    }

    #[tokio::test]
    async fn text_then_the_end() {
        let events = vec![text("He", &[1]), text("", &[2]), text("y", &[3]), done()];
        let pieces: Vec<_> = run(events, OutputParser::plain())
            .map(Result::unwrap)
            .collect()
            .await;
        assert_eq!(
            pieces
                .iter()
                .map(|p| p.content.as_str())
                .collect::<Vec<_>>(),
            ["He", "y", ""]
        );
        let finish = pieces[2].finish.as_ref().unwrap();
        assert_eq!(
            (finish.reason, finish.context.as_slice()),
            ("stop", [7, 8, 1, 2, 3].as_slice())
        );
        let metrics = Metrics::from(finish);
        assert_eq!((metrics.prompt_eval_count, metrics.eval_count), (3, 2));
        assert!(metrics.eval_duration > 0 && metrics.load_duration >= 1_000_000);
    }

    #[tokio::test]
    async fn calls_get_ids_and_numbers_and_held_text_is_not_lost() {
        let template = Template::parse_go("{{ range .Tools }}{{ . }}{{ end }}{{ range .Messages }}{{ .Content }}{{ range .ToolCalls }}{\"name\": \"{{ .Function.Name }}\", \"arguments\": {{ .Function.Arguments }}}{{ end }}{{ end }}").unwrap();
        let parser = || template.output_parser("", &[weather()], None);
        let events = vec![
            text("{\"name\": \"weather\", ", &[1]),
            text("\"arguments\": {\"a\": 1}}", &[2]),
            done(),
        ];
        let answer = whole(run(events, parser())).await.unwrap();
        assert_eq!((answer.tool_calls.len(), answer.content.as_str()), (1, ""));
        let call = &answer.tool_calls[0];
        assert!(call.id.starts_with("call_") && call.id.len() == 13);
        assert_eq!(
            (call.function.index, call.function.name.as_str()),
            (0, "weather")
        );
        let answer = whole(run(vec![text("{\"no", &[1]), done()], parser()))
            .await
            .unwrap();
        assert_eq!(
            (answer.tool_calls.len(), answer.content.as_str()),
            (0, "{\"no")
        );
    }

    #[tokio::test]
    async fn log_probabilities_ride_with_their_tokens_even_while_text_is_held() {
        let template =
            Template::parse_jinja("<think></think>{{ messages[0].content }}", "", "").unwrap();
        let messages = [Message::new(Role::User, "x")];
        let input = RenderInput {
            messages: &messages,
            tools: &[],
            think: None,
            now: chrono::Local::now().naive_local(),
        };
        let prompt = template.render(&input).unwrap();
        let parser = template.output_parser(&prompt, &[], Some(Think::On));
        let with_logprob = |text: &str| {
            let chosen = Logprob {
                token: 1,
                bytes: text.as_bytes().to_vec(),
                logprob: -0.5,
            };
            let entry = TokenLogprob {
                top: vec![chosen.clone()],
                chosen,
            };
            Event::Piece {
                text: text.into(),
                tokens: vec![1],
                logprobs: vec![entry],
                cached_tokens: 2,
            }
        };
        let events = vec![
            with_logprob("<thi"),
            with_logprob("nk>a</think>"),
            with_logprob("b"),
            done(),
        ];
        let pieces: Vec<_> = run(events, parser).map(Result::unwrap).collect().await;
        assert_eq!(pieces.iter().map(|p| p.logprobs.len()).sum::<usize>(), 3);
        assert!(pieces.last().unwrap().logprobs.is_empty());
        assert_eq!(pieces[0].content, "");
        let finish = pieces.last().and_then(|p| p.finish.as_ref()).unwrap();
        assert_eq!(finish.reasoning_tokens, 1);
        let thinking: String = pieces.iter().map(|p| p.thinking.as_str()).collect();
        let content: String = pieces.iter().map(|p| p.content.as_str()).collect();
        assert_eq!((thinking.as_str(), content.as_str()), ("a", "b"));
    }

    #[tokio::test]
    async fn failures_end_the_answer() {
        let events = vec![
            text("a", &[1]),
            Event::Failed(engine::Error::InvalidLogits),
            text("b", &[2]),
        ];
        let pieces: Vec<_> = run(events, OutputParser::plain()).collect().await;
        assert_eq!(pieces.len(), 2);
        assert!(pieces[1].is_err());
        // The model's thread may vanish without a word.
        assert!(
            whole(run(vec![text("a", &[1])], OutputParser::plain()))
                .await
                .is_err()
        );
    }
}
