//! The server's log on stderr: one line an event, whatever clients put into it, and not more lines than a disk can bear.

use super::tell;
use crate::settings::LogLevel;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::{self, IsTerminal, Stderr, Write, stderr};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use tracing::Metadata;
use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{self, Writer};

/// Lines in each [`WINDOW`]; more are counted, not written.
const MAX_LINES: u32 = 500;
const WINDOW: Duration = Duration::from_secs(1);

/// Writes what this process logs to stderr from here on, panics too.
pub fn to_stderr(level: LogLevel) {
    let name = match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    };
    // Libraries speak up when something is wrong; wgpu and hyper would drown our own lines otherwise.
    let filter = format!("warn,wgpu_hal=error,ollama_wgpu={name}");
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Lines::new(MAX_LINES))
        .with_ansi(stderr().is_terminal())
        .with_target(false)
        .fmt_fields(format::debug_fn(field).delimited(" "))
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let thread = thread::current();
        tracing::error!("thread {:?} {panic}", thread.name().unwrap_or_default());
        // Names of functions alone, where `RUST_BACKTRACE` asks for them.
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            tell(&backtrace.to_string());
        }
    }));
}

/// A field of an event: nothing in it can end the line or speak to a terminal.
fn field(writer: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug) -> fmt::Result {
    let text = match field.name() {
        "message" => format!("{value:?}"),
        name => format!("{name}={value:?}"),
    };
    for c in text.chars() {
        match c {
            '\n' => writer.write_str("\\n")?,
            // Separators of lines and paragraphs, and what changes the direction of a text.
            c if c.is_control()
                || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
            {
                write!(writer, "{}", c.escape_default())?;
            }
            c => writer.write_char(c)?,
        }
    }
    Ok(())
}

/// Stderr for so many lines a second.
struct Lines {
    most: u32,
    window: Mutex<Window>,
}

struct Window {
    begun: Instant,
    n_lines: u32,
}

impl Lines {
    fn new(most: u32) -> Lines {
        Lines {
            most,
            window: Mutex::new(Window {
                begun: Instant::now(),
                n_lines: 0,
            }),
        }
    }

    /// Counts a line. Whether it is written, and how many of the window before were not.
    fn admit(&self) -> (bool, u32) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let mut n_left_out = 0;
        if window.begun.elapsed() >= WINDOW {
            n_left_out = window.n_lines.saturating_sub(self.most);
            *window = Window {
                begun: Instant::now(),
                n_lines: 0,
            };
        }
        window.n_lines = window.n_lines.saturating_add(1);
        (window.n_lines <= self.most, n_left_out)
    }
}

/// Where a line goes.
enum Sink {
    Stderr(Stderr),
    Nowhere,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Sink;

    fn make_writer(&'a self) -> Sink {
        let (is_written, n_left_out) = self.admit();
        if n_left_out > 0 {
            let most = self.most;
            tell(&format!(
                "{n_left_out} more lines than {most} in a second were left out"
            ));
        }
        match is_written {
            true => Sink::Stderr(stderr()),
            false => Sink::Nowhere,
        }
    }

    fn make_writer_for(&'a self, _: &Metadata<'_>) -> Sink {
        self.make_writer()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // A server outlives its log: the subscriber would panic over an error.
            Sink::Stderr(stderr) => stderr.write_all(bytes).ok(),
            Sink::Nowhere => None,
        };
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    /// What is logged, in memory.
    #[derive(Clone, Default)]
    struct Memory(Arc<Mutex<Vec<u8>>>);

    impl Write for Memory {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_of_plain_text() {
        let memory = Memory::default();
        let sink = memory.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || sink.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .fmt_fields(format::debug_fn(field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let forged = "a\n2026-01-01 ERROR b\r\x1b[2J\u{9b}K\u{2028}\u{202e}c\u{0}";
            tracing::warn!(name = forged, "not a model: {forged}");
            tracing::info!("grüße 世界");
        });
        let text = String::from_utf8(memory.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(
            !text.replace('\n', "").chars().any(char::is_control),
            "{text:?}"
        );
        assert!(lines[0].contains(
            r"not a model: a\n2026-01-01 ERROR b\r\u{1b}[2J\u{9b}K\u{2028}\u{202e}c\u{0}"
        ));
        assert!(lines[0].contains("name="), "{text}");
        assert_eq!(lines[1].trim(), "INFO grüße 世界");
    }

    #[test]
    fn a_flood_is_counted_and_told() {
        let lines = Lines::new(3);
        let admitted: Vec<_> = (0..5).map(|_| lines.admit()).collect();
        let written = admitted
            .iter()
            .filter(|(is_written, _)| *is_written)
            .count();
        assert_eq!((written, admitted[4].1), (3, 0));
        lines.window.lock().unwrap().begun -= WINDOW;
        assert_eq!(lines.admit(), (true, 2));
        assert_eq!(lines.admit(), (true, 0));
    }
}
