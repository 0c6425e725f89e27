//! The models of the store and those in memory: `/api/tags`, `show`, `ps`, `copy`, `delete`.

use super::error::{ApiError, empty, ok_json};
use super::names::{self, blocking};
use super::{App, Incoming, Response, body, time};
use crate::api::{
    CopyRequest, DeleteRequest, ListReply, ListedModel, LoadedModel, Message, ModelDetails, Object,
    PsReply, ShowReply, ShowRequest, TensorEntry,
};
use crate::chat::template::BARE;
use crate::engine::RunningModel;
use crate::gguf::Gguf;
use crate::store::{self, ModelEntry, ModelName, ResolvedModel, manifest::Config};
use std::sync::Arc;
use warp::http::StatusCode;
use warp::http::header::USER_AGENT;

mod metadata;

/// Clients of this kind name the model by `general.basename`.
const COPILOT: &str = "GitHubCopilotChat/";

/// `GET /api/tags`.
pub async fn tags(app: Arc<App>, _: Incoming) -> Result<Response, ApiError> {
    let models = blocking(move || Ok(app.store.list()?)).await?;
    Ok(ok_json(&ListReply {
        models: models.iter().map(|entry| listed(entry)).collect(),
    }))
}

fn listed(entry: &ModelEntry) -> ListedModel {
    let details = ModelDetails {
        context_length: entry.context_length,
        embedding_length: entry.embedding_length,
        ..details(&entry.config, &entry.parent_model)
    };
    ListedModel {
        name: entry.name.to_string(),
        model: entry.name.to_string(),
        modified_at: time::local(entry.modified_at),
        size: entry.size,
        digest: entry.digest.clone(),
        details,
        capabilities: entry
            .capabilities
            .iter()
            .map(|c| c.as_str().to_owned())
            .collect(),
    }
}

fn details(config: &Config, parent_model: &str) -> ModelDetails {
    ModelDetails {
        parent_model: parent_model.to_owned(),
        format: config.model_format.clone(),
        family: config.model_family.clone(),
        families: config.model_families.clone(),
        parameter_size: config.model_type.clone(),
        quantization_level: config.file_type.clone(),
        ..ModelDetails::default()
    }
}

/// `GET /api/ps`.
pub async fn ps(app: Arc<App>, _: Incoming) -> Result<Response, ApiError> {
    let running = app.models.running();
    let models =
        blocking(move || Ok(running.iter().map(|model| loaded(&app, model)).collect())).await?;
    Ok(ok_json(&PsReply { models }))
}

/// A loaded model; one that was deleted meanwhile has empty details.
fn loaded(app: &App, running: &RunningModel) -> LoadedModel {
    let resolved = ModelName::parse(&running.name).and_then(|name| app.store.resolve(&name));
    LoadedModel {
        name: running.name.clone(),
        model: running.name.clone(),
        size: running.size_bytes,
        digest: running.digest.clone(),
        details: resolved
            .map(|model| details(&model.config, ""))
            .unwrap_or_default(),
        expires_at: time::local(running.expires_at),
        size_vram: running.vram_bytes,
        context_length: running.context_length as u64,
    }
}

/// The member in use of `model` and its older name.
fn either<'a>(model: &'a str, name: &'a str) -> &'a str {
    if model.is_empty() { name } else { model }
}

/// `POST /api/show`.
pub async fn show(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    let for_copilot = incoming
        .headers
        .get(USER_AGENT)
        .is_some_and(|agent| agent.as_bytes().starts_with(COPILOT.as_bytes()));
    let request: ShowRequest = body::request(incoming.body, body::SMALL_BODY_BYTES).await?;
    let mut reply = shown(&app, request.clone()).await?;
    if for_copilot {
        let sent = either(&request.model, &request.name);
        reply
            .model_info
            .insert("general.basename".into(), sent.into());
    }
    Ok(ok_json(&reply))
}

/// Everything about one model.
async fn shown(app: &Arc<App>, request: ShowRequest) -> Result<ShowReply, ApiError> {
    let sent = either(&request.model, &request.name);
    names::required(sent)?;
    let name = names::parse_for_show(sent)?;
    let app = Arc::clone(app);
    blocking(move || {
        let model = app.store.resolve(&name)?;
        described(&app, model, &request)
    })
    .await
}

