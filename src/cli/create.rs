//! `create`: a Modelfile becomes a request; the files it names are uploaded as blobs.

use super::client::Client;
use super::progress::Steps;
use super::source::{Source, adapter, resolve, source};
use super::{print_line, usage};
use crate::api::{CreateRequest, Progress};
use crate::store::modelfile::{self, Command, Plan};
use crate::store::{Digest, ModelName};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_stream::StreamExt;
use tokio_util::io::ReaderStream;

/// Longer ones are not Modelfiles but, most likely, weights.
const MAX_MODELFILE_BYTES: u64 = 16 << 20;
const UPLOAD_CHUNK_BYTES: usize = 256 << 10;

/// The arguments of `create`.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[arg(hide = true)]
    names: Vec<String>,
    /// The Modelfile (default ./Modelfile; without one, the safetensors or GGUF files of this folder)
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Quantize the model's weights, which must be F32, F16 or BF16, to this level (for example Q4_K_M)
    #[arg(short, long, value_name = "LEVEL")]
    quantize: Option<String>,
    #[arg(long, hide = true, value_name = "LEVEL")]
    draft_quantize: Option<String>,
    #[arg(long, hide = true)]
    experimental: bool,
}

/// Runs the command.
pub async fn create(client: &Client, arguments: Arguments) -> Result<()> {
    let [name] = usage::exactly(arguments.names)?;
    if ModelName::parse(&name).is_err() {
        bail!("invalid model name: {name}");
    }
    if arguments.experimental {
        bail!(
            "--experimental, which keeps a model as safetensors, is not supported; without it they are converted"
        );
    }
    let (commands, folder) = read(arguments.file.as_deref())?;
    client.check().await?;
    let mut steps = Steps::new();
    steps.step("gathering model components");
    let plan = modelfile::plan(commands)?;
    for parameter in &plan.deprecated {
        print_line(&format!("warning: parameter {parameter} is deprecated"))?;
    }
    if arguments.draft_quantize.is_some() && plan.draft.is_empty() {
        bail!("--draft-quantize requires a DRAFT model");
    }
    let mut request = gather(client, plan, &folder, &mut steps).await?;
    request.draft_quantize = arguments.draft_quantize.unwrap_or_default();
    request.model = name;
    request.quantize = arguments.quantize.unwrap_or_default();
    steps.follow(client, "/api/create", &request).await
}

/// Sends a create request and waits for its end.
pub async fn send(client: &Client, request: &CreateRequest) -> Result<()> {
    let mut replies = client.stream::<Progress>("/api/create", request).await?;
    while replies.next().await?.is_some() {}
    Ok(())
}

/// The Modelfile's commands, and the folder that its paths start from. Without a Modelfile, the folder itself is
/// the model.
fn read(file: Option<&Path>) -> Result<(Vec<Command>, PathBuf)> {
    let path = file.unwrap_or(Path::new("Modelfile"));
    if file.is_none() && !path.exists() {
        return Ok((vec![Command::From(".".to_owned())], PathBuf::from(".")));
    }
    let cannot_read = || format!("cannot read the Modelfile {}", path.display());
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_MODELFILE_BYTES + 1).read_to_end(&mut text))
        .with_context(cannot_read)?;
    if text.len() as u64 > MAX_MODELFILE_BYTES || text.starts_with(b"GGUF") {
        bail!(
            "{} is not a Modelfile; to use weights, write a Modelfile with the line FROM {0}",
            path.display()
        );
    }
    let folder = fs::canonicalize(path).with_context(cannot_read)?;
    let folder = folder.parent().unwrap_or(Path::new("/")).to_owned();
    Ok((modelfile::parse(&text)?, folder))
}

/// Uploads what the plan names and fills the request's sources.
async fn gather(
    client: &Client,
    plan: Plan,
    folder: &Path,
    steps: &mut Steps,
) -> Result<CreateRequest> {
    let mut request = plan.request;
    let mut files = Vec::new();
    for text in &plan.from {
        match source(text, folder)? {
            Source::Model(name) => request.from = name,
            Source::Files(paths) => files.extend(paths),
        }
    }
    let adapters = match &plan.adapter {
        Some(text) => adapter(text, folder)?,
        None => Vec::new(),
    };
    let draft = existing(plan.draft.iter(), folder)?;
    if !files.is_empty() {
        request.files = Some(upload_all(client, &files, steps).await?);
    }
    request.adapters = upload_all(client, &adapters, steps).await?;
    request.draft_files = upload_all(client, &draft, steps).await?;
    Ok(request)
}

