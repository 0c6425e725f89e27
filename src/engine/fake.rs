//! A backend without arithmetic: logits are a hash of all that a token's attention would read, so
//! that a wrong page, position, phase or batch shows as another token.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::device::{Device, n_draft};
use super::output::Vocabulary;
use crate::backend::{
    Backend, BackendError, Batch, BatchShape, BufferId, BufferInfo, CacheSpec, Candidates,
    DeviceInfo, PAGE_TOKENS, Phase, Plan, PreparedId, Rows, Sampled, Sampling, WeightId,
    WeightSpec,
};

#[path = "../../kernels-tests/reference/sample.rs"]
mod sample;
pub use sample::sample;

pub const VOCAB_SIZE: usize = 96;

/// Ends a generation.
pub const END: u32 = 0;

/// What goes wrong, at the step of that number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Lost(usize),
    Panic(usize),
    NotANumber(usize),
}

#[derive(Debug, Clone, Copy)]
struct Kv {
    position: u32,
    hash: u64,
}

/// The memory of a fake GPU.
#[derive(Debug, Clone, Copy)]
pub struct FakeGpu {
    /// Bytes that it says it has.
    pub memory_bytes: Option<u64>,
    /// Bytes that it says are free.
    pub free_bytes: u64,
    /// Weights that there is room for.
    pub max_weights: usize,
}

/// What to build a fake model with.
#[derive(Debug, Clone, Copy)]
pub struct FakeOptions {
    pub n_parallel: usize,
    pub n_batch: usize,
    pub n_pages: usize,
    /// Pages that its memory can hold.
    pub max_pages: usize,
    /// Candidates of each row; few, so that whole rows are read often.
    pub n_candidates: usize,
    pub decode_equals_prefill: bool,
    /// Logits follow from a recurrent state instead of the cache.
    pub is_recurrent: bool,
    /// Logits follow from the position modulo this alone: a text that repeats itself.
    pub period: Option<u32>,
    /// Whether it chooses tokens where it can.
    pub samples: bool,
    /// What it is as a GPU; none for a CPU.
    pub gpu: Option<FakeGpu>,
    pub fault: Option<Fault>,
    /// How long it takes for each weight.
    pub load_time: Duration,
}

impl Default for FakeOptions {
    fn default() -> FakeOptions {
        FakeOptions {
            n_parallel: 4,
            n_batch: 64,
            n_pages: 64,
            max_pages: usize::MAX,
            n_candidates: 8,
            decode_equals_prefill: false,
            samples: false,
            is_recurrent: false,
            period: None,
            gpu: None,
            fault: None,
            load_time: Duration::ZERO,
        }
    }
}

pub struct FakeBackend {
    options: FakeOptions,
    cache: Vec<Option<Kv>>,
    /// Positions that are in the recurrent state of each slot, and the hash of all of them.
    states: Vec<(u32, u64)>,
    plans: Vec<Plan>,
    n_weights: usize,
    n_loaded: usize,
    last: Option<(PreparedId, Vec<Vec<f32>>)>,
    /// Results of the steps under way.
    started: VecDeque<Vec<Sampled>>,
    /// Tokens that the last step chose.
    chosen: Vec<Option<u32>>,
    n_steps: Arc<AtomicUsize>,
}

/// A device over a fake backend, and the number of its steps so far.
pub fn device(options: FakeOptions) -> (Device, Arc<AtomicUsize>) {
    let n_steps = Arc::new(AtomicUsize::new(0));
    let mut backend = FakeBackend::new(options);
    backend.cache = vec![None; options.n_pages * PAGE_TOKENS];
    backend.n_steps = Arc::clone(&n_steps);
    let plan = |phase, n_tokens, n_outputs| Plan {
        shape: BatchShape {
            phase,
            n_tokens,
            n_outputs,
        },
        ops: Vec::new(),
        labels: Vec::new(),
        layers: Vec::new(),
        buffers: vec![BufferInfo {
            rows: Rows::Outputs,
            cols: VOCAB_SIZE,
            storage: 0,
        }],
        rope_tables: Vec::new(),
        outputs: vec![BufferId(0)],
        inputs: Vec::new(),
    };
    let n_draft = n_draft(&backend, options.is_recurrent);
    let n_decode = options.n_parallel + n_draft;
    let device = Device::new(
        Box::new(backend),
        options.n_pages,
        VOCAB_SIZE,
        plan(Phase::Prefill, options.n_batch, options.n_parallel),
        plan(Phase::Decode, n_decode, n_decode),
    );
    let mut device = device.expect("the fake prepares anything");
    device.is_recurrent = options.is_recurrent;
    device.n_draft = n_draft;
    (device, n_steps)
}

