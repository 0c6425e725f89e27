//! A case: a small plan, its weights, the steps to run, and how results are compared.

use std::sync::Arc;

use ollama_wgpu::backend::*;
use ollama_wgpu::gguf::Gguf;

use crate::reference::Reference;

/// Normalised squared error that float arithmetic may show.
const MAX_NMSE: f64 = 1e-7;
/// Error of one number, in units of the root mean square of all: so that a single wrong number
/// among many cannot hide.
const MAX_ERROR: f64 = 2e-3;

/// One op (and what feeds it) with its sizes, types and seed.
pub struct Case {
    pub name: String,
    pub file: Arc<Gguf>,
    /// Tensors in the order of the plan's weight ids.
    pub weights: Vec<Weight>,
    pub cache: Option<CacheSpec>,
    pub steps: Vec<Batch>,
    pub record: Box<dyn Fn(&mut PlanBuilder) -> View + Sync>,
    pub top_k: Option<usize>,
}

/// A weight of a case, by the names of its tensors.
#[derive(Clone)]
pub enum Weight {
    Plain(String),
    /// Matrices of so many experts, joined within each.
    Experts(Vec<String>, usize),
    /// Their biases.
    Biases(Vec<String>, usize),
}

impl From<&str> for Weight {
    fn from(name: &str) -> Weight {
        Weight::Plain(name.into())
    }
}

impl Weight {
    fn spec(&self, file: &Arc<Gguf>) -> Result<WeightSpec, String> {
        match self {
            Weight::Plain(name) => WeightSpec::join(file, &[name]),
            Weight::Experts(names, n) => WeightSpec::experts(file, &strs(names), *n),
            Weight::Biases(names, n) => WeightSpec::expert_biases(file, &strs(names), *n),
        }
    }
}

fn strs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// What the steps of a case gave.
pub struct Outcome {
    pub values: Vec<f32>,
    pub candidates: Vec<Candidates>,
}

impl Case {
    /// Runs all steps on a fresh backend.
    pub fn run(&self, backend: &mut dyn Backend) -> Result<Outcome, BackendError> {
        let specs: Vec<WeightSpec> = self
            .weights
            .iter()
            .map(|weight| weight.spec(&self.file).expect("the tensor is in the file"))
            .collect();
        for spec in &specs {
            backend.load(spec)?;
        }
        if let Some(cache) = &self.cache {
            backend.alloc_cache(cache)?;
        }
        let mut outcome = Outcome {
            values: Vec::new(),
            candidates: Vec::new(),
        };
        for batch in &self.steps {
            let shape = BatchShape {
                phase: batch.phase,
                n_tokens: batch.n_tokens(),
                n_outputs: batch.outputs.len(),
            };
            let tables = vec![rope_table()];
            let mut builder = PlanBuilder::new(shape, &specs, tables);
            let view = (self.record)(&mut builder);
            builder.output(view);
            if let Some(k) = self.top_k {
                builder.top_k(view, k);
            }
            let plan = builder.finish();
            let n_rows = shape.n_rows(plan.buffers[view.buffer.0].rows);
            let id = backend.prepare(plan)?;
            outcome.candidates.extend(backend.run(id, batch)?);
            outcome
                .values
                .extend(backend.read(id, view.buffer, 0..n_rows)?);
        }
        Ok(outcome)
    }

    /// What the oracle says.
    pub fn expected(&self) -> Outcome {
        let mut reference = Reference::default();
        self.run(&mut reference)
            .expect("the oracle runs every plan")
    }
}

/// The table of all cases: base 10000 over 16 of a head's columns.
pub fn rope_table() -> RopeTable {
    let none = RopeScaling::Linear { factor: 1.0 };
    RopeTable::new(10000.0, 16, &none, None).expect("a valid table")
}

/// What is wrong with a result, if anything.
pub fn difference(got: &Outcome, want: &Outcome) -> Option<String> {
    if got.values.len() != want.values.len() {
        return Some(format!(
            "{} numbers instead of {}",
            got.values.len(),
            want.values.len()
        ));
    }
    let pairs = || got.values.iter().zip(&want.values);
    let square = |x: f64| x * x;
    let total: f64 = pairs().map(|(_, &w)| square(f64::from(w))).sum();
    let error: f64 = pairs()
        .map(|(&g, &w)| square(f64::from(g) - f64::from(w)))
        .sum();
    let nmse = error / total.max(f64::MIN_POSITIVE);
    let rms = (total / got.values.len() as f64).sqrt();
    let wrong = pairs().position(|(&g, &w)| {
        let off = (f64::from(g) - f64::from(w)).abs();
        off.is_nan() || off > MAX_ERROR * rms
    });
    if let Some(i) = wrong {
        return Some(format!(
            "number {i} is {} instead of {} (normalised squared error {nmse:.1e})",
            got.values[i], want.values[i]
        ));
    }
    if nmse.is_nan() || nmse > MAX_NMSE {
        return Some(format!("normalised squared error {nmse:.1e}"));
    }
    candidates_difference(&got.candidates, &want.candidates)
}

/// Ids and logits must be equal, ties included; the sum over the vocabulary nearly so.
fn candidates_difference(got: &[Candidates], want: &[Candidates]) -> Option<String> {
    if got.len() != want.len() {
        return Some(format!(
            "candidates of {} rows instead of {}",
            got.len(),
            want.len()
        ));
    }
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        if g.ids != w.ids || g.logits != w.logits {
            let at = g.ids.iter().zip(&w.ids).position(|(g, w)| g != w);
            return Some(format!("candidates of row {i} differ at {at:?}"));
        }
        let off = (g.log_sum_exp - w.log_sum_exp).abs();
        if off.is_nan() || off > 1e-4 {
            return Some(format!(
                "log_sum_exp of row {i} is {} instead of {}",
                g.log_sum_exp, w.log_sum_exp
            ));
        }
    }
    None
}
