//! A peer as a command: run between two halves of our own runs, so that both see the same machine.

use std::path::Path;
use std::process::Command;

use serde_json::{Map, Value};

/// What a peer's command printed last.
pub struct Figures(Map<String, Value>);

impl Figures {
    /// The number whose name ends so.
    ///
    /// # Panics
    /// If there is none.
    pub fn number(&self, name: &str) -> f64 {
        let field = self.0.iter().find(|(key, _)| key.ends_with(name));
        field.and_then(|(_, value)| value.as_f64()).expect(name)
    }
}

/// Runs a command in `sh` with `MODEL` and some numbers set, and reads the JSON object at its end.
///
/// # Panics
/// If there is no such object.
pub fn run(command: &str, model: &Path, numbers: &[(&str, usize)]) -> Figures {
    let numbers = numbers.iter().map(|(name, n)| (name, n.to_string()));
    let output = Command::new("sh")
        .args(["-c", command])
        .env("MODEL", model)
        .envs(numbers)
        .output()
        .expect("sh runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_default();
    let fields = serde_json::from_str(last)
        .unwrap_or_else(|e| panic!("{e} in the peer's last line {last:?} ({})", output.status));
    Figures(fields)
}

/// The middle of some measurements.
pub fn median(times: impl Iterator<Item = f64>) -> f64 {
    let mut times: Vec<f64> = times.collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