fn mix(a: u64, b: u64) -> u64 {
    let z = (a ^ b.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z ^ (z >> 29)
}

/// The hash of a token's keys and values, given those of all tokens before it.
fn kv_hash(before: u64, token: u32, phase: Phase, equal: bool) -> u64 {
    let phase = u64::from(!equal && phase == Phase::Decode);
    mix(mix(before, u64::from(token) + 1), phase + 7)
}

/// Logits after a token with these keys and values.
fn logits(hash: u64, vocab_size: usize) -> Vec<f32> {
    let logit = |i: u64| (mix(mix(hash, i + 3), 11) >> 52) as f32 / 512.0;
    (0..vocab_size as u64).map(logit).collect()
}

/// Logits after a prompt and generated tokens, each computed in its own phase, alone.
pub fn reference_logits(prompt: &[u32], generated: &[u32], equal: bool) -> Vec<f32> {
    let prompt = prompt.iter().map(|&t| (t, Phase::Prefill));
    let generated = generated.iter().map(|&t| (t, Phase::Decode));
    let mut kvs: Vec<u64> = Vec::new();
    for (token, phase) in prompt.chain(generated) {
        let before = kvs.iter().fold(0, |a, &b| mix(a, b));
        kvs.push(kv_hash(before, token, phase, equal));
    }
    logits(kvs.iter().fold(0, |a, &b| mix(a, b)), VOCAB_SIZE)
}

/// ln(sum(exp(logit))).
pub fn log_sum_exp(row: &[f32]) -> f32 {
    let total: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
    total.ln() as f32
}

/// The best of a row.
pub fn best(row: &[f32], n: usize) -> Candidates {
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    ids.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]).then(a.cmp(&b)));
    ids.truncate(n);
    Candidates {
        logits: ids.iter().map(|&id| row[id as usize]).collect(),
        ids,
        log_sum_exp: log_sum_exp(row),
    }
}

impl FakeBackend {
    /// Without weights and cache.
    pub fn new(options: FakeOptions) -> FakeBackend {
        FakeBackend {
            options,
            cache: Vec::new(),
            states: vec![(u32::MAX, 0); options.n_parallel],
            plans: Vec::new(),
            n_weights: 0,
            n_loaded: 0,
            last: None,
            started: VecDeque::new(),
            chosen: Vec::new(),
            n_steps: Arc::default(),
        }
    }

    /// Hash of all that the state of a slot has seen, which must be `end` positions.
    fn read_state(&self, slot: usize, end: u32) -> u64 {
        let (n_seen, hash) = self.states[slot];
        match end {
            0 => 0,
            _ => {
                assert_eq!(n_seen, end, "the state of another position");
                hash
            }
        }
    }

    /// Hash of all that the row's sequence holds before `end`.
    fn read_cache(&self, batch: &Batch, row: usize, end: u32) -> u64 {
        let table = &batch.tables[batch.sequences[row] as usize];
        (0..end as usize).fold(0, |hash, at| {
            let slot = table[at / PAGE_TOKENS] as usize * PAGE_TOKENS + at % PAGE_TOKENS;
            let kv = self.cache[slot].expect("a slot is written before it is read");
            assert_eq!(kv.position as usize, at, "keys of another position");
            mix(hash, kv.hash)
        })
    }

    /// Logits of the wanted rows.
    fn step(&mut self, plan: PreparedId, batch: &Batch) -> Result<Vec<Vec<f32>>, BackendError> {
        let step = self.n_steps.fetch_add(1, Ordering::SeqCst);
        if self.options.fault == Some(Fault::Lost(step)) {
            return Err(BackendError::Lost {
                device: "fake".into(),
                what: "unplugged".into(),
            });
        }
        assert_ne!(self.options.fault, Some(Fault::Panic(step)), "injected");
        let Plan {
            shape,
            buffers,
            outputs,
            ..
        } = &self.plans[plan.0];
        let vocab_size = buffers[outputs[0].0].cols;
        batch
            .check(vocab_size, usize::MAX, self.cache.len())
            .map_err(BackendError::Invalid)?;
        assert_eq!(batch.phase, shape.phase);
        assert!(batch.n_tokens() <= shape.n_tokens && batch.outputs.len() <= shape.n_outputs);
        assert!(!batch.tokens.is_empty(), "an empty step");
        let mut rows = Vec::new();
        for row in 0..batch.n_tokens() {
            let position = batch.positions[row];
            let state = batch.states[batch.sequences[row] as usize] as usize;
            let before = match self.options.is_recurrent {
                true => self.read_state(state, position),
                false => self.read_cache(batch, row, position),
            };
            let equal = self.options.decode_equals_prefill;
            let hash = kv_hash(before, batch.tokens[row], batch.phase, equal);
            self.cache[batch.slots[row] as usize] = Some(Kv { position, hash });
            self.states[state] = (position + 1, mix(before, hash));
            if batch.outputs.contains(&(row as u32)) {
                let all = match self.options.is_recurrent {
                    true => self.read_state(state, position + 1),
                    false => self.read_cache(batch, row, position + 1),
                };
                let all = self.options.period.map_or(all, |n| (position % n).into());
                rows.push(logits(all, vocab_size));
            }
        }
        if self.options.fault == Some(Fault::NotANumber(step)) {
            rows.iter_mut().for_each(|row| row.fill(f32::NAN));
        }
        self.last = Some((plan, rows.clone()));
        Ok(rows)
    }
}

