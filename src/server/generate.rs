//! `POST /api/generate`: one prompt, continued; load and unload.

use super::error::{ApiError, ok_json};
use super::generation::{Metrics, Piece};
use super::names::blocking;
use super::options::Options;
use super::prompt::{self, Conversation, Rendered};
use super::run::{self, Common, Found, Job, Outcome};
use super::{App, Incoming, Response, body, stream, templates, time};
use crate::api::{DebugInfo, GenerateReply, GenerateRequest};
use crate::chat::{self, Capability, Message, OutputParser, Role, Template};
use crate::engine::{KeepAlive, Lease};
use crate::tokenizer::Tokenizer;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Answers the endpoint.
pub async fn generate(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let received = incoming.received;
    let request: GenerateRequest = body::request(incoming.body, body::LARGE_BODY_BYTES).await?;
    let streams = request.stream.unwrap_or(true);
    match run(&app, request, received, &mut None).await? {
        Outcome::Whole(reply) => Ok(ok_json(&reply)),
        Outcome::Stream(objects) if streams => stream::ndjson(objects).await,
        Outcome::Stream(objects) => Ok(ok_json(&joined(objects).await?)),
    }
}

fn common(request: &GenerateRequest) -> Common<'_> {
    Common {
        model: &request.model,
        keep_alive: request.keep_alive.as_ref(),
        options: &request.options,
        format: request.format.as_ref(),
        think: request.think.as_ref(),
        think_if_able: false,
        truncate: request.truncate,
        shift: request.shift,
        logprobs: request.logprobs,
        top_logprobs: request.top_logprobs,
    }
}

/// Checks in Ollama's order, loads, renders, starts. `held` is as in [`Common::load`].
pub async fn run(
    app: &Arc<App>,
    request: GenerateRequest,
    received: Instant,
    held: &mut Option<Lease>,
) -> Result<Outcome<GenerateReply>, ApiError> {
    let found = common(&request).find(app).await?;
    if request.prompt.is_empty() && found.keep_alive == Some(KeepAlive::For(Duration::ZERO)) {
        app.models.unload(&found.model.model_path);
        return Ok(Outcome::Whole(without_text(&request, "unload")));
    }
    check_raw(&request)?;
    prompt::check_size([&*request.prompt, &request.suffix, &request.system])?;
    let think = common(&request).thinking(&found)?;
    check_capabilities(&request, &found)?;
    let (options, lease) = common(&request).load(app, &found, held).await?;
    let load = received.elapsed();
    if request.prompt.is_empty() {
        return Ok(Outcome::Whole(without_text(&request, "load")));
    }
    let app = Arc::clone(app);
    blocking(move || {
        let prompt = Prompt::new(&app, &request, &found, &lease, think, &options)?;
        if request.debug_render_only {
            return Ok(Outcome::Whole(rendered(&request, prompt.rendered)));
        }
        let job = prompt.job(&request, &lease, &options)?;
        let pieces = run::start(lease, job, &options, received, load)?;
        let raw = request.raw;
        Ok(Outcome::Stream(Box::pin(
            pieces.map(move |piece| Ok(reply(&request.model, raw, piece?))),
        )))
    })
    .await
}

fn check_raw(request: &GenerateRequest) -> Result<(), ApiError> {
    let has_context = request.context.as_ref().is_some_and(|c| !c.is_empty());
    if request.raw && (has_context || !request.template.is_empty() || !request.system.is_empty()) {
        return Err(ApiError::bad_request(
            "raw mode does not support template, system, or context",
        ));
    }
    Ok(())
}

fn check_capabilities(request: &GenerateRequest, found: &Found) -> Result<(), ApiError> {
    if !found.capabilities.contains(&Capability::Completion) {
        return Err(ApiError::bad_request(format!(
            "\"{}\" does not support generate",
            request.model
        )));
    }
    if !request.suffix.is_empty() && !found.capabilities.contains(&Capability::Insert) {
        return Err(ApiError::bad_request(format!(
            "{} does not support insert",
            found.model.name.full()
        )));
    }
    Ok(())
}

/// A prompt and what is needed to read the answer to it.
struct Prompt {
    rendered: Rendered,
    template: Option<Arc<Template>>,
    think: Option<chat::Think>,
}

impl Prompt {
    fn new(
        app: &App,
        request: &GenerateRequest,
        found: &Found,
        lease: &Lease,
        think: Option<chat::Think>,
        options: &Options,
    ) -> Result<Prompt, ApiError> {
        let template = match (request.raw, request.template.as_str()) {
            (true, _) => None,
            (_, "") => {
                let template = app.template(&found.model, lease)?;
                Some(template.unwrap_or_else(|| templates::BARE.clone()))
            }
            (_, text) => Some(Arc::new(Template::parse_go(text)?)),
        };
        let rendered = match &template {
            None => Rendered {
                text: request.prompt.clone(),
                n_images: request.images.len(),
            },
            Some(template) => rendered_with(template, request, found, lease, think, options)?,
        };
        let before = context_text(
            lease.tokenizer(),
            request.context.as_deref().unwrap_or_default(),
        )?;
        let rendered = Rendered {
            text: before + &rendered.text,
            ..rendered
        };
        Ok(Prompt {
            rendered,
            template,
            think,
        })
    }

