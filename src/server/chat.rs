//! `POST /api/chat`: a conversation, continued; load and unload.

use super::error::{ApiError, ok_json};
use super::generation::{Metrics, Piece};
use super::names::{self, blocking};
use super::options::Options;
use super::prompt::{self, Conversation, Rendered};
use super::run::{self, Common, Found, Job, Outcome};
use super::tool_choice::ToolChoice;
use super::{App, Incoming, Response, body, stream, templates, time};
use crate::api::{ChatReply, ChatRequest, DebugInfo, Message};
use crate::chat::{self, Capability, Template, Tool};
use crate::engine::{KeepAlive, Lease};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages of one request.
const MAX_MESSAGES: usize = 100_000;
/// Tools of one request.
const MAX_TOOLS: usize = 1024;

/// Answers the endpoint.
pub async fn chat(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let request: ChatRequest = body::request(incoming.body, body::LARGE_BODY_BYTES).await?;
    let streams = request.stream.unwrap_or(true);
    match run(&app, request, received, &mut None).await? {
        Outcome::Whole(reply) => Ok(ok_json(&reply)),
        Outcome::Stream(objects) if streams => stream::ndjson(objects).await,
        Outcome::Stream(objects) => Ok(ok_json(&joined(objects).await?)),
    }
}

fn common(request: &ChatRequest) -> Common<'_> {
    Common {
        model: &request.model,
        keep_alive: request.keep_alive.as_ref(),
        options: &request.options,
        format: request.format.as_ref(),
        think: request.think.as_ref(),
        think_if_able: request.think_if_able,
        truncate: request.truncate,
        shift: request.shift,
        logprobs: request.logprobs,
        top_logprobs: request.top_logprobs,
    }
}

/// Checks in Ollama's order, loads, renders, starts. `held` is as in [`Common::load`].
pub async fn run(
    app: &Arc<App>,
    request: ChatRequest,
    received: Instant,
    held: &mut Option<Lease>,
) -> Result<Outcome<ChatReply>, ApiError> {
    let choice = ToolChoice::of(&request)?;
    let tools = match choice {
        ToolChoice::Never => Vec::new(),
        _ => tools(&request)?,
    };
    common(&request).check()?;
    names::required(&request.model)?;
    let found = common(&request).find(app).await?;
    if request.messages.is_empty() && found.keep_alive == Some(KeepAlive::For(Duration::ZERO)) {
        app.models.unload(&found.model.model_path);
        return Ok(Outcome::Whole(without_text(&request, "unload")));
    }
    let think = common(&request).thinking(&found)?;
    check_capabilities(&request, &found)?;
    let (options, lease) = common(&request).load(app, &found, held).await?;
    let load = received.elapsed();
    if request.messages.is_empty() {
        return Ok(Outcome::Whole(without_text(&request, "load")));
    }
    let app = Arc::clone(app);
    blocking(move || {
        let (template, conversation, rendered) =
            rendered(&app, &request, &found, (tools, think), &options, &lease)?;
        if request.debug_render_only {
            return Ok(Outcome::Whole(debug(&request, rendered)));
        }
        let job = job(
            &request,
            &choice,
            &template,
            &conversation,
            &rendered.text,
            &lease,
            &options,
        )?;
        let prompt_tokens = job.tokens.len() as u64;
        let pieces = run::start(lease, job, &options, received, load)?;
        Ok(Outcome::Stream(Box::pin(pieces.map(move |piece| {
            Ok(ChatReply {
                prompt_tokens,
                ..reply(&request.model, piece?)
            })
        }))))
    })
    .await
}

/// How many tokens the prompt of a chat has; the model is loaded for its tokenizer.
pub async fn count_tokens(app: &Arc<App>, request: ChatRequest) -> Result<usize, ApiError> {
    let tools = match ToolChoice::of(&request)? {
        ToolChoice::Never => Vec::new(),
        _ => tools(&request)?,
    };
    let found = common(&request).find(app).await?;
    let think = common(&request).thinking(&found)?;
    check_capabilities(&request, &found)?;
    check_images(&request)?;
    let (options, lease) = common(&request).load(app, &found, &mut None).await?;
    let app = Arc::clone(app);
    blocking(move || {
        let (template, _, rendered) =
            rendered(&app, &request, &found, (tools, think), &options, &lease)?;
        Ok(prompt::encode(lease.tokenizer(), Some(&template), &rendered.text).len())
    })
    .await
}

/// The template of a chat, its conversation, and the prompt that they make.
fn rendered(
    app: &App,
    request: &ChatRequest,
    found: &Found,
    (tools, think): (Vec<Tool>, Option<chat::Think>),
    options: &Options,
    lease: &Lease,
) -> Result<(Arc<Template>, Conversation, Rendered), ApiError> {
    let template = app
        .template(&found.model, lease)?
        .unwrap_or_else(|| templates::FALLBACK.clone());
    let conversation = Conversation {
        messages: prompt::assembled(&found.model, &request.messages),
        tools,
        think,
    };
    let room = common(request).room(options, lease);
    let rendered = conversation.render(
        &template,
        lease.tokenizer(),
        room.truncate.then_some(room.n_ctx),
    )?;
    Ok((template, conversation, rendered))
}

