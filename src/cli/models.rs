//! The short commands on models: `show`, `list`, `ps`, `stop`, `cp`, `rm`, and the version.

use super::client::{Client, Error};
use super::show::{self, Section};
use super::{list as tables, print, tell, usage};
use crate::api::{
    CopyRequest, DeleteRequest, GenerateReply, GenerateRequest, ShowReply, ShowRequest,
    VersionReply,
};
use anyhow::{Result, bail};
use reqwest::Method;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The arguments of `show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    #[arg(hide = true)]
    names: Vec<String>,
    /// Show the license
    #[arg(long)]
    license: bool,
    /// Show the Modelfile
    #[arg(long)]
    modelfile: bool,
    /// Show the parameters
    #[arg(long)]
    parameters: bool,
    /// Show the system message
    #[arg(long)]
    system: bool,
    /// Show the prompt template
    #[arg(long)]
    template: bool,
    /// Show metadata and tensors too
    #[arg(short, long)]
    verbose: bool,
}

impl Show {
    /// The one section asked for, if any.
    fn section(&self) -> Result<Option<Section>> {
        let asked = [
            (self.license, Section::License),
            (self.modelfile, Section::Modelfile),
            (self.parameters, Section::Parameters),
            (self.system, Section::System),
            (self.template, Section::Template),
        ];
        let mut asked = asked.into_iter().filter(|(asked, _)| *asked);
        let section = asked.next().map(|(_, section)| section);
        if asked.next().is_some() {
            bail!(
                "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified"
            );
        }
        Ok(section)
    }
}

pub async fn show(client: &Client, mut arguments: Show) -> Result<()> {
    let [model] = usage::exactly(std::mem::take(&mut arguments.names))?;
    client.check().await?;
    let section = arguments.section()?;
    let request = ShowRequest {
        model,
        verbose: arguments.verbose,
        ..Default::default()
    };
    let shown: ShowReply = client.post("/api/show", &request).await?;
    match section {
        Some(section) => print(&section.text(&shown)),
        None => print(&show::summary(&shown, arguments.verbose)),
    }
}

/// The first argument filters; more are ignored, as Ollama does.
pub async fn list(client: &Client, names: Vec<String>) -> Result<()> {
    client.check().await?;
    let prefix = names.into_iter().next().unwrap_or_default();
    print(&tables::list(client, &prefix).await?)
}

pub async fn ps(client: &Client, names: Vec<String>) -> Result<()> {
    client.check().await?;
    let prefix = names.into_iter().next().unwrap_or_default();
    print(&tables::ps(client, &prefix).await?)
}

pub async fn stop(client: &Client, names: Vec<String>) -> Result<()> {
    let [model] = usage::exactly(names)?;
    client.check().await?;
    match unload(client, &model).await {
        Err(error) if error.is_not_found() => bail!("couldn't find model {model:?} to stop"),
        done => Ok(done?),
    }
}

async fn unload(client: &Client, model: &str) -> Result<(), Error> {
    let request = GenerateRequest {
        model: model.to_owned(),
        keep_alive: Some(0.into()),
        stream: Some(false),
        ..Default::default()
    };
    client
        .post::<GenerateReply>("/api/generate", &request)
        .await
        .map(drop)
}

pub async fn cp(client: &Client, names: Vec<String>) -> Result<()> {
    let [source, destination] = usage::exactly(names)?;
    client.check().await?;
    let done = format!("copied '{source}' to '{destination}'\n");
    let request = CopyRequest {
        source,
        destination,
    };
    client.command(Method::POST, "/api/copy", &request).await?;
    print(&done)
}

/// Unloads and removes the models in turn, up to the first that fails. A model that cannot be unloaded, a broken
/// one for instance, is removed nevertheless.
pub async fn rm(client: &Client, names: Vec<String>) -> Result<()> {
    let (first, others) = usage::at_least_one(names)?;
    client.check().await?;
    for model in std::iter::once(first).chain(others) {
        match unload(client, &model).await {
            Err(error) if !error.is_not_found() => {
                tell(&format!("Warning: unable to stop model '{model}': {error}"));
            }
            _ => {}
        }
        let request = DeleteRequest {
            model: model.clone(),
            ..Default::default()
        };
        let path = "/api/delete";
        client.command(Method::DELETE, path, &request).await?;
        print(&format!("deleted '{model}'\n"))?;
    }
    Ok(())
}

/// The server's version, and this program's where it is another.
pub async fn version(client: &Client) -> Result<()> {
    match client.get::<VersionReply>("/api/version").await {
        Ok(reply) if reply.version == VERSION => {
            print(&format!("ollama-wgpu version is {VERSION}\n"))
        }
        Ok(reply) => print(&format!(
            "ollama-wgpu version is {}\nWarning: client version is {VERSION}\n",
            reply.version
        )),
        Err(_) => print(&format!(
            "Warning: could not connect to a running ollama-wgpu instance\nWarning: client version is {VERSION}\n"
        )),
    }
}
