//! The interactive prompt: turns of a conversation, and the commands that begin with a slash.

use super::answer;
use super::client::{Client, Error};
use super::editor::{Input, LineEditor};
use super::session::Session;
use super::slash::{self, Outcome};
use super::{print, print_line, tell, whole};
use crate::api::{ChatReply, ChatRequest, Message, ShowReply};
use crate::settings;
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";

/// The interactive prompt's state.
pub struct Repl<'a> {
    pub client: &'a Client,
    pub session: Session,
    /// The conversation so far, system message included; the server is told all of it every time.
    pub messages: Vec<Message>,
    pub history: Option<PathBuf>,
}

/// Reads and answers until the user leaves.
pub async fn run(client: &Client, session: Session, shown: &ShowReply) -> Result<()> {
    let history = history_file().filter(|_| !settings::is_on("OLLAMA_NOHISTORY"));
    let mut editor = LineEditor::new(history.clone())?;
    let mut repl = Repl {
        client,
        session,
        messages: Vec::new(),
        history,
    };
    for message in &shown.messages {
        replay(message)?;
    }
    loop {
        let (read, returned) = read_message(editor).await?;
        editor = returned;
        let Some(text) = read else { return Ok(()) };
        if text.trim().is_empty() {
            continue;
        }
        if let Err(error) = editor.remember(&text) {
            tell(&whole(&error));
        }
        match slash::command(&mut repl, &text).await? {
            Outcome::Quit => return Ok(()),
            Outcome::Done => editor.keep_history(repl.history.clone()),
            Outcome::NotACommand => repl.say(text).await?,
        }
    }
}

/// One message, or `None` when the user leaves. Lines between `"""` belong to one message.
async fn read_message(mut editor: LineEditor) -> Result<(Option<String>, LineEditor)> {
    let mut open: Option<String> = None;
    loop {
        let (prompt, placeholder) = match open {
            None => (">>> ", "Send a message (/? for help)"),
            Some(_) => ("... ", "Use \"\"\" to end the message"),
        };
        let (input, returned) = tokio::task::spawn_blocking(move || {
            let input = editor.read(prompt, placeholder);
            (input, editor)
        })
        .await
        .context("the line editor failed")?;
        editor = returned;
        match input? {
            Input::End => return Ok((None, editor)),
            Input::Interrupted { was_empty } => {
                if was_empty {
                    print_line("Use Ctrl + d or /bye to exit.")?;
                }
                open = None;
            }
            Input::Line(line) => match join(open, line) {
                Joined::Whole(text) => return Ok((Some(text), editor)),
                Joined::Open(text) => open = Some(text),
            },
        }
    }
}

/// A message as far as it was typed.
#[derive(Debug, PartialEq, Eq)]
enum Joined {
    Whole(String),
    /// Without the closing quotes yet.
    Open(String),
}

/// Adds `line` to an open message, or starts one. Quotes that follow a command's words stay, for the command.
fn join(open: Option<String>, line: String) -> Joined {
    let Some(mut text) = open else {
        return start(line);
    };
    text.push('\n');
    text += &line;
    match text.strip_suffix(QUOTES) {
        Some(body) if body.starts_with(QUOTES) => Joined::Whole(body[QUOTES.len()..].to_owned()),
        Some(_) => Joined::Whole(text),
        None => Joined::Open(text),
    }
}

fn start(line: String) -> Joined {
    if let Some(rest) = line.strip_prefix(QUOTES) {
        return match rest.strip_suffix(QUOTES) {
            Some(body) => Joined::Whole(body.to_owned()),
            None => Joined::Open(line),
        };
    }
    let quotes = line.matches(QUOTES).count();
    if line.starts_with("/set system") && quotes == 1 {
        Joined::Open(line)
    } else {
        Joined::Whole(line)
    }
}

impl Repl<'_> {
    /// Sends the conversation with `text` as its next message, and keeps the answer. A refusal is shown and the
    /// message forgotten; without a server there is nothing to go on with.
    async fn say(&mut self, text: String) -> Result<()> {
        self.messages.push(message("user", text));
        let request = ChatRequest {
            model: self.session.model.clone(),
            messages: self.messages.clone(),
            format: self.session.format.clone(),
            keep_alive: self.session.keep_alive.clone(),
            options: self.session.options.clone(),
            think: self.session.think.clone(),
            ..Default::default()
        };
        let style = self.session.style();
        match answer::stream::<ChatReply>(self.client, "/api/chat", &request, style).await {
            Ok(answer) => {
                answer.end(self.session.verbose)?;
                self.messages.push(Message {
                    thinking: answer.thinking,
                    ..message("assistant", answer.content)
                });
            }
            Err(error) if is_answered(&error) => {
                tell(&format!("Error: {}\n", whole(&error)));
                self.messages.pop();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

/// Is the server still there to go on with?
pub fn is_answered(error: &anyhow::Error) -> bool {
    match error.downcast_ref() {
        Some(Error::Refused { .. } | Error::Broken(_)) => true,
        Some(_) => false,
        None => !error.is::<std::io::Error>(),
    }
}

pub fn message(role: &str, content: String) -> Message {
    Message {
        role: role.to_owned(),
        content,
        ..Default::default()
    }
}

/// Shows a message that is stored in the model as if it had been said.
fn replay(message: &Message) -> Result<()> {
    match message.role.as_str() {
        "user" => print(&format!(">>> {}\n", message.content)),
        "assistant" => print(&format!("{}\n\n", message.content)),
        _ => Ok(()),
    }
}

/// Where the history lies, beside Ollama's own files.
pub fn history_file() -> Option<PathBuf> {
    std::env::home_dir().map(|home| home.join(".ollama").join("history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(lines: &[&str]) -> Option<String> {
        let mut open = None;
        for line in lines {
            match join(open.take(), (*line).to_owned()) {
                Joined::Whole(text) => return Some(text),
                Joined::Open(text) => open = Some(text),
            }
        }
        None
    }

    #[test]
    fn quotes_hold_lines_together() {
        for (lines, text) in [
            (&["hello"][..], Some("hello")),
            (&["\"\"\"one\"\"\""], Some("one")),
            (&["\"\"\"one", "two\"\"\""], Some("one\ntwo")),
            (&["\"\"\"", "one", "\"\"\""], Some("\none\n")),
            (&["\"\"\"one", "two"], None),
            (&["say \"\"\" now"], Some("say \"\"\" now")),
            (
                &["/set system \"\"\"one", "two\"\"\""],
                Some("/set system \"\"\"one\ntwo\"\"\""),
            ),
        ] {
            assert_eq!(joined(lines).as_deref(), text, "{lines:?}");
        }
    }
}
