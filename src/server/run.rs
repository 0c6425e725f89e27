//! What generate and chat share: the checks before a model is loaded, in Ollama's order, and the run itself.

use super::App;
use super::error::ApiError;
use super::generation::{self, Events, Generation, Piece};
use super::keep_alive;
use super::names::{self, blocking};
use super::options::Options;
use super::prompt::{self, Room};
use super::stream::Objects;
use crate::api::{Object, Think};
use crate::chat::{self, Capability, OutputParser};
use crate::engine::{
    Constraint, DeviceRequest, Grammar, KeepAlive, Lease, LoadRequest, Reasoning, Request,
    SamplingParams,
};
use crate::store::ResolvedModel;
use futures_util::stream;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The architecture whose full context is not shifted unless the request says so.
const UNSHIFTED: &str = "deepseek2";
/// A context smaller than this is raised to it.
const MIN_CONTEXT: i64 = 4;
/// Most alternatives that can be asked for at each token.
const MAX_TOP_LOGPROBS: i64 = 20;

/// A whole reply at once, or a generation.
pub enum Outcome<T> {
    Whole(T),
    Stream(Objects<T>),
}

/// Members that generate and chat have in common.
pub struct Common<'a> {
    pub model: &'a str,
    pub keep_alive: Option<&'a Value>,
    pub options: &'a Object,
    pub format: Option<&'a Value>,
    pub think: Option<&'a Think>,
    /// See [`crate::api::ChatRequest::think_if_able`].
    pub think_if_able: bool,
    pub truncate: Option<bool>,
    pub shift: Option<bool>,
    pub logprobs: bool,
    pub top_logprobs: i64,
}

/// A model that was found, with what the request makes of it.
pub struct Found {
    pub model: Arc<ResolvedModel>,
    pub capabilities: Vec<Capability>,
    pub keep_alive: Option<KeepAlive>,
}

