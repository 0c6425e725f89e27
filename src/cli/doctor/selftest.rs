//! Products and copies of a device, on a file of matrices that is made for it.

use crate::backend::{
    Backend, Batch, BatchShape, NO_SLOT, Phase, PlanBuilder, WeightId, WeightSpec,
};
use crate::gguf::{Gguf, Header};
use crate::quant::QuantType;
use anyhow::{Context, Result, anyhow};
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;
use tempfile::NamedTempFile;

const TYPES: [QuantType; 13] = [
    QuantType::F32,
    QuantType::F16,
    QuantType::BF16,
    QuantType::Q4_0,
    QuantType::Q4_1,
    QuantType::Q5_0,
    QuantType::Q5_1,
    QuantType::Q8_0,
    QuantType::Q2_K,
    QuantType::Q3_K,
    QuantType::Q4_K,
    QuantType::Q5_K,
    QuantType::Q6_K,
];
const COLS: usize = 512;
const ROWS: usize = 96;
/// Rows of activations: one for the kernels of decoding, several for those of prefill.
const N_ROWS: [(Phase, usize); 2] = [(Phase::Decode, 1), (Phase::Prefill, 40)];
/// Largest error of a product, as a share of the sum of its terms' magnitudes.
const TOLERANCE: f64 = 1e-4;
/// Rows of the tables that activations come from; as many tokens or more take them in turn.
const TABLE_ROWS: usize = 8;
/// The copy is of so many rows, 64 MiB: too large for most caches.
const COPY_ROWS: usize = 256;
const WIDE_COLS: usize = 65_536;
const N_RUNS: usize = 5;
/// A copy takes at least so small a part of the time of three with their embedding.
const SHARES: f64 = 8.0;

/// The file, which lasts as long as this.
pub struct SelfTest {
    gguf: Arc<Gguf>,
    _file: NamedTempFile,
}

impl SelfTest {
    /// Writes the file of matrices to the folder for temporary files.
    pub fn new() -> Result<SelfTest> {
        let mut header = Header::default();
        header.string("general.architecture", "selftest");
        header.tensor("rows", &[COLS as u64, TABLE_ROWS as u64], QuantType::F32);
        header.tensor(
            "wide",
            &[WIDE_COLS as u64, TABLE_ROWS as u64],
            QuantType::F32,
        );
        for quant in TYPES {
            header.tensor(quant.name(), &[COLS as u64, ROWS as u64], quant);
        }
        let mut bytes = Vec::new();
        header.write(&mut bytes)?;
        put(&mut bytes, COLS * TABLE_ROWS, QuantType::F32)?;
        put(&mut bytes, WIDE_COLS * TABLE_ROWS, QuantType::F32)?;
        for quant in TYPES {
            put(&mut bytes, COLS * ROWS, quant)?;
        }
        let mut file = NamedTempFile::new().context("cannot make a temporary file")?;
        file.write_all(&bytes)
            .context("cannot write a temporary file")?;
        let gguf = Arc::new(Gguf::open(file.path())?);
        Ok(SelfTest { gguf, _file: file })
    }

    /// Types that are tried.
    pub fn n_types(&self) -> usize {
        TYPES.len()
    }

    fn weight(&self, name: &str) -> Result<WeightSpec> {
        WeightSpec::join(&self.gguf, &[name]).map_err(|e| anyhow!(e))
    }

