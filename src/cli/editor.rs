//! The line editor of the interactive prompt, with the history of earlier sessions.

use super::{compose, tell, whole};
use anyhow::{Context as _, Result};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::{Hint, Hinter};
use rustyline::history::{History as _, MemHistory, SearchDirection};
use rustyline::validate::Validator;
use rustyline::{
    Cmd, ConditionalEventHandler, Config, Context, Editor, Event, EventContext, EventHandler,
    Helper, KeyEvent, RepeatCount,
};
use std::borrow::Cow;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Lines kept from session to session.
const MAX_HISTORY: usize = 100;

/// What the user did at a prompt.
pub enum Input {
    Line(String),
    /// Ctrl-C on an empty line, or on one that has been begun and is forgotten.
    Interrupted {
        was_empty: bool,
    },
    /// Ctrl-D on an empty line, or the end of the input.
    End,
}

/// Reads lines with editing keys; the up and down keys recall earlier ones.
pub struct LineEditor {
    editor: Editor<Placeholder, MemHistory>,
    /// For as long as lines are read.
    typed_ahead: Option<terminal::TypedAhead>,
    keys: Keys,
    /// Where the history is kept; `None` when it is not.
    file: Option<PathBuf>,
}

impl LineEditor {
    /// An editor whose history lies in `file`, if any. A history that cannot be read is an empty one.
    pub fn new(file: Option<PathBuf>) -> Result<LineEditor> {
        let config = Config::builder()
            .max_history_size(MAX_HISTORY)?
            .auto_add_history(false)
            .build();
        let history = MemHistory::with_config(&config);
        let mut editor =
            Editor::with_history(config, history).context("cannot use the terminal")?;
        editor.set_helper(Some(Placeholder("")));
        editor.bind_sequence(KeyEvent::ctrl('J'), Cmd::Newline);
        let keys = Keys::default();
        for (key, handler) in [
            ('C', EventHandler::Conditional(Box::new(Stop(keys.clone())))),
            (
                'G',
                EventHandler::Conditional(Box::new(Compose(keys.clone()))),
            ),
        ] {
            editor.bind_sequence(KeyEvent::ctrl(key), handler);
        }
        let text = file.as_deref().map(fs::read_to_string);
        for line in text.and_then(Result::ok).unwrap_or_default().lines() {
            editor.add_history_entry(line)?;
        }
        Ok(LineEditor {
            editor,
            typed_ahead: terminal::TypedAhead::kept(),
            keys,
            file,
        })
    }

    /// Waits for a line; `placeholder` stands there while nothing is typed. Blocks the thread.
    pub fn read(&mut self, prompt: &str, placeholder: &'static str) -> Result<Input> {
        self.editor.set_helper(Some(Placeholder(placeholder)));
        let mut begun = String::new();
        loop {
            match self.editor.readline_with_initial(prompt, (&begun, "")) {
                Ok(line) if self.keys.compose.swap(false, Ordering::Relaxed) => {
                    begun = self.compose(line);
                }
                Ok(line) => return Ok(Input::Line(line)),
                Err(ReadlineError::Interrupted) => {
                    let was_empty = self.keys.was_empty.load(Ordering::Relaxed);
                    return Ok(Input::Interrupted { was_empty });
                }
                Err(ReadlineError::Eof) => return Ok(Input::End),
                Err(error) => return Err(error).context("cannot read from the terminal"),
            }
        }
    }

    /// The line as the user's editor leaves it; as it was where that fails.
    fn compose(&mut self, line: String) -> String {
        // The editor finds the terminal as the shell left it.
        self.typed_ahead = None;
        let edited = compose::edited(&line);
        self.typed_ahead = terminal::TypedAhead::kept();
        edited.unwrap_or_else(|error| {
            tell(&format!("Error: {}", whole(&error)));
            line
        })
    }

    /// Adds what was typed to the history, and to its file where one is kept.
    pub fn remember(&mut self, line: &str) -> Result<()> {
        for line in line.lines().filter(|line| !line.trim().is_empty()) {
            self.editor.add_history_entry(line)?;
        }
        match &self.file {
            Some(file) => save(self.editor.history(), file)
                .with_context(|| format!("cannot save the prompt history to {}", file.display())),
            None => Ok(()),
        }
    }

