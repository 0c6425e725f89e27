//! `run`: one answer to a prompt from arguments and standard input, or the interactive prompt.

use super::answer;
use super::client::Client;
use super::session::{self, Session};
use super::{print_line, repl, usage};
use crate::api::{EmbedReply, EmbedRequest, GenerateReply, GenerateRequest, Object, Think};
use crate::settings::parse_duration;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;
use std::io::{IsTerminal, Read, stdin, stdout};

/// Longest piped prompt; no context window holds more.
const MAX_PROMPT_BYTES: u64 = 64 << 20;

/// The arguments of `run`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(hide = true)]
    arguments: Vec<String>,
    /// Embedding models: keep this many numbers of the vector
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    dimensions: i64,
    /// Answer in this format: json, or a JSON Schema
    #[arg(long, default_value = "", hide_default_value = true)]
    format: String,
    /// Do not show the model's reasoning
    #[arg(long)]
    hidethinking: bool,
    /// Pull a missing model over plain http
    #[arg(long)]
    insecure: bool,
    /// How long the model stays loaded afterwards (such as 5m, 1h; -1s is for ever)
    #[arg(long, value_name = "DURATION", allow_hyphen_values = true)]
    keepalive: Option<String>,
    /// Do not wrap words at the edge of the terminal
    #[arg(long)]
    nowordwrap: bool,
    /// Let a thinking model reason first: true, false, high, medium, low or max
    #[arg(long, value_name = "THINK", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    think: Option<String>,
    /// Embedding models: cut texts that do not fit the context (--truncate=false fails instead)
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    truncate: Option<bool>,
    /// Show timings after each answer
    #[arg(long)]
    verbose: bool,
}

/// Runs the command.
pub async fn run(client: &Client, arguments: Arguments) -> Result<()> {
    let (model, words) = usage::at_least_one(arguments.arguments.clone())?;
    let mut session = settle(&model, &arguments)?;
    client.check().await?;
    let interactive = words.is_empty() && stdin().is_terminal() && stdout().is_terminal();
    let prompt = if interactive {
        String::new()
    } else {
        prompt(words)?
    };
    let shown = session::fetched(client, &model, arguments.insecure).await?;
    if session::only_embeds(&shown) {
        return embed(client, &session, &arguments, prompt).await;
    }
    session.adopt(&model, &shown);
    if interactive {
        session.load(client).await?;
        return repl::run(client, session, &shown).await;
    }
    one_shot(client, &session, prompt).await
}

/// The session that the flags ask for.
fn settle(model: &str, arguments: &Arguments) -> Result<Session> {
    let think = arguments.think.as_deref().map(|text| {
        session::think(text).ok_or_else(|| {
            anyhow!(
                "invalid value for --think: {text:?} (must be true, false, high, medium, low, or max)"
            )
        })
    });
    let think: Option<Think> = think.transpose()?;
    Ok(Session {
        model: model.to_owned(),
        options: Object::new(),
        format: session::format(&arguments.format)?,
        keep_alive: arguments.keepalive.as_deref().map(keep_alive).transpose()?,
        think_chosen: think.is_some(),
        think,
        hide_thinking: arguments.hidethinking,
        word_wrap: !arguments.nowordwrap,
        verbose: arguments.verbose,
    })
}

/// What is piped in, then the words of the command line, with one blank between.
fn prompt(words: Vec<String>) -> Result<String> {
    let mut piped = String::new();
    if !stdin().is_terminal() {
        let read = stdin()
            .take(MAX_PROMPT_BYTES + 1)
            .read_to_string(&mut piped);
        read.context("cannot read the prompt from standard input")?;
        if piped.len() as u64 > MAX_PROMPT_BYTES {
            bail!("the prompt on standard input is longer than {MAX_PROMPT_BYTES} bytes");
        }
    }
    let parts = (!piped.is_empty()).then_some(piped).into_iter();
    Ok(parts.chain(words).collect::<Vec<_>>().join(" "))
}

/// A duration as the server takes it; bad text is refused here, before anything is asked.
fn keep_alive(text: &str) -> Result<Value> {
    parse_duration(text).map_err(anyhow::Error::msg)?;
    Ok(text.into())
}

/// Prints the vector of the text.
async fn embed(
    client: &Client,
    session: &Session,
    arguments: &Arguments,
    text: String,
) -> Result<()> {
    let model = &session.model;
    if text.is_empty() {
        bail!(
            "embedding models require input text. Usage: ollama-wgpu run {model} \"your text here\""
        );
    }
    let request = EmbedRequest {
        model: model.clone(),
        input: Some(text.into()),
        truncate: arguments.truncate,
        dimensions: arguments.dimensions,
        keep_alive: session.keep_alive.clone(),
        options: session.options.clone(),
    };
    let reply: EmbedReply = client.post("/api/embed", &request).await?;
    let vector = reply
        .embeddings
        .first()
        .context("the server sent no vector")?;
    print_line(&serde_json::to_string(vector)?)
}

async fn one_shot(client: &Client, session: &Session, prompt: String) -> Result<()> {
    if prompt.is_empty() {
        return session.load(client).await;
    }
    let request = GenerateRequest {
        model: session.model.clone(),
        prompt,
        format: session.format.clone(),
        keep_alive: session.keep_alive.clone(),
        options: session.options.clone(),
        think: session.think.clone(),
        ..Default::default()
    };
    let style = session.style();
    let answer = answer::stream::<GenerateReply>(client, "/api/generate", &request, style).await?;
    answer.end(session.verbose)
}