fn described(
    app: &App,
    mut model: ResolvedModel,
    request: &ShowRequest,
) -> Result<ShowReply, ApiError> {
    app.store.facts(&model.model_digest)?;
    // A damaged template hides itself, not the model.
    let template = app.parsed(&model, None);
    let template = template.unwrap_or_default();
    let capabilities = model.capabilities(&app.store, template.as_deref())?;
    let parameters = model.parameters_text();
    if !request.system.is_empty() {
        model.system = Some(request.system.clone());
    }
    model.params.extend(request.options.clone());
    let gguf = Gguf::open(&model.model_path)
        .map_err(|e| ApiError::internal(format!("model '{}': {e}", model.name)))?;
    Ok(ShowReply {
        license: model.license.join("\n"),
        modelfile: model.modelfile(),
        parameters,
        template: template.as_ref().map_or(BARE, |t| t.text()).to_owned(),
        details: details(&model.config, &model.parent_model),
        messages: model.messages.iter().map(role_and_content).collect(),
        model_info: metadata::model_info(&gguf, request.verbose),
        projector_info: projector_info(&model, request.verbose)?,
        tensors: gguf.tensors().iter().map(tensor).collect(),
        capabilities: capabilities.iter().map(|c| c.as_str().to_owned()).collect(),
        modified_at: time::local(model.modified_at),
        requires: model.config.requires.clone(),
        system: model.system.unwrap_or_default(),
    })
}

fn role_and_content(message: &Message) -> Message {
    Message {
        role: message.role.clone(),
        content: message.content.clone(),
        ..Message::default()
    }
}

fn projector_info(model: &ResolvedModel, verbose: bool) -> Result<Object, ApiError> {
    let Some((_, path)) = model.projectors.first() else {
        return Ok(Object::new());
    };
    let gguf = Gguf::open(path)
        .map_err(|e| ApiError::internal(format!("projector of model '{}': {e}", model.name)))?;
    Ok(metadata::model_info(&gguf, verbose))
}

fn tensor(info: &crate::gguf::TensorInfo) -> TensorEntry {
    TensorEntry {
        name: info.name.clone(),
        kind: crate::quant::ggml_name(info.ggml_type),
        shape: info.shape.clone(),
    }
}

/// `POST /api/copy`.
pub async fn copy(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    app.settings.changes.any()?;
    let request: CopyRequest = body::request(incoming.body, body::SMALL_BODY_BYTES).await?;
    let part = |what: &str, text: &str| {
        ModelName::parse(text)
            .map_err(|_| ApiError::bad_request(format!("{what} {text:?} is invalid")))
    };
    let source = part("source", &request.source)?;
    let destination = part("destination", &request.destination)?;
    blocking(move || match app.store.copy(&source, &destination) {
        Err(store::Error::NotFound(_)) => Err(ApiError::not_found(format!(
            "model \"{}\" not found",
            request.source
        ))),
        done => Ok(done?),
    })
    .await?;
    Ok(empty(StatusCode::OK))
}

/// `DELETE /api/delete`.
pub async fn delete(app: Arc<App>, incoming: Incoming) -> Result<Response, ApiError> {
    app.settings.changes.any()?;
    let request: DeleteRequest = body::request(incoming.body, body::SMALL_BODY_BYTES).await?;
    let sent = either(&request.model, &request.name).to_owned();
    names::required(&sent)?;
    let name = names::parse(&sent).map_err(|e| match e.status {
        StatusCode::BAD_REQUEST => ApiError::bad_request(format!("name {sent:?} is invalid")),
        _ => e,
    })?;
    blocking(move || match app.store.delete(&name) {
        Err(store::Error::NotFound(_)) => Err(names::not_found(&sent)),
        done => Ok(done?),
    })
    .await?;
    Ok(empty(StatusCode::OK))
}

/// The stored names and times, newest first, for other APIs' lists.
pub async fn list(app: Arc<App>) -> Result<Vec<Arc<ModelEntry>>, ApiError> {
    blocking(move || Ok(app.store.list()?)).await
}

/// The model behind a name, with `/api/show`'s words for what is wrong.
pub async fn find(app: Arc<App>, sent: String) -> Result<ResolvedModel, ApiError> {
    names::required(&sent)?;
    let name = names::parse_for_show(&sent)?;
    blocking(move || Ok(app.store.resolve(&name)?)).await
}
