//! `ollama-wgpu debug`: looking inside, for users with a strange driver and for the tests.
//!
//! Documented in `docs/debugging.md`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::backend::{Backend, Batch, BatchShape, BufferId, KvType, PAGE_TOKENS, Phase, Plan};
use crate::gguf::Gguf;
use crate::model::{Embedder, Model, Session};
use crate::tokenizer::Tokenizer;

use super::profile::{ProfileArgs, profile};
use super::verify::{VerifyArgs, verify};
use super::{device, print, tell};

/// Tokens of a prefill chunk.
const N_BATCH: usize = 128;

/// What to look at.
#[derive(Debug, Subcommand)]
pub enum Debug {
    /// Logits of given tokens, or their embedding, as JSON
    Logits(LogitsArgs),
    /// Token ids of a text, as JSON
    Tokenize(TokenizeArgs),
    /// Perplexity of a text file
    Perplexity(PerplexityArgs),
    /// Run one prompt on two devices and name the first op that differs
    Compare(CompareArgs),
    /// What one decoded token costs on a GPU, counted, as JSON
    Profile(ProfileArgs),
    /// Whether the files of stored models still are what was pulled or made
    Verify(VerifyArgs),
}

/// The cache's type by name.
fn kv_type(name: &str) -> Result<KvType, String> {
    let names = || KvType::ALL.map(KvType::name).join(", ");
    KvType::from_name(name).ok_or_else(|| format!("accepted are {}", names()))
}

/// The file and where it runs.
#[derive(Debug, Args)]
pub struct Target {
    /// A GGUF file
    file: PathBuf,
    /// cpu, an index, or a part of an adapter's name, such as vulkan:llvmpipe
    #[arg(long)]
    device: Option<String>,
    /// Type of the cache
    #[arg(long, value_parser = kv_type, default_value = "f16")]
    kv: KvType,
}

#[derive(Debug, Args)]
pub struct LogitsArgs {
    #[command(flatten)]
    target: Target,
    /// Token ids of the prompt, fed as they are
    #[arg(long, value_delimiter = ',', required = true)]
    tokens: Vec<u32>,
    /// Tokens to generate greedily
    #[arg(long, default_value_t = 0)]
    greedy: usize,
}

#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// A GGUF file
    file: PathBuf,
    /// Add BOS and the like, and recognise special tokens in the text
    #[arg(long)]
    special: bool,
    text: String,
}

#[derive(Debug, Args)]
pub struct PerplexityArgs {
    #[command(flatten)]
    target: Target,
    text: PathBuf,
    /// Tokens of a window; its second half is scored
    #[arg(short = 'c', long, default_value_t = 512)]
    ctx: usize,
}

#[derive(Debug, Args)]
pub struct CompareArgs {
    /// A GGUF file
    file: PathBuf,
    /// Two devices, separated by a comma
    #[arg(long, value_delimiter = ',', required = true)]
    devices: Vec<String>,
    /// The prompt
    #[arg(long, default_value = "The capital of France is")]
    prompt: String,
    /// Normalised squared error above which an op is said to differ
    #[arg(long, default_value_t = 1e-6)]
    tolerance: f64,
}

impl Debug {
    /// Runs the subcommand and prints its result.
    ///
    /// # Errors
    /// Names the file, device or argument that is wrong.
    pub fn run(self) -> Result<()> {
        match self {
            Debug::Logits(args) => logits(&args),
            Debug::Tokenize(args) => tokenize(&args),
            Debug::Perplexity(args) => perplexity(&args),
            Debug::Compare(args) => compare(&args),
            Debug::Profile(args) => profile(&args),
            Debug::Verify(args) => verify(&args),
        }
    }
}

fn open(file: &Path) -> Result<(Arc<Gguf>, Model)> {
    let gguf = Arc::new(Gguf::open(file)?.with_current_names());
    let model = Model::load(&gguf).with_context(|| format!("cannot load {}", file.display()))?;
    Ok((gguf, model))
}

