//! `POST /v1/completions`: the native `/api/generate` in the shape of OpenAI's older API.

mod reply;
mod request;

use super::{choices, json_line, passed, streamed};
use crate::api::GenerateRequest;
use crate::server::error::ApiError;
use crate::server::generation::random;
use crate::server::{App, Incoming, Response, generate, inflate};
use futures_util::future;
use reply::{Choice, Chunks, completion};
use request::Translated;
use std::sync::Arc;
use std::time::Instant;

/// Answers the endpoint.
pub async fn completions(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let translated =
        match inflate::translated(incoming.headers, incoming.body, request::translate).await? {
            Ok(translated) => translated,
            Err(e) => return Ok(e.into_openai_refusal()),
        };
    passed(answer(&app, translated, received).await)
}

async fn answer(
    app: &Arc<App>,
    translated: Translated,
    received: Instant,
) -> Result<Response, ApiError> {
    let n_prompts = translated.n_prompts;
    let echoed = |request: &GenerateRequest| match translated.echo {
        true => request.prompt.clone(),
        false => String::new(),
    };
    let written: Vec<Choice> = translated
        .requests
        .iter()
        .map(|request| Choice::after(echoed(request)))
        .collect();
    let only_renders = translated.requests.iter().any(|r| r.debug_render_only);
    let (mut choices, mut held) = (Vec::new(), None);
    for request in translated.requests {
        choices.push(choices::objects(
            generate::run(app, request, received, &mut held).await?,
        ));
    }
    drop(held);
    let id = format!("cmpl-{:016x}", random());
    if translated.stream && !only_renders {
        let mut chunks = Chunks::new(id, translated.include_usage, written, n_prompts);
        return streamed(choices, move |index, reply| chunks.of(index, reply)).await;
    }
    let whole = future::try_join_all(choices.into_iter().map(generate::joined)).await?;
    Ok(json_line(&completion(&id, whole, written, n_prompts)))
}