fn existing<'a>(paths: impl Iterator<Item = &'a String>, folder: &Path) -> Result<Vec<PathBuf>> {
    paths
        .map(|text| {
            let path = resolve(text, folder);
            if !path.exists() {
                bail!("stat {}: no such file or directory", path.display());
            }
            if path.is_dir() {
                bail!(
                    "{} is a folder; give the path of a GGUF file",
                    path.display()
                );
            }
            Ok(path)
        })
        .collect()
}

/// Uploads files the server lacks. Returns name to digest, the names relative to the files' common folder.
async fn upload_all(
    client: &Client,
    paths: &[PathBuf],
    steps: &mut Steps,
) -> Result<BTreeMap<String, String>> {
    let mut files = BTreeMap::new();
    for (path, name) in paths.iter().zip(names(paths)) {
        let hashed = path.clone();
        let digest =
            tokio::task::spawn_blocking(move || File::open(hashed).and_then(Digest::of_reader))
                .await
                .context("hashing stopped")?
                .with_context(|| format!("cannot read {}", path.display()))?
                .to_string();
        upload(client, path, &digest, steps).await?;
        files.insert(name, digest);
    }
    Ok(files)
}

/// What the paths are called: the base name, or the path below the folder that all share.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let mut common = paths.first().and_then(|path| path.parent());
    while let Some(folder) = common {
        if paths.iter().all(|path| path.starts_with(folder)) {
            break;
        }
        common = folder.parent();
    }
    let common = common.unwrap_or(Path::new(""));
    let name = |path: &PathBuf| {
        let name = path.strip_prefix(common).unwrap_or(path);
        name.to_string_lossy().replace('\\', "/")
    };
    paths.iter().map(name).collect()
}

async fn upload(client: &Client, path: &Path, digest: &str, steps: &mut Steps) -> Result<()> {
    let status = format!("copying file {digest}");
    let cannot_read = || format!("cannot read {}", path.display());
    let file = tokio::fs::File::open(path)
        .await
        .with_context(cannot_read)?;
    let total = file.metadata().await.with_context(cannot_read)?.len();
    if client.has_blob(digest).await? {
        steps.bytes(&status, total, total);
        return Ok(());
    }
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let chunks = ReaderStream::with_capacity(file, UPLOAD_CHUNK_BYTES).map(move |chunk| {
        let bytes = chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        counter.fetch_add(bytes, Ordering::Relaxed);
        chunk
    });
    let upload = client.put_blob(digest, total, reqwest::Body::wrap_stream(chunks));
    let mut upload = std::pin::pin!(upload);
    let mut redraw = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            done = &mut upload => {
                done?;
                steps.bytes(&status, total, total);
                return Ok(());
            }
            _ = redraw.tick() => {
                // The last bytes are shown as done when the server says so.
                let sent = sent.load(Ordering::Relaxed).min(total.saturating_sub(1));
                steps.bytes(&status, sent, total);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_no_modelfile() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        fs::write(&path, b"GGUF\x03\0\0\0").unwrap();
        let error = read(Some(&path)).unwrap_err().to_string();
        assert!(error.contains("FROM"), "{error}");
        let error = format!("{:#}", read(Some(Path::new("/nope"))).unwrap_err());
        assert!(error.contains("cannot read the Modelfile /nope"), "{error}");
    }

    #[test]
    fn files_are_named_below_their_common_folder() {
        let names = |paths: &[&str]| names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>());
        assert_eq!(names(&["/m/a.gguf"]), ["a.gguf"]);
        assert_eq!(names(&["/m/a.gguf", "/m/x/b.gguf"]), ["a.gguf", "x/b.gguf"]);
        assert_eq!(names(&["/m/a.gguf", "/n/b.gguf"]), ["m/a.gguf", "n/b.gguf"]);
    }
}