impl Backend for FakeBackend {
    fn device(&self) -> DeviceInfo {
        DeviceInfo {
            name: "fake".into(),
            api: "none".into(),
            is_gpu: self.options.gpu.is_some(),
            memory_bytes: self.options.gpu.and_then(|gpu| gpu.memory_bytes),
        }
    }

    fn load(&mut self, _: &WeightSpec) -> Result<WeightId, BackendError> {
        std::thread::sleep(self.options.load_time);
        self.n_loaded += 1;
        self.n_weights += 1;
        let gpu = self.options.gpu;
        match gpu.is_some_and(|gpu| self.n_loaded > gpu.max_weights) {
            true => Err(BackendError::OutOfMemory {
                device: "fake".into(),
                what: "a weight".into(),
                bytes: 1,
            }),
            false => Ok(WeightId(self.n_weights - 1)),
        }
    }

    fn skip(&mut self, _: &WeightSpec) -> Result<WeightId, BackendError> {
        self.n_weights += 1;
        Ok(WeightId(self.n_weights - 1))
    }

    fn free_bytes(&mut self, wanted: u64) -> u64 {
        self.options
            .gpu
            .map_or(wanted, |gpu| gpu.free_bytes.min(wanted))
    }

    fn alloc_cache(&mut self, cache: &CacheSpec) -> Result<(), BackendError> {
        if cache.n_pages > self.options.max_pages {
            return Err(BackendError::OutOfMemory {
                device: "fake".into(),
                what: "the cache".into(),
                bytes: cache.bytes(),
            });
        }
        self.cache = vec![None; cache.n_slots()];
        Ok(())
    }

    fn prepare(&mut self, plan: Plan) -> Result<PreparedId, BackendError> {
        self.plans.push(plan);
        Ok(PreparedId(self.plans.len() - 1))
    }

    fn run(&mut self, plan: PreparedId, batch: &Batch) -> Result<Vec<Candidates>, BackendError> {
        let rows = self.step(plan, batch)?;
        let candidates = rows.iter().map(|r| best(r, self.options.n_candidates));
        Ok(candidates.collect())
    }

    fn samples(&self) -> bool {
        self.options.samples
    }

    fn start(
        &mut self,
        plan: PreparedId,
        batch: &Batch,
        sampling: &[Option<Sampling>],
        follows: bool,
    ) -> Result<(), BackendError> {
        assert!(self.started.len() < 2 && sampling.len() == batch.outputs.len());
        let mut batch = batch.clone();
        if follows {
            // A row of which no token could be chosen is void.
            let tokens = self.chosen.iter().map(|token| token.unwrap_or(END));
            batch.tokens = tokens.collect();
        }
        let rows = self.step(plan, &batch)?;
        let own = batch.outputs.iter().map(|&row| batch.tokens[row as usize]);
        let each = rows.iter().zip(sampling).zip(own);
        let results = each.map(|((row, sampling), own)| match sampling {
            None => Sampled::Candidates(best(row, self.options.n_candidates)),
            Some(how) => sample(how, own, row).map_or(Sampled::InvalidLogits, Sampled::Token),
        });
        let results: Vec<Sampled> = results.collect();
        let chosen = results.iter().map(|result| match result {
            Sampled::Token(token) => Some(*token),
            _ => None,
        });
        self.chosen = chosen.collect();
        self.started.push_back(results);
        Ok(())
    }

    fn finish(&mut self) -> Result<Vec<Sampled>, BackendError> {
        Ok(self.started.pop_front().expect("a step is under way"))
    }

    fn write(&mut self, _: PreparedId, _: BufferId, _: &[f32]) -> Result<(), BackendError> {
        Err(BackendError::Invalid("the fake has no inputs".into()))
    }

    fn read(
        &mut self,
        plan: PreparedId,
        buffer: BufferId,
        rows: Range<usize>,
    ) -> Result<Vec<f32>, BackendError> {
        let (last, logits) = self.last.as_ref().expect("a step ran");
        assert_eq!((*last, buffer), (plan, self.plans[plan.0].outputs[0]));
        Ok(logits[rows].concat())
    }

    fn decode_equals_prefill(&self) -> bool {
        self.options.decode_equals_prefill
    }
}

/// Token 0 ends, 1 is a control token, 2 to 4 are parts of a euro sign, the rest are letters.
pub struct FakeVocabulary;

const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ";

impl Vocabulary for FakeVocabulary {
    fn token_bytes(&self, token: u32) -> &[u8] {
        match token {
            0 => b"<end>",
            1 => b"<mark>",
            2 => b"\xe2",
            3 => b"\x82",
            4 => b"\xac",
            _ => {
                let at = token as usize % LETTERS.len();
                &LETTERS[at..=at]
            }
        }
    }

    fn is_control(&self, token: u32) -> bool {
        token < 2
    }

    fn is_end_of_generation(&self, token: u32) -> bool {
        token == END
    }

    fn adds_bos(&self) -> bool {
        false
    }
}