impl Common<'_> {
    /// Checks what comes before the model's name, and reads `keep_alive`.
    ///
    /// # Errors
    /// 400 for a `keep_alive` that is no time, and for `top_logprobs` out of range.
    pub fn check(&self) -> Result<Option<KeepAlive>, ApiError> {
        let keep_alive = keep_alive::parse(self.keep_alive)?;
        if !(0..=MAX_TOP_LOGPROBS).contains(&self.top_logprobs) {
            return Err(ApiError::bad_request(format!(
                "top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}"
            )));
        }
        Ok(keep_alive)
    }

    /// Finds the model, after [`Common::check`].
    pub async fn find(&self, app: &Arc<App>) -> Result<Found, ApiError> {
        let keep_alive = self.check()?;
        let model = names::resolve(app, self.model).await?;
        let (app, found) = (Arc::clone(app), Arc::clone(&model));
        let capabilities = blocking(move || app.capabilities(&found)).await?;
        Ok(Found {
            model,
            capabilities,
            keep_alive,
        })
    }

    /// The request's `think`, on by default where the model can.
    ///
    /// # Errors
    /// 400 for reasoning from a model that has none.
    pub fn thinking(&self, found: &Found) -> Result<Option<chat::Think>, ApiError> {
        let can = found.capabilities.contains(&Capability::Thinking);
        match self.think {
            Some(think) if think.is_on() && !can && self.think_if_able => Ok(None),
            Some(think) if think.is_on() && !can => Err(ApiError::bad_request(format!(
                "\"{}\" does not support thinking",
                self.model
            ))),
            Some(think) => Ok(Some(prompt::think(think))),
            None => Ok(can.then_some(chat::Think::On)),
        }
    }

    /// The options that hold, and the model in memory: what `held` has, or gets. Choices of one request hand it on, since
    /// a request that has a lease must not wait for another: a reload may be waiting for the first.
    pub async fn load(
        &self,
        app: &App,
        found: &Found,
        held: &mut Option<Lease>,
    ) -> Result<(Options, Lease), ApiError> {
        if let Some(lease) = held {
            return Ok((merged(&found.model, self.options)?, lease.share()));
        }
        let (options, lease) = load(app, &found.model, found.keep_alive, self.options).await?;
        *held = Some(lease.share());
        Ok((options, lease))
    }

    /// What `format`, or the option `grammar`, asks of the answer.
    ///
    /// # Errors
    /// 500 with Ollama's text for a format of another kind, 400 for both at once.
    pub fn constraint(&self, options: &Options) -> Result<Option<Constraint>, ApiError> {
        let format = match self.format {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) if text == "json" => Some(Constraint::Json),
            Some(schema @ Value::Object(_)) => Some(Constraint::Schema(schema.clone())),
            Some(other) => {
                return Err(ApiError::internal(format!(
                    "invalid format: {:?}; expected \"json\" or a valid JSON Schema object",
                    other.to_string()
                )));
            }
        };
        match (format, &options.grammar) {
            (Some(_), Some(_)) => Err(ApiError::bad_request(
                "format and the option \"grammar\" cannot be used together",
            )),
            (None, Some(grammar)) => Ok(Some(Constraint::Grammar(grammar.clone()))),
            (format, None) => Ok(format),
        }
    }

    /// The constraint, compiled for the model. Reasoning that the prompt has begun comes before
    /// it, and with `may_think` any other that the parser looks for. `calls` is a constraint of tool
    /// calls, which takes the place of any other.
    ///
    /// # Errors
    /// As [`Common::constraint`]; 400 for what cannot be compiled.
    pub fn grammar(
        &self,
        calls: Option<Constraint>,
        options: &Options,
        lease: &Lease,
        parser: &OutputParser,
        may_think: bool,
    ) -> Result<Option<Grammar>, ApiError> {
        // Calls are written with what begins them.
        let (is_call, constraint) = match calls {
            Some(calls) => (true, Some(calls)),
            None => (false, self.constraint(options)?),
        };
        let Some(constraint) = constraint else {
            return Ok(None);
        };
        let reasoning = parser
            .reasoning()
            .filter(|tags| tags.open.is_none() || may_think || tags.always);
        let reasoning = reasoning.map(|tags| Reasoning {
            open: tags.open.map(str::to_owned),
            close: tags.close.to_owned(),
            answer: if is_call { "" } else { tags.answer }.to_owned(),
        });
        Ok(Some(lease.grammar(&constraint, reasoning.as_ref())?))
    }

    /// Alternatives to report at each token, if log-probabilities are wanted.
    pub fn reported(&self) -> Option<usize> {
        self.logprobs.then(|| at_least(self.top_logprobs))
    }

    /// How the prompt is to fit into the loaded context.
    pub fn room(&self, options: &Options, lease: &Lease) -> Room {
        Room {
            n_ctx: lease.engine().n_ctx(),
            n_keep: options.num_keep,
            truncate: self.truncate.unwrap_or(true),
            shift: self
                .shift
                .unwrap_or(lease.gguf().architecture() != UNSHIFTED),
        }
    }
}

/// The options that hold, and the model in memory.
pub async fn load(
    app: &App,
    model: &ResolvedModel,
    keep_alive: Option<KeepAlive>,
    options: &Object,
) -> Result<(Options, Lease), ApiError> {
    let options = merged(model, options)?;
    let load = LoadRequest {
        path: model.model_path.clone(),
        adapters: model.adapter_paths.clone(),
        name: model.name.to_string(),
        digest: model.digest.clone(),
        num_ctx: options.num_ctx.map(|n| at_least(n.max(MIN_CONTEXT))),
        num_batch: options.num_batch.filter(|n| *n > 0).map(at_least),
        device: DeviceRequest {
            num_gpu: options.num_gpu,
            main_gpu: options.main_gpu,
            num_thread: at_least(options.num_thread),
        },
        keep_alive,
    };
    Ok((options, app.models.acquire(&load).await?))
}

fn merged(model: &ResolvedModel, options: &Object) -> Result<Options, ApiError> {
    let options = Options::merge(&model.params, options)?;
    options.checked_stops()?;
    Ok(options)
}

fn at_least(n: i64) -> usize {
    usize::try_from(n.max(0)).unwrap_or(usize::MAX)
}