    /// From now on, keeps the history in `file`, or only in memory.
    pub fn keep_history(&mut self, file: Option<PathBuf>) {
        self.file = file;
    }
}

/// What keys have done to the line that is read.
#[derive(Clone, Default)]
struct Keys {
    /// Ctrl-G: it goes on in an editor.
    compose: Arc<AtomicBool>,
    /// Ctrl-C came before anything was typed.
    was_empty: Arc<AtomicBool>,
}

struct Compose(Keys);

impl ConditionalEventHandler for Compose {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext) -> Option<Cmd> {
        self.0.compose.store(true, Ordering::Relaxed);
        Some(Cmd::AcceptLine)
    }
}

struct Stop(Keys);

impl ConditionalEventHandler for Stop {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, line: &EventContext) -> Option<Cmd> {
        let is_empty = line.line().is_empty();
        self.0.was_empty.store(is_empty, Ordering::Relaxed);
        Some(Cmd::Interrupt)
    }
}

/// The terminal between two lines, while an answer is written.
#[cfg(unix)]
mod terminal {
    use nix::sys::termios::{InputFlags, LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
    use std::io::stdin;

    /// What is typed ahead waits unseen and as it was typed: in the usual mode the terminal would make line feeds of the ends of
    /// lines, which the editor takes for Ctrl-J. Dropping it brings the usual mode back.
    pub struct TypedAhead {
        usual: Termios,
    }

    impl TypedAhead {
        /// `None` where the input is no terminal.
        pub fn kept() -> Option<TypedAhead> {
            let usual = tcgetattr(stdin()).ok()?;
            let mut waiting = usual.clone();
            waiting.input_flags.remove(InputFlags::ICRNL);
            waiting
                .local_flags
                .remove(LocalFlags::ICANON | LocalFlags::ECHO);
            tcsetattr(stdin(), SetArg::TCSANOW, &waiting).ok()?;
            Some(TypedAhead { usual })
        }
    }

    impl Drop for TypedAhead {
        fn drop(&mut self) {
            // A terminal that is gone needs no mode.
            tcsetattr(stdin(), SetArg::TCSANOW, &self.usual).ok();
        }
    }
}

#[cfg(not(unix))]
mod terminal {
    /// The console keeps what is typed ahead by itself.
    pub struct TypedAhead;

    impl TypedAhead {
        pub fn kept() -> Option<TypedAhead> {
            None
        }
    }
}

/// Prompts can be private: the file is the user's alone.
fn save(history: &MemHistory, file: &Path) -> Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    for index in 0..history.len() {
        if let Some(line) = history.get(index, SearchDirection::Forward)? {
            writeln!(new, "{}", line.entry)?;
        }
    }
    new.persist(file)?;
    Ok(())
}

/// The grey text on an empty line.
struct Placeholder(&'static str);

struct Grey(&'static str);

impl Hint for Grey {
    fn display(&self) -> &str {
        self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Helper for Placeholder {}
impl Validator for Placeholder {}

impl Completer for Placeholder {
    type Candidate = String;
}

impl Hinter for Placeholder {
    type Hint = Grey;

    fn hint(&self, line: &str, _pos: usize, _context: &Context<'_>) -> Option<Grey> {
        line.is_empty().then_some(Grey(self.0))
    }
}

impl Highlighter for Placeholder {
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[90m{hint}\x1b[0m"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_survives_and_stays_short() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("deep/history");
        let mut editor = LineEditor::new(Some(file.clone())).unwrap();
        for n in 0..120 {
            editor.remember(&format!("first {n}\nsecond {n}")).unwrap();
        }
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(text.lines().count(), MAX_HISTORY);
        assert_eq!(text.lines().last(), Some("second 119"));
        let editor = LineEditor::new(Some(file)).unwrap();
        assert_eq!(editor.editor.history().len(), MAX_HISTORY);
    }
}
