//! Progress on stderr: a moving line on a terminal, each status once elsewhere.

use super::tell;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};
use std::time::Duration;

const TICK: Duration = Duration::from_millis(100);
const TICKS: &[&str] = &["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏", " "];

/// A spinner without text, gone when dropped; nothing where stderr is no terminal.
pub struct Spinner(ProgressBar);

impl Spinner {
    pub fn start() -> Spinner {
        let bar = ProgressBar::new_spinner();
        bar.set_style(spinner("{spinner}"));
        bar.enable_steady_tick(TICK);
        Spinner(bar)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn spinner(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is a constant")
        .tick_strings(TICKS)
}

/// The statuses of a long job, one after another.
pub struct Steps {
    terminal: bool,
    status: String,
    bar: Option<ProgressBar>,
}

impl Steps {
    pub fn new() -> Steps {
        Steps {
            terminal: stderr().is_terminal(),
            status: String::new(),
            bar: None,
        }
    }

    /// Shows `status`, unless it is the one being shown.
    pub fn step(&mut self, status: &str) {
        if self.begin(status) {
            if self.terminal {
                let bar = ProgressBar::new_spinner();
                bar.set_style(spinner("{msg} {spinner}"));
                bar.set_message(status.to_owned());
                bar.enable_steady_tick(TICK);
                self.bar = Some(bar);
            } else {
                tell(status);
            }
        }
    }

    /// Shows how many of `total` bytes of `status` are done. Elsewhere than on a terminal, only the end is told.
    pub fn bytes(&mut self, status: &str, completed: u64, total: u64) {
        if self.begin(status) && self.terminal {
            let bar = ProgressBar::new(total);
            bar.set_style(
                ProgressStyle::with_template(
                    "{wide_msg} {percent:>3}% ▕{bar:25}▏ {decimal_bytes:>10} {decimal_bytes_per_sec:>12} {eta:>4}",
                )
                .expect("the template is a constant")
                .progress_chars("█▉▊▋▌▍▎▏ "),
            );
            bar.set_message(status.to_owned());
            self.bar = Some(bar);
        }
        match &self.bar {
            Some(bar) => bar.set_position(completed),
            None if completed == total => tell(&format!("{status} 100%")),
            None => {}
        }
    }

    /// Leaves the status before as a finished line; false if `status` is still the same.
    fn begin(&mut self, status: &str) -> bool {
        if self.status == status {
            return false;
        }
        self.finish();
        status.clone_into(&mut self.status);
        true
    }

    /// Leaves the last status as a finished line.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.finish();
    }
}
