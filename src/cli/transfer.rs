//! `pull` and `push`: models from and to a registry, which the server talks to.

use super::client::Client;
use super::progress::Steps;
use super::{print, usage};
use crate::api::PullRequest;
use crate::store::ModelName;
use anyhow::Result;

/// The arguments of `pull` and `push`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(hide = true)]
    names: Vec<String>,
    /// Talk to the registry over plain http
    #[arg(long)]
    insecure: bool,
}

/// Runs `pull`.
pub async fn pull(client: &Client, arguments: Arguments) -> Result<()> {
    let [model] = usage::exactly(arguments.names)?;
    client.check().await?;
    follow(client, "/api/pull", model, arguments.insecure).await
}

/// Has the server fetch a model that it lacks.
pub async fn fetch(client: &Client, model: &str, insecure: bool) -> Result<()> {
    follow(client, "/api/pull", model.to_owned(), insecure).await
}

/// Runs `push`, then tells where the model is found.
pub async fn push(client: &Client, arguments: Arguments) -> Result<()> {
    let [model] = usage::exactly(arguments.names)?;
    client.check().await?;
    let name = ModelName::parse(&model);
    follow(client, "/api/push", model, arguments.insecure).await?;
    match name {
        Ok(name) if name.host() == "registry.ollama.ai" => print(&format!(
            "\nYou can find your model at:\n\n\thttps://ollama.com/{}/{}\n",
            name.namespace(),
            name.model()
        )),
        _ => Ok(()),
    }
}

async fn follow(client: &Client, path: &str, model: String, insecure: bool) -> Result<()> {
    let request = PullRequest {
        model,
        insecure,
        ..Default::default()
    };
    Steps::new().follow(client, path, &request).await
}