    fn job(
        self,
        request: &GenerateRequest,
        lease: &Lease,
        options: &Options,
    ) -> Result<Job, ApiError> {
        let common = common(request);
        if !request.images.is_empty() {
            return Err(ApiError::bad_request(format!(
                "\"{}\" does not support images",
                request.model
            )));
        }
        let tokenizer = lease.tokenizer();
        let tokens = prompt::encode(tokenizer, self.template.as_deref(), &self.rendered.text);
        let room = common.room(options, lease);
        let visible = self
            .template
            .as_ref()
            .map(|t| t.visible_tokens(&[]))
            .unwrap_or_default();
        let parser = match &self.template {
            Some(template) => template.output_parser(&self.rendered.text, &[], self.think),
            None => OutputParser::plain(),
        };
        Ok(Job {
            tokens: room.fit(tokens, tokenizer.adds_bos())?,
            grammar: common.grammar(None, options, lease, &parser, false)?,
            parser,
            visible_tokens: visible
                .iter()
                .filter_map(|text| tokenizer.token_id(text))
                .collect(),
            shift: room.shift,
            logprobs: common.reported(),
        })
    }
}

/// Fills the gap before `suffix`, or renders a conversation that ends with the prompt.
fn rendered_with(
    template: &Template,
    request: &GenerateRequest,
    found: &Found,
    lease: &Lease,
    think: Option<chat::Think>,
    options: &Options,
) -> Result<Rendered, ApiError> {
    let conversation = Conversation {
        messages: messages(request, found),
        tools: Vec::new(),
        think,
    };
    if !request.suffix.is_empty() {
        let now = chrono::Local::now().naive_local();
        let input = chat::RenderInput {
            messages: &[],
            tools: &[],
            think,
            now,
        };
        let text = template.render_insert(&request.prompt, &request.suffix, &input)?;
        return Ok(Rendered { text, n_images: 0 });
    }
    let room = common(request).room(options, lease);
    conversation.render(
        template,
        lease.tokenizer(),
        room.truncate.then_some(room.n_ctx),
    )
}

/// System text, the model's own messages unless the request continues another conversation, the prompt.
fn messages(request: &GenerateRequest, found: &Found) -> Vec<Message> {
    let own = found.model.system.as_deref().unwrap_or_default();
    let system = if request.system.is_empty() {
        own
    } else {
        &request.system
    };
    let mut messages = Vec::new();
    if !system.is_empty() {
        messages.push(Message::new(Role::System, system));
    }
    if request.context.is_none() {
        messages.extend(found.model.messages.iter().map(prompt::message));
    }
    let n_images = request.images.len();
    messages.push(Message {
        n_images,
        ..Message::new(Role::User, request.prompt.clone())
    });
    messages
}

/// The text of an earlier reply's tokens.
fn context_text(tokenizer: &Tokenizer, context: &[i64]) -> Result<String, ApiError> {
    let n_vocab = tokenizer.n_vocab();
    let known = |id: &i64| {
        u32::try_from(*id)
            .ok()
            .filter(|id| (*id as usize) < n_vocab)
            .ok_or(*id)
    };
    let tokens: Result<Vec<u32>, i64> = context.iter().map(known).collect();
    let tokens = tokens.map_err(|id| {
        ApiError::bad_request(format!(
            "context holds token {id}, outside the model's vocabulary of {n_vocab}"
        ))
    })?;
    Ok(tokenizer.decode(&tokens, true))
}

fn without_text(request: &GenerateRequest, reason: &str) -> GenerateReply {
    GenerateReply {
        model: request.model.clone(),
        created_at: time::now(),
        done: true,
        done_reason: reason.into(),
        ..GenerateReply::default()
    }
}

fn rendered(request: &GenerateRequest, rendered: Rendered) -> GenerateReply {
    let info = DebugInfo {
        rendered_template: rendered.text,
        image_count: rendered.n_images as u64,
    };
    GenerateReply {
        model: request.model.clone(),
        created_at: time::now(),
        debug_info: Some(info),
        ..GenerateReply::default()
    }
}

fn reply(model: &str, raw: bool, piece: Piece) -> GenerateReply {
    let reply = GenerateReply {
        model: model.into(),
        created_at: time::now(),
        response: piece.content,
        thinking: piece.thinking,
        logprobs: piece.logprobs,
        tool_calls: piece.tool_calls,
        ..GenerateReply::default()
    };
    let Some(finish) = piece.finish else {
        return reply;
    };
    let metrics = Metrics::from(&finish);
    GenerateReply {
        done: true,
        done_reason: finish.reason.into(),
        context: if raw { Vec::new() } else { finish.context },
        total_duration: metrics.total_duration,
        load_duration: metrics.load_duration,
        prompt_eval_count: metrics.prompt_eval_count,
        prompt_eval_duration: metrics.prompt_eval_duration,
        eval_count: metrics.eval_count,
        eval_duration: metrics.eval_duration,
        cached_tokens: metrics.cached_tokens,
        reasoning_tokens: metrics.reasoning_tokens,
        ..reply
    }
}

/// All objects as one: texts joined, the rest from the last.
pub async fn joined(objects: stream::Objects<GenerateReply>) -> Result<GenerateReply, ApiError> {
    let mut objects = stream::begun(objects).await?;
    let mut whole = GenerateReply::default();
    while let Some(object) = objects.next().await {
        let object = object?;
        whole = GenerateReply {
            response: whole.response + &object.response,
            thinking: whole.thinking + &object.thinking,
            tool_calls: [whole.tool_calls, object.tool_calls].concat(),
            logprobs: [whole.logprobs, object.logprobs].concat(),
            ..object
        };
    }
    Ok(whole)
}
