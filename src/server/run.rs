//! What generate and chat share: the checks before a model is loaded, in Ollama's order, and the run itself.

use super::App;
use super::error::ApiError;
use super::generation::{self, Events, Generation, Piece};
use super::keep_alive;
use super::names::{self, blocking};
use super::options::Options;
use super::prompt::{self, EdgeTokens, Room};
use super::stream::Objects;
use crate::api::{Object, Think};
use crate::chat::{self, Capability, OutputParser, Template};
use crate::engine::{DeviceRequest, KeepAlive, Lease, LoadRequest, Request, SamplingParams};
use crate::store::ResolvedModel;
use futures_util::stream;
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

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
    /// Checks `top_logprobs`, then finds the model.
    pub async fn find(&self, app: &Arc<App>) -> Result<Found, ApiError> {
        let keep_alive = keep_alive::parse(self.keep_alive)?;
        if !(0..=MAX_TOP_LOGPROBS).contains(&self.top_logprobs) {
            return Err(ApiError::bad_request(format!(
                "top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}"
            )));
        }
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
            Some(think) if think.is_on() && !can => Err(ApiError::bad_request(format!(
                "\"{}\" does not support thinking",
                self.model
            ))),
            Some(think) => Ok(Some(prompt::think(think))),
            None => Ok(can.then_some(chat::Think::On)),
        }
    }

    /// The options that hold, and the model in memory.
    pub async fn load(&self, app: &App, found: &Found) -> Result<(Options, Lease), ApiError> {
        load(app, &found.model, found.keep_alive, self.options).await
    }

    /// Refuses `format`, which is not there yet: an answer that ignored it would be wrong in silence.
    pub fn check_format(&self) -> Result<(), ApiError> {
        match self.format {
            None | Some(Value::Null) => Ok(()),
            Some(Value::String(text)) if text.is_empty() => Ok(()),
            Some(Value::Object(_)) => Err(no_format()),
            Some(Value::String(text)) if text == "json" => Err(no_format()),
            Some(other) => Err(ApiError::internal(format!(
                "invalid format: {:?}; expected \"json\" or a valid JSON Schema object",
                other.to_string()
            ))),
        }
    }

    /// Alternatives to report at each token, if log-probabilities are wanted.
    pub fn reported(&self) -> Option<usize> {
        self.logprobs.then(|| at_least(self.top_logprobs))
    }

    /// How the prompt is to fit into the loaded context.
    pub fn room(&self, options: &Options, n_ctx: usize) -> Room {
        Room {
            n_ctx,
            n_keep: options.num_keep,
            truncate: self.truncate.unwrap_or(true),
            shift: self.shift.unwrap_or(true),
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
    let options = Options::merge(&model.params, options)?;
    options.checked_stops()?;
    let load = LoadRequest {
        path: model.model_path.clone(),
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

fn no_format() -> ApiError {
    ApiError::bad_request(
        "format is not implemented yet: leave it out, and ask for JSON in the prompt",
    )
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
        seed: u64::try_from(options.seed).ok(),
    }
}

impl App {
    /// What a model can do, by the template that will render its chats.
    pub fn capabilities(&self, model: &ResolvedModel) -> Result<Vec<Capability>, ApiError> {
        let facts = self.store.facts(&model.model_digest)?;
        let template = prompt::template_of(
            model,
            &facts,
            &EdgeTokens::default(),
            self.settings.go_template,
        )?;
        Ok(model.capabilities(&self.store, template.as_ref())?)
    }

    /// The template that renders a loaded model's chats.
    pub fn template(
        &self,
        model: &ResolvedModel,
        lease: &Lease,
    ) -> Result<Option<Template>, ApiError> {
        let facts = self.store.facts(&model.model_digest)?;
        prompt::template_of(
            model,
            &facts,
            &EdgeTokens::of(lease.tokenizer()),
            self.settings.go_template,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn formats_are_refused_by_name() {
        let check = |format: Value| {
            let common = Common {
                model: "m",
                keep_alive: None,
                options: &Object::new(),
                format: Some(&format),
                think: None,
                truncate: None,
                shift: None,
                logprobs: false,
                top_logprobs: 0,
            };
            common.check_format()
        };
        assert_eq!((check(json!(null)), check(json!(""))), (Ok(()), Ok(())));
        for format in [json!("json"), json!({"type": "object"})] {
            assert!(
                check(format)
                    .unwrap_err()
                    .message
                    .starts_with("format is not implemented yet")
            );
        }
        let text = r#"invalid format: "\"yaml\""; expected "json" or a valid JSON Schema object"#;
        assert_eq!(check(json!("yaml")).unwrap_err(), ApiError::internal(text));
    }
}
