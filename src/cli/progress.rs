//! Progress on stderr: a moving line on a terminal, each status once elsewhere.

use super::client::Client;
use super::tell;
use crate::api::Progress;
use anyhow::Result;
use indicatif::{
    DecimalBytes, HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle,
};
use serde::Serialize;
use std::fmt::Write;
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

/// A bar that begins at the bytes that are there: as those of a pull that is taken up again, they are no speed.
fn bar(status: &str, completed: u64, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{wide_msg} {percent:>3}% ▕{bar:20}▏ {decimal_bytes:>9} {pace:>15}",
    );
    let style = style.expect("the template is a constant");
    // They are counted before anything is drawn.
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ ").with_key("pace", pace));
    bar.set_message(status.to_owned());
    bar.set_position(completed);
    bar.reset_eta();
    bar.set_draw_target(ProgressDrawTarget::stderr());
    bar
}

/// Bytes a second and the time left, while bytes come.
fn pace(state: &ProgressState, out: &mut dyn Write) {
    let speed = state.per_sec();
    if !state.is_finished() && speed >= 1.0 {
        let (speed, left) = (DecimalBytes(speed as u64), HumanDuration(state.eta()));
        write!(out, "{speed}/s {left:#}").ok();
    }
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

    /// Sends a request and shows the steps of its answer to the end.
    ///
    /// # Errors
    /// The server's.
    pub async fn follow(
        &mut self,
        client: &Client,
        path: &str,
        request: &impl Serialize,
    ) -> Result<()> {
        let mut replies = client.stream::<Progress>(path, request).await?;
        while let Some(progress) = replies.next().await? {
            if progress.total > 0 {
                self.bytes(&progress.status, progress.completed, progress.total);
            } else {
                self.step(&progress.status);
            }
        }
        Ok(())
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
            self.bar = Some(bar(status, completed, total));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_were_there_are_no_speed() {
        const WAIT: Duration = Duration::from_millis(50);
        let mut steps = Steps::new();
        steps.terminal = true;
        steps.bytes("pulling a", 900_000_000, 1_000_000_000);
        let bar = steps.bar.clone().expect("a bar");
        assert_eq!((bar.position(), bar.per_sec()), (900_000_000, 0.0));
        std::thread::sleep(WAIT);
        steps.bytes("pulling a", 901_000_000, 1_000_000_000);
        let most = 1.5 * 1e6 / WAIT.as_secs_f64();
        let speed = bar.per_sec();
        assert!(speed > 0.0 && speed < most, "{speed}");
        assert!(bar.eta().as_secs_f64() > 99e6 / most, "{:?}", bar.eta());
        steps.finish();
        assert_eq!(bar.position(), 901_000_000);
    }
}
