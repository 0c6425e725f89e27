//! One answer of the model, streamed from the server to the terminal.

use super::client::Client;
use super::format;
use super::print::{Printer, Style};
use super::progress::Spinner;
use super::{UNWRITTEN, print};
use crate::api::{ChatReply, GenerateReply, ToolCall};
use anyhow::{Context as _, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt::Write as _;
use std::io::{self, Write as _};

/// What `generate` and `chat` have in common in one object of their streams.
pub struct Piece {
    content: String,
    thinking: String,
    tool_calls: Vec<ToolCall>,
    timings: Timings,
}

/// Durations in nanoseconds and counts in tokens; zero where the server gave none.
#[derive(Debug, Default)]
struct Timings {
    total: u64,
    load: u64,
    prompt_count: u64,
    prompt: u64,
    eval_count: u64,
    eval: u64,
}

impl From<GenerateReply> for Piece {
    fn from(reply: GenerateReply) -> Piece {
        Piece {
            content: reply.response,
            thinking: reply.thinking,
            tool_calls: reply.tool_calls,
            timings: Timings {
                total: reply.total_duration,
                load: reply.load_duration,
                prompt_count: reply.prompt_eval_count,
                prompt: reply.prompt_eval_duration,
                eval_count: reply.eval_count,
                eval: reply.eval_duration,
            },
        }
    }
}

impl From<ChatReply> for Piece {
    fn from(reply: ChatReply) -> Piece {
        Piece {
            content: reply.message.content,
            thinking: reply.message.thinking,
            tool_calls: reply.message.tool_calls,
            timings: Timings {
                total: reply.total_duration,
                load: reply.load_duration,
                prompt_count: reply.prompt_eval_count,
                prompt: reply.prompt_eval_duration,
                eval_count: reply.eval_count,
                eval: reply.eval_duration,
            },
        }
    }
}

/// An answer as it was when it ended, or when the user stopped it.
#[derive(Debug, Default)]
pub struct Answer {
    pub content: String,
    pub thinking: String,
    pub interrupted: bool,
    timings: Timings,
}

impl Answer {
    fn add(&mut self, piece: Piece) {
        self.content += &piece.content;
        self.thinking += &piece.thinking;
        self.timings = piece.timings;
    }

    /// What follows the answer on the terminal: an empty line, and the timings where they are wanted.
    ///
    /// # Errors
    /// That of stdout.
    pub fn end(&self, verbose: bool) -> Result<()> {
        print("\n\n")?;
        if verbose {
            // Nobody is left to be told if that is gone.
            io::stderr().write_all(self.timings().as_bytes()).ok();
        }
        Ok(())
    }

    /// The lines that `--verbose` prints; figures that the server did not give are left out.
    fn timings(&self) -> String {
        let mut text = String::new();
        let mut line = |label: &str, value: String| {
            writeln!(text, "{label:<21} {value}").expect("writing to a string cannot fail");
        };
        let timings = &self.timings;
        let mut duration = |label: &str, nanos: u64| {
            if nanos > 0 {
                line(label, format::duration(nanos));
            }
        };
        duration("total duration:", timings.total);
        duration("load duration:", timings.load);
        for (label, count, nanos) in [
            ("prompt eval", timings.prompt_count, timings.prompt),
            ("eval", timings.eval_count, timings.eval),
        ] {
            if count > 0 {
                line(&format!("{label} count:"), format!("{count} token(s)"));
            }
            if nanos > 0 {
                let rate = count as f64 / (nanos as f64 / 1e9);
                line(&format!("{label} duration:"), format::duration(nanos));
                line(&format!("{label} rate:"), format!("{rate:.2} tokens/s"));
            }
        }
        text
    }
}

/// Sends `body` and prints the answer as it comes. Ctrl-C ends the answer, not the program; hanging up makes the
/// server stop as well.
pub async fn stream<T>(
    client: &Client,
    path: &str,
    body: &impl Serialize,
    style: Style,
) -> Result<Answer>
where
    T: DeserializeOwned + Into<Piece>,
{
    let mut answer = Answer::default();
    let mut printer = Printer::new(io::stdout(), style);
    let spinner = Spinner::start();
    let finished = tokio::select! {
        finished = receive::<T>(client, path, body, &mut printer, &mut answer, spinner) => Some(finished),
        _ = tokio::signal::ctrl_c() => None,
    };
    printer.end_thinking().context(UNWRITTEN)?;
    if matches!(finished, Some(Err(_))) && style.terminal && !answer.content.is_empty() {
        // What is said of the error begins a line.
        printer.content("\n").context(UNWRITTEN)?;
    }
    answer.interrupted = finished.is_none();
    finished.unwrap_or(Ok(())).map(|()| answer)
}

async fn receive<T>(
    client: &Client,
    path: &str,
    body: &impl Serialize,
    printer: &mut Printer<io::Stdout>,
    answer: &mut Answer,
    spinner: Spinner,
) -> Result<()>
where
    T: DeserializeOwned + Into<Piece>,
{
    let mut spinner = Some(spinner);
    let mut replies = client.stream::<T>(path, body).await?;
    while let Some(reply) = replies.next().await? {
        let piece = reply.into();
        spinner.take();
        printer.thinking(&piece.thinking).context(UNWRITTEN)?;
        printer.content(&piece.content).context(UNWRITTEN)?;
        for call in &piece.tool_calls {
            printer.content(&refused_call(call)).context(UNWRITTEN)?;
        }
        answer.add(piece);
    }
    Ok(())
}

/// What is shown of a tool call: this command line has no tools to run.
fn refused_call(call: &ToolCall) -> String {
    let arguments = serde_json::Value::Object(call.function.arguments.clone());
    format!(
        "Model called a non-existent function '{}()' with arguments: {arguments}\n\n",
        call.function.name
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timings_are_aligned_and_complete() {
        let mut answer = Answer::default();
        answer.add(Piece::from(GenerateReply {
            total_duration: 106_535_388,
            load_duration: 689_597,
            prompt_eval_count: 21,
            prompt_eval_duration: 71_213_000,
            eval_count: 3,
            eval_duration: 32_016_000,
            ..Default::default()
        }));
        assert_eq!(
            answer.timings(),
            "total duration:       106.535388ms\n\
             load duration:        689.597µs\n\
             prompt eval count:    21 token(s)\n\
             prompt eval duration: 71.213ms\n\
             prompt eval rate:     294.89 tokens/s\n\
             eval count:           3 token(s)\n\
             eval duration:        32.016ms\n\
             eval rate:            93.70 tokens/s\n"
        );
        assert_eq!(Answer::default().timings(), "");
    }
}
