//! A recorded case: what to prepare, what to ask, what came back.

use crate::client::{self, Answer};
use crate::compare::Comparison;
use crate::models;
use crate::server::Server;
use serde_json::Value;

/// Endpoints of later versions; they answer 501 and say what is missing.
const LATER: [&str; 1] = ["/v1/audio/transcriptions"];

pub struct Case {
    pub name: String,
    pub server: String,
    setup: Vec<Value>,
    request: Value,
    /// The whole record; pointers of `variable` and `informative` start at its root.
    record: Value,
}

/// The endpoint of a later version that a request asks for.
fn later_endpoint(request: &Value) -> Option<&'static str> {
    let path = request["path"].as_str().unwrap_or_default();
    let is_asked = |later: &&&str| path == **later || path.starts_with(&format!("{later}/"));
    LATER.iter().find(is_asked).copied()
}

/// All cases in their recorded order.
pub fn read() -> Vec<Case> {
    let text = std::fs::read_to_string(golden("transcripts.jsonl"))
        .expect("the transcripts are part of the repository");
    text.lines()
        .map(|line| Case::new(serde_json::from_str(line).expect("one JSON object a line")))
        .collect()
}

fn golden(name: &str) -> String {
    format!(
        "{}/kernels-tests/golden/ollama/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

impl Case {
    fn new(record: Value) -> Case {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        Case {
            name: text("name"),
            server: text("server"),
            setup: record["setup_requests"]
                .as_array()
                .cloned()
                .unwrap_or_default(),
            request: record["request"].clone(),
            record,
        }
    }

    /// Does the environment ask for this case?
    pub fn is_wanted(&self) -> bool {
        std::env::var("REPLAY").map_or(true, |part| self.name.contains(&part))
    }

    /// Why the case cannot be replayed, if so.
    pub fn left_out(&self) -> Option<String> {
        if self.record["manual"] == true {
            return Some("needs a second client at the same time".into());
        }
        let endpoint = later_endpoint(&self.request)?;
        Some(format!("endpoint of a later version: {endpoint}"))
    }

    /// Prepares, asks, compares; the differences found.
    pub async fn replay(&self, server: &Server) -> Vec<String> {
        for step in &self.setup {
            if let Err(problem) = self.prepare(server, step).await {
                return vec![format!("preparation failed: {problem}")];
            }
        }
        match client::send(server, &self.request).await {
            Ok(answer) => self.compare(server, &answer),
            Err(problem) => vec![format!("no answer: {problem}")],
        }
    }

    async fn prepare(&self, server: &Server, step: &Value) -> Result<(), String> {
        // What this version cannot load needs no unloading either.
        if later_endpoint(step).is_some() {
            return Ok(());
        }
        // The recording waited a second for unloading, which is done in the background.
        if step.get("wait_s").is_some() {
            return server.wait_for_unloading(&self.setup).await;
        }
        let answer = client::send(server, step).await?;
        if answer.status >= 400 && step["may_fail"] != true {
            return Err(format!(
                "{} {}: {}",
                step["path"],
                answer.status,
                answer.text()
            ));
        }
        Ok(())
    }

    fn compare(&self, server: &Server, answer: &Answer) -> Vec<String> {
        let pointers = |name: &str| -> Vec<String> {
            let list = self.record[name].as_array().cloned().unwrap_or_default();
            list.iter()
                .filter_map(|p| p.as_str().map(str::to_owned))
                .collect()
        };
        let expected = server.filled_in(&self.record["response"]);
        let actual = answer.as_recorded(&expected);
        let mut comparison = Comparison::new(pointers("variable"), pointers("informative"));
        comparison.response(&expected, &actual);
        comparison.found
    }
}

/// The bytes of a model file that a request sends.
pub fn model_file(name: &str) -> Vec<u8> {
    std::fs::read(models::path(&format!("tiny/{name}"))).expect("a readable model")
}
