//! `POST /api/embed` and `/api/embeddings`: texts as vectors.

use super::error::{ApiError, ok_json};
use super::names::{self, blocking};
use super::{App, Incoming, Response, body, keep_alive, prompt, run};
use crate::api::{EmbedReply, EmbedRequest, EmbeddingsReply, EmbeddingsRequest, Object};
use crate::chat::Capability;
use crate::engine::{Error, KeepAlive, Lease, normalised};
use crate::gguf::Gguf;
use crate::tokenizer::Tokenizer;
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;

/// Numbers of an answer: half a gigabyte of them, and three times that as text.
const MAX_NUMBERS: u64 = 1 << 27;

const TOO_LONG: &str = "the input length exceeds the context length";
const NO_ROOM: &str = "input after truncation exceeds maximum context length";
const STILL_TOO_LONG: &str = "input exceeds maximum context length and cannot be truncated further";

/// Answers `/api/embed`.
pub async fn embed(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let request: EmbedRequest = body::request(incoming.body, body::LARGE_BODY_BYTES).await?;
    Ok(ok_json(&run(&app, request, received).await?))
}

/// Answers `/api/embeddings`: one text, which must fit.
pub async fn embeddings(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let request: EmbeddingsRequest = body::request(incoming.body, body::LARGE_BODY_BYTES).await?;
    let keep_alive = keep_alive::parse(request.keep_alive.as_ref())?;
    names::required(&request.model)?;
    let asked = Asked {
        model: &request.model,
        keep_alive,
        options: &request.options,
    };
    let loaded = asked.load(&app, !request.prompt.is_empty()).await?;
    if request.prompt.is_empty() {
        return Ok(ok_json(&EmbeddingsReply::default()));
    }
    prompt::check_size([request.prompt.as_str()])?;
    let texts = vec![request.prompt.clone()];
    let tokens = loaded.tokens(texts, false).await.map_err(|e| match e {
        e if e.message == TOO_LONG => ApiError::internal(TOO_LONG),
        e => e,
    })?;
    let engine = loaded.lease.engine();
    let vectors = match is_raw(loaded.lease.gguf()) {
        true => engine.embed_raw(tokens).await,
        false => engine.embed(tokens).await,
    };
    let vectors = vectors.map_err(|e| match e {
        Error::InvalidEmbedding => ApiError::internal(e.to_string()),
        e => e.into(),
    })?;
    let vector = vectors.into_iter().next().unwrap_or_default();
    Ok(ok_json(&EmbeddingsReply {
        embedding: vector.into_iter().map(f64::from).collect(),
    }))
}

/// Whether `/api/embeddings` gives a model's vectors as pooling makes them, as it did before there was `/api/embed`.
fn is_raw(gguf: &Gguf) -> bool {
    let architecture = gguf.architecture();
    let is_normalised = gguf.bool(&format!("{architecture}.normalize_embeddings"));
    let is_bert = gguf
        .str("tokenizer.ggml.model")
        .is_none_or(|kind| kind == "bert");
    match architecture {
        "bert" => !is_bert || is_normalised == Some(false),
        "nomic-bert" | "nomic-bert-moe" => is_normalised != Some(true),
        _ => false,
    }
}

/// Checks in Ollama's order, loads, and embeds all texts.
pub async fn run(
    app: &Arc<App>,
    request: EmbedRequest,
    received: Instant,
) -> Result<EmbedReply, ApiError> {
    let keep_alive = keep_alive::parse(request.keep_alive.as_ref())?;
    let texts = texts(request.input)?;
    prompt::check_size(texts.iter().map(String::as_str))?;
    let asked = Asked {
        model: &request.model,
        keep_alive,
        options: &request.options,
    };
    let loaded = asked.load(app, !texts.is_empty()).await?;
    let load = received.elapsed();
    let mut reply = EmbedReply {
        model: request.model,
        ..EmbedReply::default()
    };
    if texts.is_empty() {
        return Ok(reply);
    }
    loaded.check_count(texts.len())?;
    let truncate = request.truncate.unwrap_or(true);
    let tokens = loaded.tokens(texts, truncate).await?;
    let n_tokens: usize = tokens.iter().map(Vec::len).sum();
    reply.embeddings = loaded.lease.engine().embed(tokens).await?;
    if let Ok(n) = usize::try_from(request.dimensions) {
        for vector in reply
            .embeddings
            .iter_mut()
            .filter(|v| (1..v.len()).contains(&n))
        {
            *vector = normalised(&vector[..n]);
        }
    }
    let nanos = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    reply.total_duration = nanos(received.elapsed());
    reply.load_duration = nanos(load);
    reply.prompt_eval_count = n_tokens as u64;
    Ok(reply)
}