    /// Names of the types whose products come out wrong.
    pub fn wrong_products(&self, mut backend: Box<dyn Backend>) -> Result<Vec<&'static str>> {
        let names = ["rows"].into_iter().chain(TYPES.map(QuantType::name));
        let specs = names
            .map(|name| self.weight(name))
            .collect::<Result<Vec<_>>>()?;
        for spec in &specs {
            backend.load(spec)?;
        }
        let mut wrong = Vec::new();
        for (phase, n) in N_ROWS {
            let shape = BatchShape {
                phase,
                n_tokens: n,
                n_outputs: n,
            };
            let mut builder = PlanBuilder::new(shape, &specs, Vec::new());
            let rows = builder.embed(WeightId(0), 1.0);
            let mut products = Vec::new();
            for (i, quant) in TYPES.into_iter().enumerate() {
                let product = builder.matmul(rows, WeightId(1 + i), None, None);
                builder.output(product);
                products.push((quant, product));
            }
            let plan = backend.prepare(builder.finish())?;
            backend.run(plan, &batch(phase, n))?;
            for (quant, product) in products {
                let got = backend.read(plan, product.buffer, 0..n)?;
                if !self.are_right(quant, &got) && !wrong.contains(&quant.name()) {
                    wrong.push(quant.name());
                }
            }
        }
        Ok(wrong)
    }

    /// Whether these are the products of the first rows with the matrix of the type.
    fn are_right(&self, quant: QuantType, got: &[f32]) -> bool {
        let decoded = |name: &str| {
            let tensor = self.gguf.tensor(name);
            let mut weights = vec![0.0; tensor.map_or(0, |t| t.n_elements() as usize)];
            if let Some((tensor, quant)) = tensor.and_then(|t| Some((t, t.quant()?))) {
                quant.decode(self.gguf.data(tensor), &mut weights);
            }
            weights
        };
        let (rows, matrix) = (decoded("rows"), decoded(quant.name()));
        let products = rows.chunks(COLS).cycle().flat_map(|x| {
            let columns = matrix.chunks(COLS);
            columns.map(move |w| {
                let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                terms.fold((0.0, 0.0), |(sum, size), term| {
                    (sum + term, size + term.abs())
                })
            })
        });
        // Written so that NaN is wrong.
        got.iter()
            .zip(products)
            .all(|(got, (want, size))| (f64::from(*got) - want).abs() <= TOLERANCE * size)
    }

    /// Bytes that a copy reads in a second, while it writes as many.
    pub fn copy_speed(&self, mut backend: Box<dyn Backend>) -> Result<f64> {
        let specs = [self.weight("wide")?];
        backend.load(&specs[0])?;
        let shape = BatchShape {
            phase: Phase::Prefill,
            n_tokens: COPY_ROWS,
            n_outputs: COPY_ROWS,
        };
        // The cost of the embedding that feeds the copies is taken off.
        let seconds = [1, 3].map(|n_copies| -> Result<f64> {
            let mut builder = PlanBuilder::new(shape, &specs, Vec::new());
            let source = builder.embed(WeightId(0), 1.0);
            for _ in 0..n_copies {
                let copy = builder.select_rows(source);
                builder.output(copy);
            }
            let plan = backend.prepare(builder.finish())?;
            let batch = batch(Phase::Prefill, COPY_ROWS);
            let mut least = f64::INFINITY;
            for _ in 0..N_RUNS {
                let start = Instant::now();
                backend.run(plan, &batch)?;
                least = least.min(start.elapsed().as_secs_f64());
            }
            Ok(least)
        });
        let [one, three] = seconds;
        let (one, three) = (one?, three?);
        let bytes = (COPY_ROWS * WIDE_COLS * size_of::<f32>()) as f64;
        // The embedding writes what a copy does and reads little. On a busy machine the difference can be anything.
        Ok(bytes / ((three - one) / 2.0).max(three / SHARES))
    }
}

/// One token a row, as many rows as tokens: ids go through the rows of the smaller table.
fn batch(phase: Phase, n: usize) -> Batch {
    let tokens: Vec<u32> = (0..n).map(|i| (i % TABLE_ROWS) as u32).collect();
    let mut batch = Batch::single(phase, &tokens, 0, (0..n as u32).collect());
    batch.slots = vec![NO_SLOT; n];
    batch
}

/// Adds a tensor's bytes: numbers between -1 and 1 that repeat late.
fn put(bytes: &mut Vec<u8>, n: usize, quant: QuantType) -> Result<()> {
    let weights: Vec<f32> = (0..n)
        .map(|i| (i * 7919 % 10_007) as f32 / 5003.5 - 1.0)
        .collect();
    let start = bytes.len();
    bytes.resize(start + quant.row_bytes(n), 0);
    quant.encode(&weights, &mut bytes[start..])?;
    let n_bytes = bytes.len() - start;
    bytes.extend_from_slice(Header::padding(n_bytes as u64));
    Ok(())
}
