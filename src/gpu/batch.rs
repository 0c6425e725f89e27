//! The step's input as the shaders read it: `shaders/parts/batch.wgsl` is its other half.

use crate::backend::{
    Batch, BatchShape, CacheSpec, MAX_CANDIDATES, Op, PAGE_TOKENS, Phase, Plan, Rows, Sampling,
};

/// Words of counts and offsets before the columns.
pub(super) const HEADER_WORDS: usize = 17;
/// Header word with the offset of the first rope table.
const ROPE_WORD: usize = 9;
/// Header word with the offset of the sequences' runs of rows.
pub(super) const RUNS_WORD: usize = 15;
/// Header word with the offset of the wanted rows' offsets of how their token is chosen.
pub(super) const SAMPLING_WORD: usize = 16;
/// Words that say how a token is chosen, before the seen ones.
const SAMPLING_WORDS: usize = 9;
/// Rope tables that the header has room for.
pub(super) const MAX_ROPE_TABLES: usize = RUNS_WORD - ROPE_WORD;
/// Words of a run: first row, rows, state slot, whether the sequence begins.
const RUN_WORDS: usize = 4;

/// Tokens of an attention split, unless the sequence has more than [`MAX_SPLITS`] times as many.
pub(super) const SPLIT_TOKENS: usize = 256;
pub(super) const MAX_SPLITS: usize = 32;
/// Tokens of a tile of cached keys in decode attention; splits are whole tiles.
pub(super) const DECODE_TILE: usize = 64;

/// The batch's sizes that decide how many workgroups a launch has.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts {
    pub n_tokens: usize,
    pub n_outputs: usize,
    pub n_tiles: usize,
    pub n_runs: usize,
    /// Wanted rows, if the device chooses the token of any; else none.
    pub n_sampled: usize,
    positions: Vec<u32>,
}

impl Counts {
    pub fn rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.n_tokens,
            Rows::Outputs => self.n_outputs,
        }
    }

    /// The most splits that a row has, as `n_splits` of `shaders/parts/splits.wgsl` counts them.
    pub fn max_splits(&self, window: usize) -> usize {
        let splits = self.positions.iter().map(|&p| n_splits(p, window));
        splits.max().unwrap_or(0)
    }
}

fn n_splits(position: u32, window: usize) -> usize {
    let end = position as usize + 1;
    let start = match window {
        0 => 0,
        window => end.saturating_sub(window),
    };
    let n = end - start / DECODE_TILE * DECODE_TILE;
    let needed = n.div_ceil(MAX_SPLITS).next_multiple_of(DECODE_TILE);
    n.div_ceil(needed.max(SPLIT_TOKENS))
}

/// Bytes that a batch of this shape takes at most. Page tables are those of the sequences that the cache is for, each
/// of all its pages; a sequence may have them all, and others the same ones.
pub(super) fn max_bytes(plan: &Plan, cache: Option<&CacheSpec>) -> u64 {
    let BatchShape {
        n_tokens,
        n_outputs,
        ..
    } = plan.shape;
    let rope: usize = plan.rope_tables.iter().map(|t| 2 * t.half_dim()).sum();
    let per_token = 4 + 1 + 3 + rope + RUN_WORDS;
    let tables = cache.map_or(0, |cache| n_tokens.min(cache.n_sequences) * cache.n_pages);
    let samples = plan.ops.iter().any(|op| matches!(op, Op::TopK { .. }));
    let per_output = match samples {
        true => 2 + SAMPLING_WORDS + MAX_CANDIDATES,
        false => 1,
    };
    4 * (HEADER_WORDS + n_tokens * per_token + tables + n_outputs * per_output) as u64
}

/// Writes the words of a batch to `words`, queries in tiles of `tile_rows`, with page tables where
/// there is a cache. The tokens come first, after the header.
pub(super) fn write(
    plan: &Plan,
    batch: &Batch,
    sampling: &[Option<Sampling>],
    tile_rows: usize,
    paged: bool,
    words: &mut Vec<u32>,
) -> Counts {
    words.clear();
    words.resize(HEADER_WORDS, 0);
    let columns = [
        (3, &batch.tokens),
        (4, &batch.positions),
        (5, &batch.slots),
        (7, &batch.outputs),
    ];
    for (header, column) in columns {
        words[header] = words.len() as u32;
        words.extend_from_slice(column);
    }
    if paged {
        write_tables(batch, words);
    }
    let n_tiles = match plan.shape.phase {
        Phase::Prefill => write_tiles(batch, tile_rows, words),
        Phase::Decode => 0,
    };
    let n_runs = write_runs(batch, words);
    write_rope(plan, batch, words);
    let n_sampled = write_sampling(sampling, words);
    words[0] = batch.n_tokens() as u32;
    words[1] = batch.outputs.len() as u32;
    words[2] = n_tiles as u32;
    Counts {
        n_tokens: batch.n_tokens(),
        n_outputs: batch.outputs.len(),
        n_tiles,
        n_runs,
        n_sampled,
        positions: match plan.shape.phase {
            Phase::Prefill => Vec::new(),
            Phase::Decode => batch.positions.clone(),
        },
    }
}

/// Per row the offset of its sequence's page table; then the tables, as far as they are read.
fn write_tables(batch: &Batch, words: &mut Vec<u32>) {
    let at = words.len();
    words[6] = at as u32;
    words.resize(at + batch.n_tokens(), 0);
    let mut first = 0;
    while first < batch.n_tokens() {
        let n = run_length(batch, first);
        let last = batch.positions[first..first + n].iter().max();
        let n_pages = last.map_or(0, |&p| p as usize / PAGE_TOKENS + 1);
        let table = words.len() as u32;
        words[at + first..at + first + n].fill(table);
        let pages = &batch.tables[batch.sequences[first] as usize];
        words.extend_from_slice(&pages[..n_pages]);
        first += n;
    }
}