fn session(target: &Target, n_ctx: usize) -> Result<Session> {
    let (_, model) = open(&target.file)?;
    ensure!(
        model.pooling().is_none(),
        "{} embeds texts and has no logits",
        target.file.display()
    );
    let backend = device::open(target.device.as_deref())?;
    Ok(Session::new(&model, backend, target.kv, n_ctx, N_BATCH)?)
}

fn print_json(value: &Value) -> Result<()> {
    print(&format!("{value}\n"))
}

/// The index of the largest number, the lowest of equals.
fn argmax(logits: &[f32]) -> usize {
    let best = |best, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).fold(0, best)
}

/// The embedding of given tokens.
fn embedding(args: &LogitsArgs, model: &Model) -> Result<()> {
    let n = args.tokens.len();
    let mut backend = device::open(args.target.device.as_deref())?;
    model.load_into(&mut *backend)?;
    let mut embedder = Embedder::prepare(model, backend, n, n, 1)?;
    let vectors = embedder.embed(&[&args.tokens])?;
    let device = embedder.backend().device().name;
    print_json(&json!({ "device": device, "tokens": args.tokens, "embedding": vectors[0] }))
}

fn logits(args: &LogitsArgs) -> Result<()> {
    let (_, model) = open(&args.target.file)?;
    if model.pooling().is_some() {
        return embedding(args, &model);
    }
    let tokens = &args.tokens;
    let mut session = session(&args.target, tokens.len() + args.greedy)?;
    let shown = [0, tokens.len() / 2, tokens.len() - 1];
    let mut best = Vec::new();
    let mut rows = serde_json::Map::new();
    session.prefill(
        tokens,
        |_| true,
        |i, row| {
            best.push(argmax(row));
            if shown.contains(&i) {
                rows.insert(i.to_string(), json!(row));
            }
        },
    )?;
    let mut greedy = Vec::new();
    let mut next = best[tokens.len() - 1];
    for _ in 0..args.greedy {
        greedy.push(next);
        next = argmax(&session.decode(next as u32)?);
    }
    let device = session.backend().device().name;
    print_json(
        &json!({ "device": device, "tokens": tokens, "argmax": best, "logits": rows, "greedy": greedy }),
    )
}

fn tokenize(args: &TokenizeArgs) -> Result<()> {
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&args.file)?.with_current_names())?;
    let ids = tokenizer.encode(&args.text, args.special, args.special);
    print_json(&json!(ids))
}

/// As llama.cpp's tool counts: whole windows, each beginning with BOS where the model has one,
/// the second half scored.
fn perplexity(args: &PerplexityArgs) -> Result<()> {
    let text = std::fs::read_to_string(&args.text)
        .with_context(|| format!("cannot read {}", args.text.display()))?;
    let tokenizer = Tokenizer::from_gguf(&Gguf::open(&args.target.file)?.with_current_names())?;
    let tokens = tokenizer.encode(&text, true, false);
    ensure!(args.ctx >= 4, "a window needs at least 4 tokens");
    ensure!(
        tokens.len() >= args.ctx,
        "{} has {} tokens, a window needs {}",
        args.text.display(),
        tokens.len(),
        args.ctx
    );
    let mut session = session(&args.target, args.ctx)?;
    let (mut total, mut count) = (0.0, 0usize);
    let n_windows = tokens.len() / args.ctx;
    for (i, window) in tokens.chunks_exact(args.ctx).enumerate() {
        let mut window = window.to_vec();
        if let Some(bos) = tokenizer.bos().filter(|_| tokenizer.adds_bos()) {
            window[0] = bos;
        }
        session.clear();
        let scored = args.ctx / 2..args.ctx - 1;
        session.prefill(
            &window,
            |j| scored.contains(&j),
            |j, row| {
                total -= log_probability(row, window[j + 1] as usize);
                count += 1;
            },
        )?;
        tell(&format!(
            "window {} of {n_windows}: {:.4}",
            i + 1,
            (total / count as f64).exp()
        ));
    }
    print_json(&json!({
        "perplexity": (total / count as f64).exp(), "tokens": count, "windows": n_windows,
        "device": session.backend().device().name,
    }))
}

