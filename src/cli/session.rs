//! What `run` has settled before it asks: model, options, and how answers are shown.

use super::client::{Client, Error};
use super::print::Style;
use super::progress::Spinner;
use super::transfer;
use crate::api::{GenerateReply, GenerateRequest, Object, ShowReply, ShowRequest, Think};
use anyhow::{Result, bail};
use serde_json::Value;
use std::io::{IsTerminal, stdout};

/// Settings of one `run`, changed by `/set` while it lasts.
#[derive(Debug, Clone)]
pub struct Session {
    pub model: String,
    pub options: Object,
    pub format: Option<Value>,
    pub keep_alive: Option<Value>,
    pub think: Option<Think>,
    /// What the user said about thinking; without it, models that can think do.
    pub think_chosen: bool,
    pub hide_thinking: bool,
    pub word_wrap: bool,
    pub verbose: bool,
}

impl Session {
    /// How answers are shown now; the window may have changed since the last one.
    pub fn style(&self) -> Style {
        let terminal = stdout().is_terminal();
        let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Style {
            wrap: columns.filter(|&columns| terminal && self.word_wrap && columns > 0),
            terminal,
            hide_thinking: self.hide_thinking,
        }
    }

    /// Takes up the model that `shown` describes: thinking follows its ability unless the user chose.
    pub fn adopt(&mut self, model: &str, shown: &ShowReply) {
        model.clone_into(&mut self.model);
        if !self.think_chosen {
            self.think = can(shown, "thinking").then_some(Think::Switch(true));
        }
    }

    /// Has the server load the model.
    pub async fn load(&self, client: &Client) -> Result<()> {
        let _spinner = Spinner::start();
        let request = GenerateRequest {
            model: self.model.clone(),
            options: self.options.clone(),
            keep_alive: self.keep_alive.clone(),
            ..Default::default()
        };
        let mut replies = client
            .stream::<GenerateReply>("/api/generate", &request)
            .await?;
        while replies.next().await?.is_some() {}
        Ok(())
    }
}

/// What the server knows of `model`.
///
/// # Errors
/// The server's, that of a model it has not among them.
pub async fn look_up(client: &Client, model: &str) -> Result<ShowReply, Error> {
    let request = ShowRequest {
        model: model.to_owned(),
        ..Default::default()
    };
    client.post("/api/show", &request).await
}

/// As [`look_up`], of a model that the server pulls if it lacks it; with `insecure`, over plain http.
pub async fn fetched(client: &Client, model: &str, insecure: bool) -> Result<ShowReply> {
    match look_up(client, model).await {
        Err(error) if error.is_not_found() => {
            transfer::fetch(client, model, insecure).await?;
            Ok(look_up(client, model).await?)
        }
        shown => Ok(shown?),
    }
}

/// Whether the model embeds texts and writes none.
pub fn only_embeds(model: &ShowReply) -> bool {
    can(model, "embedding") && !can(model, "completion")
}

/// Has the model the capability?
pub fn can(model: &ShowReply, capability: &str) -> bool {
    model.capabilities.iter().any(|c| c == capability)
}

/// Reads the value of `--think` and `/set think`.
pub fn think(text: &str) -> Option<Think> {
    match text {
        "true" | "" => Some(Think::Switch(true)),
        "false" => Some(Think::Switch(false)),
        "high" | "medium" | "low" | "max" => Some(Think::Level(text.to_owned())),
        _ => None,
    }
}

/// Reads the value of `--format`: `json`, or a JSON Schema.
pub fn format(text: &str) -> Result<Option<Value>> {
    if text.is_empty() {
        return Ok(None);
    }
    if text == "json" {
        return Ok(Some("json".into()));
    }
    match serde_json::from_str(text) {
        Ok(schema @ Value::Object(_)) => Ok(Some(schema)),
        _ => bail!("invalid value for --format: {text:?} (must be \"json\" or a JSON Schema)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn think_values() {
        assert_eq!(think("true"), Some(Think::Switch(true)));
        assert_eq!(think("false"), Some(Think::Switch(false)));
        assert_eq!(think("high"), Some(Think::Level("high".into())));
        assert_eq!(think("loud"), None);
    }

    #[test]
    fn format_values() {
        assert_eq!(format("").unwrap(), None);
        assert_eq!(format("json").unwrap(), Some(json!("json")));
        let schema = json!({"type": "object"});
        assert_eq!(format(&schema.to_string()).unwrap(), Some(schema));
        let refusal = format("yaml").unwrap_err().to_string();
        assert!(refusal.contains("\"yaml\""), "{refusal}");
    }
}
