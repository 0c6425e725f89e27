//! Ctrl-G: a message written in an editor of the user's choice.

use crate::settings;
use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::process::Command;

/// Where users name their editor, the first that is set.
const VARIABLES: [&str; 3] = ["OLLAMA_EDITOR", "VISUAL", "EDITOR"];
/// Longest message that is read back; no context window holds more.
const MAX_BYTES: u64 = 64 << 20;

/// `text` as the user has it after editing, without the line feeds at its end. Waits for the editor.
///
/// # Errors
/// Names the editor that cannot be run or that failed.
pub fn edited(text: &str) -> Result<String> {
    let set = VARIABLES.into_iter().find_map(settings::variable);
    let command = set.unwrap_or_else(|| "vi".to_owned());
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or("vi");
    // Prompts can be private: the file is the user's alone.
    let mut file = tempfile::Builder::new()
        .prefix("ollama-wgpu-")
        .suffix(".txt")
        .tempfile()
        .context("cannot make a file for the editor")?;
    file.write_all(text.as_bytes())?;
    let ended = Command::new(program).args(words).arg(file.path()).status();
    let ended = ended.with_context(|| {
        format!("cannot run the editor {program:?}; set OLLAMA_EDITOR to another one")
    })?;
    if !ended.success() {
        bail!("the editor {program:?} failed: {ended}");
    }
    // Some editors write a new file over the old one's name.
    let mut written = String::new();
    let opened = std::fs::File::open(file.path()).context("cannot read what was edited")?;
    opened
        .take(MAX_BYTES)
        .read_to_string(&mut written)
        .context("cannot read what was edited")?;
    Ok(written.trim_end_matches(['\n', '\r']).to_owned())
}