/// Rows from `first` on that belong to the same sequence.
fn run_length(batch: &Batch, first: usize) -> usize {
    let rest = batch.sequences[first..].iter();
    rest.take_while(|&&s| s == batch.sequences[first]).count()
}

/// First row and length of runs of at most `tile_rows` rows of one sequence, and the positions of
/// the sequence up to its last row.
fn write_tiles(batch: &Batch, tile_rows: usize, words: &mut Vec<u32>) -> usize {
    words[8] = words.len() as u32;
    let mut n_tiles = 0;
    let mut first = 0;
    while first < batch.n_tokens() {
        let rest = run_length(batch, first);
        let n = rest.min(tile_rows);
        let length = batch.positions[first + rest - 1] + 1;
        words.extend([first as u32, n as u32, length]);
        first += n;
        n_tiles += 1;
    }
    n_tiles
}

/// The rows of each sequence, as `shaders/parts/runs.wgsl` reads them.
fn write_runs(batch: &Batch, words: &mut Vec<u32>) -> usize {
    let start = words.len();
    words[RUNS_WORD] = start as u32;
    for run in batch.runs() {
        let numbers = [run.first, run.len, run.state, usize::from(run.begins)];
        words.extend(numbers.map(|n| n as u32));
    }
    (words.len() - start) / RUN_WORDS
}

fn write_rope(plan: &Plan, batch: &Batch, words: &mut Vec<u32>) {
    let mut angles = Vec::new();
    for (i, table) in plan.rope_tables.iter().enumerate() {
        words[ROPE_WORD + i] = words.len() as u32;
        angles.clear();
        for &position in &batch.positions {
            table.append(position, &mut angles);
        }
        words.extend(angles.iter().map(|a| a.to_bits()));
    }
}

/// How the tokens of the wanted rows are chosen, as `shaders/kernels/sample.wgsl` reads it.
fn write_sampling(sampling: &[Option<Sampling>], words: &mut Vec<u32>) -> usize {
    if sampling.iter().all(Option::is_none) {
        return 0;
    }
    let at = words.len();
    words[SAMPLING_WORD] = at as u32;
    words.resize(at + sampling.len(), 0);
    for (i, row) in sampling.iter().enumerate() {
        let Some(row) = row else { continue };
        words[at + i] = words.len() as u32;
        let (repeat, presence, frequency, before, n_seen) = match &row.penalties {
            Some(p) => (
                p.repeat,
                p.presence,
                p.frequency,
                &p.before[..],
                p.before.len() + 1,
            ),
            None => (1.0, 0.0, 0.0, &[][..], 0),
        };
        let [
            temperature,
            top_p,
            log_min_p,
            uniform,
            repeat,
            presence,
            frequency,
        ] = [
            row.temperature,
            row.top_p,
            row.log_min_p,
            row.uniform,
            repeat,
            presence,
            frequency,
        ]
        .map(f32::to_bits);
        let record: [u32; SAMPLING_WORDS] = [
            row.top_k,
            temperature,
            top_p,
            log_min_p,
            uniform,
            n_seen as u32,
            repeat,
            presence,
            frequency,
        ];
        words.extend(record);
        words.extend_from_slice(before);
    }
    sampling.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::PlanBuilder;

    fn plan(phase: Phase) -> Plan {
        let shape = BatchShape {
            phase,
            n_tokens: 8,
            n_outputs: 8,
        };
        PlanBuilder::new(shape, &[], vec![]).finish()
    }

    #[test]
    fn tiles_end_with_their_sequence() {
        let batch = Batch {
            phase: Phase::Prefill,
            tokens: vec![0; 6],
            positions: vec![0, 1, 2, 0, 1, 2],
            slots: vec![0, 1, 2, 32, 33, 34],
            sequences: vec![0, 0, 0, 1, 1, 1],
            tables: vec![vec![0], vec![1]],
            states: vec![7, 2],
            outputs: vec![5],
        };
        let mut words = Vec::new();
        let counts = write(&plan(Phase::Prefill), &batch, &[], 2, true, &mut words);
        assert_eq!((counts.n_tiles, counts.n_outputs), (4, 1));
        let tiles = &words[words[8] as usize..][..12];
        assert_eq!(tiles, [0, 2, 3, 2, 1, 3, 3, 2, 3, 5, 1, 3]);
        let tables = &words[words[6] as usize..][..6];
        assert_eq!(words[tables[2] as usize], 0);
        assert_eq!(words[tables[3] as usize], 1);
        let runs = &words[words[RUNS_WORD] as usize..][..8];
        assert_eq!((counts.n_runs, runs), (2, &[0, 3, 7, 1, 3, 3, 2, 1][..]));
        let cache = CacheSpec {
            n_pages: 2,
            n_sequences: 2,
            ..CacheSpec::default()
        };
        assert!(4 * words.len() as u64 <= max_bytes(&plan(Phase::Prefill), Some(&cache)));
    }

    #[test]
    fn splits_depend_on_the_visible_length() {
        assert_eq!(n_splits(0, 0), 1);
        assert_eq!(n_splits(255, 0), 1);
        assert_eq!(n_splits(256, 0), 2);
        assert_eq!(n_splits(100_000, 0), 32);
        // The window begins inside a tile, whose first tokens are masked.
        assert_eq!(n_splits(1000, 256), 2);
        assert_eq!(n_splits(100, 256), 1);
    }
}