/// A prompt ready to run.
pub struct Job {
    pub tokens: Vec<u32>,
    pub parser: OutputParser,
    /// Control tokens that the parser needs to see.
    pub visible_tokens: Vec<u32>,
    pub shift: bool,
    /// Alternatives to report at each token, if log-probabilities are wanted.
    pub logprobs: Option<usize>,
    pub grammar: Option<Grammar>,
}

/// Starts a job. The lease is held until its last piece.
pub fn start(
    lease: Lease,
    job: Job,
    options: &Options,
    received: Instant,
    load: Duration,
) -> Result<Objects<Piece>, ApiError> {
    let tokenizer = lease.tokenizer();
    let n_vocab = tokenizer.n_vocab();
    let mut biased = options.logit_bias.iter();
    if let Some((id, _)) = biased.find(|&&(id, _)| id as usize >= n_vocab) {
        return Err(ApiError::bad_request(format!(
            "logit_bias names token {id}, and the model has {n_vocab}"
        )));
    }
    let mut context = job.tokens.clone();
    if tokenizer.adds_bos() && context.first().copied() == tokenizer.bos() {
        context.remove(0);
    }
    let request = Request {
        params: sampling(options),
        n_predict: usize::try_from(options.num_predict).ok(),
        stop: options.checked_stops()?,
        n_keep: options.num_keep,
        shift: job.shift,
        logprobs: job.logprobs,
        visible_tokens: job.visible_tokens,
        grammar: job.grammar,
        n_draft: options.draft_num_predict.map_or(0, at_least),
        ..Request::new(job.tokens)
    };
    let events = lease.engine().submit(request)?;
    let generation = Generation {
        events: stream_of(events),
        parser: job.parser,
        context,
        received,
        load,
        n_calls: 0,
        n_reasoning: 0,
    };
    Ok(generation::pieces(generation, lease))
}

fn stream_of(events: crate::engine::Events) -> Events {
    Box::pin(stream::unfold(events, |mut events| async move {
        events.recv().await.map(|event| (event, events))
    }))
}

fn sampling(options: &Options) -> SamplingParams {
    SamplingParams {
        temperature: options.temperature,
        top_k: options.top_k,
        top_p: options.top_p,
        min_p: options.min_p,
        typical_p: options.typical_p,
        repeat_last_n: options.repeat_last_n,
        repeat_penalty: options.repeat_penalty,
        presence_penalty: options.presence_penalty,
        frequency_penalty: options.frequency_penalty,
        logit_bias: options.logit_bias.clone(),
        seed: u64::try_from(options.seed).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn constraint(format: Value, grammar: Option<&str>) -> Result<Option<Constraint>, ApiError> {
        let common = Common {
            model: "m",
            keep_alive: None,
            options: &Object::new(),
            format: Some(&format),
            think: None,
            think_if_able: false,
            truncate: None,
            shift: None,
            logprobs: false,
            top_logprobs: 0,
        };
        common.constraint(&Options {
            grammar: grammar.map(str::to_owned),
            ..Options::default()
        })
    }

    #[test]
    fn formats_are_none_json_or_a_schema() {
        let none = Ok(None);
        assert_eq!(
            (constraint(json!(null), None), constraint(json!(""), None)),
            (none.clone(), none)
        );
        assert_eq!(constraint(json!("json"), None), Ok(Some(Constraint::Json)));
        let schema = json!({"type": "object"});
        let wanted = Constraint::Schema(schema.clone());
        assert_eq!(constraint(schema, None), Ok(Some(wanted)));
        let text = r#"invalid format: "\"yaml\""; expected "json" or a valid JSON Schema object"#;
        assert_eq!(
            constraint(json!("yaml"), None),
            Err(ApiError::internal(text))
        );
        for other in [json!(1), json!(true), json!([])] {
            assert_eq!(constraint(other, None).unwrap_err().status.as_u16(), 500);
        }
    }

    #[test]
    fn a_grammar_stands_alone() {
        let wanted = Constraint::Grammar("/a+/".into());
        assert_eq!(constraint(json!(null), Some("/a+/")), Ok(Some(wanted)));
        assert_eq!(
            constraint(json!("json"), Some("/a+/"))
                .unwrap_err()
                .status
                .as_u16(),
            400
        );
    }
}