/// The texts of `input`: none, one, or a list of them.
///
/// # Errors
/// 400 for what is no text.
fn texts(input: Option<Value>) -> Result<Vec<String>, ApiError> {
    let text = |value| match value {
        Value::String(text) => Ok(text),
        _ => Err(ApiError::bad_request("invalid input type")),
    };
    match input {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::Array(items)) => items.into_iter().map(text).collect(),
        Some(value) => Ok(vec![text(value)?]),
    }
}

/// What decides which model is loaded, and how.
struct Asked<'a> {
    model: &'a str,
    keep_alive: Option<KeepAlive>,
    options: &'a Object,
}

impl Asked<'_> {
    /// The model in memory. One that writes texts is loaded too, unless it is to embed some.
    async fn load(&self, app: &Arc<App>, is_to_embed: bool) -> Result<Loaded, ApiError> {
        let model = names::resolve_to_embed(app, self.model).await?;
        if is_to_embed {
            let (app, model) = (Arc::clone(app), Arc::clone(&model));
            let capabilities = blocking(move || app.capabilities(&model)).await?;
            if !capabilities.contains(&Capability::Embedding) {
                let name = self.model;
                let text = format!("\"{name}\" does not support embeddings");
                return Err(ApiError::bad_request(text));
            }
        }
        let (options, lease) = run::load(app, &model, self.keep_alive, self.options).await?;
        Ok(Loaded {
            lease: Arc::new(lease),
            num_ctx: options.num_ctx.and_then(|n| usize::try_from(n).ok()),
        })
    }
}

/// A model in memory, and the context that was asked for.
struct Loaded {
    lease: Arc<Lease>,
    num_ctx: Option<usize>,
}

impl Loaded {
    /// Refuses more texts than an answer can hold vectors of.
    fn check_count(&self, n_texts: usize) -> Result<(), ApiError> {
        let gguf = self.lease.gguf();
        let key = format!("{}.embedding_length", gguf.architecture());
        let most = MAX_NUMBERS / gguf.u64(&key).unwrap_or(1).max(1);
        if n_texts as u64 > most {
            let text = format!("too many texts: {n_texts}, and this model embeds {most} at a time");
            return Err(ApiError::bad_request(text));
        }
        Ok(())
    }

    /// The tokens of each text, cut to the context if they may be.
    async fn tokens(&self, texts: Vec<String>, truncate: bool) -> Result<Vec<Vec<u32>>, ApiError> {
        let lease = Arc::clone(&self.lease);
        let n_ctx = lease.engine().n_ctx();
        let room = Room {
            n_ctx,
            n_kept: match self.num_ctx {
                Some(0) => lease.engine().n_ctx_train(),
                Some(n) => n.min(lease.engine().n_ctx_train()),
                None => n_ctx,
            },
            truncate,
        };
        blocking(move || {
            let tokenizer = lease.tokenizer();
            let encoded = texts.iter().map(|text| tokenizer.encode(text, true, true));
            encoded.map(|tokens| room.fit(tokens, tokenizer)).collect()
        })
        .await
    }
}

/// How a text is made to fit.
#[derive(Debug, Clone, Copy)]
struct Room {
    /// Tokens that the loaded model takes.
    n_ctx: usize,
    /// Tokens that a text is cut to, which may be fewer: the smallest contexts are loaded larger.
    n_kept: usize,
    truncate: bool,
}

impl Room {
    /// The tokens, their end cut off if they must be and may be; a token that ends every text is
    /// put behind what is left.
    fn fit(&self, mut tokens: Vec<u32>, tokenizer: &Tokenizer) -> Result<Vec<u32>, ApiError> {
        if tokens.len() <= self.n_ctx {
            return Ok(tokens);
        }
        if !self.truncate {
            return Err(ApiError::bad_request(TOO_LONG));
        }
        let suffix = tokenizer.suffix();
        let n_special = usize::from(tokenizer.adds_bos()) + usize::from(suffix.is_some());
        if self.n_kept <= n_special {
            return Err(ApiError::bad_request(NO_ROOM));
        }
        if self.n_kept > self.n_ctx {
            return Err(ApiError::bad_request(STILL_TOO_LONG));
        }
        tokens.truncate(self.n_kept - usize::from(suffix.is_some()));
        tokens.extend(suffix);
        Ok(tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn inputs_are_texts() {
        let of = |value: Value| texts(Some(value));
        assert_eq!(texts(None).unwrap(), [""; 0]);
        for nothing in [json!(null), json!(""), json!([])] {
            assert_eq!(of(nothing).unwrap(), [""; 0]);
        }
        assert_eq!(of(json!("a")).unwrap(), ["a"]);
        assert_eq!(of(json!(["a", ""])).unwrap(), ["a", ""]);
        for other in [json!(5), json!([1, 2]), json!(["a", null]), json!({"a": 1})] {
            let refused = of(other).unwrap_err();
            assert_eq!(refused, ApiError::bad_request("invalid input type"));
        }
    }
}