/// ln of the softmax at `id`.
fn log_probability(row: &[f32], id: usize) -> f64 {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = row.iter().map(|&l| f64::from(l - max).exp()).sum();
    f64::from(row[id] - max) - sum.ln()
}

/// One device's run of a plan whose buffers are all kept.
struct Kept {
    backend: Box<dyn Backend>,
    plan: crate::backend::PreparedId,
}

fn keep(model: &Model, name: &str, batch: &Batch) -> Result<Kept> {
    let mut backend = device::open(Some(name))?;
    model.load_into(&mut *backend)?;
    let n_pages = batch.n_tokens().div_ceil(PAGE_TOKENS);
    backend.alloc_cache(&model.cache_spec(KvType::F32, n_pages, 1))?;
    let plan = backend.prepare(plan_of(model, batch).keep_all())?;
    backend.run(plan, batch)?;
    Ok(Kept { backend, plan })
}

/// The plan for logits, or for an embedding.
fn plan_of(model: &Model, batch: &Batch) -> Plan {
    match model.pooling() {
        None => model.plan(batch.n_tokens(), shape(batch), None),
        Some(_) => model.embedding_plan(batch.n_tokens(), shape(batch)),
    }
}

fn shape(batch: &Batch) -> BatchShape {
    BatchShape {
        phase: batch.phase,
        n_tokens: batch.n_tokens(),
        n_outputs: batch.outputs.len(),
    }
}

fn compare(args: &CompareArgs) -> Result<()> {
    let (gguf, model) = open(&args.file)?;
    let tokens = Tokenizer::from_gguf(&gguf)?.encode(&args.prompt, true, true);
    ensure!(!tokens.is_empty(), "the prompt has no tokens");
    let outputs = vec![tokens.len() as u32 - 1];
    let batch = Batch::single(Phase::Prefill, &tokens, 0, outputs);
    let [a, b] = &args.devices[..] else {
        bail!("two devices are needed, such as --devices cpu,vulkan");
    };
    let (mut first, mut second) = (keep(&model, a, &batch)?, keep(&model, b, &batch)?);
    print(&format!(
        "A: {}\nB: {}\n",
        first.backend.device().name,
        second.backend.device().name
    ))?;
    let plan = plan_of(&model, &batch);
    for (i, (op, label)) in plan.ops.iter().zip(&plan.labels).enumerate() {
        let Some(out) = op.out() else { continue };
        let n_rows = shape(&batch).n_rows(plan.buffers[out.0].rows);
        let read = |kept: &mut Kept, out: BufferId| kept.backend.read(kept.plan, out, 0..n_rows);
        let error = squared_error(&read(&mut first, out)?, &read(&mut second, out)?);
        print(&format!("{i:4}  {error:9.2e}  {label}\n"))?;
        if error.is_nan() || error > args.tolerance {
            return print(&format!("op {i}, {label}, is the first that differs\n"));
        }
    }
    print(&format!(
        "no op differs by more than {:e}\n",
        args.tolerance
    ))
}

/// Squared difference over squared size.
fn squared_error(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let size: f64 = a.iter().map(|&a| square(f64::from(a))).sum();
    let pairs = a.iter().zip(b);
    let error: f64 = pairs
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    error / size.max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one() {
        let row = [0.5, -1.0, 3.0, 2.9];
        let total: f64 = (0..4).map(|id| log_probability(&row, id).exp()).sum();
        assert!((total - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_lowest_of_equals_wins() {
        assert_eq!(argmax(&[1.0, 4.0, 4.0]), 1);
    }

    #[test]
    fn errors_are_relative() {
        assert_eq!(squared_error(&[2.0, 0.0], &[1.0, 0.0]), 0.25);
        assert!(squared_error(&[1.0], &[f32::NAN]).is_nan());
    }
}
