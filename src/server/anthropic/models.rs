//! `/v1/models` as Anthropic's clients read it; the path is OpenAI's too.

use super::{passed, whole};
use crate::server::error::ApiError;
use crate::server::{App, Response, models, time};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::SystemTime;
use warp::http::{HeaderMap, StatusCode};

/// A header that every request of Anthropic's clients has.
const VERSION: &str = "anthropic-version";

/// Whether a request for a path of both APIs comes from a client of Anthropic's.
pub fn is_asked(headers: &HeaderMap) -> bool {
    headers.contains_key(VERSION)
}

/// All models, on one page.
pub async fn list(app: Arc<App>) -> Result<Response, ApiError> {
    let listed = models::list(app).await;
    passed(listed.map(|models| {
        let data: Vec<Value> = models
            .iter()
            .map(|m| model(&m.name.to_string(), m.modified_at))
            .collect();
        let id = |model: Option<&Value>| model.map_or(Value::Null, |m| m["id"].clone());
        let page = json!({
            "data": data,
            "has_more": false,
            "first_id": id(data.first()),
            "last_id": id(data.last()),
        });
        whole(StatusCode::OK, &page)
    }))
}

/// One model. The id is the segment as it was sent.
pub async fn get(app: Arc<App>, segment: String) -> Result<Response, ApiError> {
    let found = models::find(app, segment.clone()).await;
    passed(found.map(|found| whole(StatusCode::OK, &model(&segment, found.modified_at))))
}

fn model(id: &str, modified_at: SystemTime) -> Value {
    json!({
        "type": "model",
        "id": id,
        "display_name": id,
        "created_at": time::local(modified_at),
        "lifecycle": "active",
    })
}
