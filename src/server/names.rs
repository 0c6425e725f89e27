//! From the model name of a request to the model, with each endpoint's own words for what is wrong with it.

use super::App;
use super::error::ApiError;
use super::stream::panicked;
use crate::store::{self, ModelName, ResolvedModel, Source};
use std::sync::Arc;
use warp::http::StatusCode;

const REMOTE_MODEL: &str = "ollama cloud is disabled: remote model is unavailable";
const REMOTE_DETAILS: &str = "ollama cloud is disabled: remote model details are unavailable";

/// Runs disk work off the event loop. A panic in it is an error of this request alone.
pub async fn blocking<T, F>(work: F) -> Result<T, ApiError>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, ApiError> + Send + 'static,
{
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(panicked()))
}

/// The name without blanks and `:local`.
///
/// # Errors
/// 400 for a malformed name, 403 for one of a hosted model.
pub fn parse(sent: &str) -> Result<ModelName, ApiError> {
    parse_or(sent, REMOTE_MODEL)
}

/// As [`parse`], with `/api/show`'s text for hosted models.
pub fn parse_for_show(sent: &str) -> Result<ModelName, ApiError> {
    parse_or(sent, REMOTE_DETAILS)
}

fn parse_or(sent: &str, remote: &str) -> Result<ModelName, ApiError> {
    let (name, source) = store::split_source(sent.trim())?;
    if source == Source::Cloud {
        return Err(ApiError::new(StatusCode::FORBIDDEN, remote));
    }
    Ok(ModelName::parse(name)?)
}

/// The model behind a name, for generate and chat.
///
/// # Errors
/// 404 with the name as it was sent; whatever is wrong with the name or the model otherwise.
pub async fn resolve(app: &Arc<App>, sent: &str) -> Result<Arc<ResolvedModel>, ApiError> {
    if sent.trim().is_empty() {
        return Err(not_found(sent.trim()));
    }
    let name = parse(sent)?;
    let (store, sent) = (app.store.clone(), sent.to_owned());
    blocking(move || match store.resolve(&name) {
        Ok(model) => Ok(Arc::new(model)),
        Err(store::Error::NotFound(_)) => Err(not_found(&sent)),
        Err(e) => Err(e.into()),
    })
    .await
}

/// As [`resolve`], for embedding, whose text for an unknown model differs.
pub async fn resolve_to_embed(app: &Arc<App>, sent: &str) -> Result<Arc<ResolvedModel>, ApiError> {
    let unknown = format!("model {sent:?} not found, try pulling it first");
    resolve(app, sent).await.map_err(|e| match e.status {
        StatusCode::NOT_FOUND if !sent.trim().is_empty() => ApiError::not_found(unknown),
        _ => e,
    })
}

/// `model '<name>' not found`.
pub fn not_found(name: &str) -> ApiError {
    ApiError::not_found(format!("model '{name}' not found"))
}

/// 400 where a required name is empty.
pub fn required(sent: &str) -> Result<(), ApiError> {
    if sent.trim().is_empty() {
        Err(ApiError::bad_request("model is required"))
    } else {
        Ok(())
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> ApiError {
        use store::Error as E;
        let status = match &error {
            E::InvalidName
            | E::InvalidDigest
            | E::TwoSources(_)
            | E::DigestMismatch { .. }
            | E::BadRequest(_) => StatusCode::BAD_REQUEST,
            E::NotFound(_) | E::BlobNotFound(_) => StatusCode::NOT_FOUND,
            E::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            E::Canceled => return ApiError::canceled(),
            _ if error.is_disk_full() => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        ApiError::new(status, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_sources() {
        assert_eq!(parse(" m:20b:local ").unwrap().to_string(), "m:20b");
        assert_eq!(
            parse("a//b").unwrap_err(),
            ApiError::bad_request("invalid model name")
        );
        assert_eq!(
            parse("x:cloud").unwrap_err(),
            ApiError::new(StatusCode::FORBIDDEN, REMOTE_MODEL)
        );
        assert_eq!(
            parse_for_show("x:20b-cloud").unwrap_err(),
            ApiError::new(StatusCode::FORBIDDEN, REMOTE_DETAILS)
        );
        let both = "use either :local or :cloud, not both: \"m:local:cloud\"";
        assert_eq!(
            parse("m:local:cloud").unwrap_err(),
            ApiError::bad_request(both)
        );
    }

    #[tokio::test]
    async fn a_panic_in_disk_work_is_an_error() {
        let error = blocking::<(), _>(|| panic!("boom")).await.unwrap_err();
        assert_eq!(error.status, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