fn tools(request: &ChatRequest) -> Result<Vec<Tool>, ApiError> {
    if request.messages.len() > MAX_MESSAGES {
        return Err(ApiError::bad_request(format!(
            "more than {MAX_MESSAGES} messages"
        )));
    }
    if request.tools.len() > MAX_TOOLS {
        return Err(ApiError::bad_request(format!(
            "more than {MAX_TOOLS} tools"
        )));
    }
    prompt::check_size(request.messages.iter().map(|m| m.content.as_str()))?;
    Ok(request
        .tools
        .iter()
        .map(Tool::from_json)
        .collect::<Result<_, _>>()?)
}

fn check_capabilities(request: &ChatRequest, found: &Found) -> Result<(), ApiError> {
    if !found.capabilities.contains(&Capability::Completion) {
        return Err(ApiError::bad_request(format!(
            "\"{}\" does not support chat",
            request.model
        )));
    }
    if !request.tools.is_empty() && !found.capabilities.contains(&Capability::Tools) {
        return Err(ApiError::bad_request(format!(
            "{} does not support tools",
            found.model.name.full()
        )));
    }
    Ok(())
}

fn check_images(request: &ChatRequest) -> Result<(), ApiError> {
    match request.messages.iter().any(|m| !m.images.is_empty()) {
        false => Ok(()),
        true => Err(ApiError::bad_request(format!(
            "\"{}\" does not support images",
            request.model
        ))),
    }
}

fn job(
    request: &ChatRequest,
    choice: &ToolChoice,
    template: &Template,
    conversation: &Conversation,
    text: &str,
    lease: &Lease,
    options: &Options,
) -> Result<Job, ApiError> {
    check_images(request)?;
    let common = common(request);
    let tokenizer = lease.tokenizer();
    let room = common.room(options, lease);
    let visible = template.visible_tokens(&conversation.tools);
    let parser = template.output_parser(text, &conversation.tools, conversation.think);
    let calls = choice.constraint(request, template, lease)?;
    let may_think = conversation.think.is_some_and(chat::Think::is_on);
    Ok(Job {
        tokens: room.fit(
            prompt::encode(tokenizer, Some(template), text),
            tokenizer.adds_bos(),
        )?,
        grammar: common.grammar(calls, options, lease, &parser, may_think)?,
        parser,
        visible_tokens: visible
            .iter()
            .filter_map(|text| tokenizer.token_id(text))
            .collect(),
        shift: room.shift,
        logprobs: common.reported(),
    })
}

fn without_text(request: &ChatRequest, reason: &str) -> ChatReply {
    ChatReply {
        done: true,
        done_reason: reason.into(),
        ..reply(&request.model, Piece::default())
    }
}

fn debug(request: &ChatRequest, rendered: Rendered) -> ChatReply {
    let info = DebugInfo {
        rendered_template: rendered.text,
        image_count: rendered.n_images as u64,
    };
    let reply = reply(&request.model, Piece::default());
    ChatReply {
        debug_info: Some(info),
        message: Message::default(),
        ..reply
    }
}

fn reply(model: &str, piece: Piece) -> ChatReply {
    let message = Message {
        role: chat::Role::Assistant.as_str().into(),
        content: piece.content,
        thinking: piece.thinking,
        tool_calls: piece.tool_calls,
        ..Message::default()
    };
    let reply = ChatReply {
        model: model.into(),
        created_at: time::now(),
        message,
        logprobs: piece.logprobs,
        cached_tokens: piece.cached_tokens as u64,
        ..ChatReply::default()
    };
    let Some(finish) = piece.finish else {
        return reply;
    };
    let metrics = Metrics::from(&finish);
    ChatReply {
        matched_stop: finish.usage.matched_stop,
        done: true,
        done_reason: finish.reason.into(),
        total_duration: metrics.total_duration,
        load_duration: metrics.load_duration,
        prompt_eval_count: metrics.prompt_eval_count,
        prompt_eval_duration: metrics.prompt_eval_duration,
        eval_count: metrics.eval_count,
        eval_duration: metrics.eval_duration,
        reasoning_tokens: metrics.reasoning_tokens,
        ..reply
    }
}

/// All objects as one: texts joined, the rest from the last.
pub async fn joined(objects: stream::Objects<ChatReply>) -> Result<ChatReply, ApiError> {
    let mut objects = stream::begun(objects).await?;
    let mut whole = ChatReply::default();
    while let Some(object) = objects.next().await {
        let object = object?;
        let message = Message {
            content: whole.message.content + &object.message.content,
            thinking: whole.message.thinking + &object.message.thinking,
            tool_calls: [whole.message.tool_calls, object.message.tool_calls].concat(),
            ..object.message
        };
        let logprobs = [whole.logprobs, object.logprobs].concat();
        whole = ChatReply {
            message,
            logprobs,
            ..object
        };
    }
    Ok(whole)
}
