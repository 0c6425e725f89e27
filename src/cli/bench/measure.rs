//! Prompts and answers, timed by the engine as `/api/generate` reports them.

use crate::engine::{Engine, Event, Request, SamplingParams, Usage};
use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Prompts, shortest first.
const LENGTHS: [usize; 3] = [128, 512, 1024];
/// Tokens before those that are decoded.
pub const N_BEFORE: usize = 256;
const N_DECODED: usize = 64;
/// The median of so many runs counts.
const N_RUNS: usize = 3;
/// What takes longer is run once, and longer prompts are left out.
const LONGEST: Duration = Duration::from_secs(3);

/// Tokens per second of prompts by length, and of decoding after a prompt: `(tokens, speed)`.
#[derive(Debug, Default, PartialEq)]
pub struct Speeds {
    pub prefill: Vec<(usize, f64)>,
    pub decode: Option<Decode>,
}

#[derive(Debug, PartialEq)]
pub struct Decode {
    pub n_before: usize,
    pub n_tokens: usize,
    pub tokens_per_second: f64,
}

/// Asks for a first token: pages of the file are read, and drivers finish their work at the first
/// launches.
///
/// # Errors
/// Those of the engine.
pub async fn warm_up(engine: &Engine) -> Result<()> {
    read(engine, vec![0]).await.map(|_| ())
}

/// Measures a loaded model that does nothing else.
///
/// # Errors
/// Those of the engine.
pub async fn measure(engine: &Engine) -> Result<Speeds> {
    let mut prompts = Prompts::new(engine.vocab_size());
    let mut speeds = Speeds::default();
    // A place for the answer.
    let most = engine.n_ctx() - usize::from(!engine.embeds());
    for n in LENGTHS.into_iter().filter(|&n| n <= most) {
        let mut times = vec![read(engine, prompts.next(n)).await?];
        while times.len() < N_RUNS && times[0] <= LONGEST {
            times.push(read(engine, prompts.next(n)).await?);
        }
        let is_slow = times[0] > LONGEST;
        speeds.prefill.push((n, n as f64 / median(times)));
        if is_slow {
            break;
        }
    }
    if !engine.embeds() {
        speeds.decode = Some(decode(engine, &mut prompts).await?);
    }
    Ok(speeds)
}

async fn decode(engine: &Engine, prompts: &mut Prompts) -> Result<Decode> {
    let n_before = N_BEFORE.min(engine.n_ctx() / 2);
    let n_tokens = N_DECODED.min(engine.n_ctx() - n_before);
    let mut times = Vec::new();
    while times.len() < N_RUNS && times.first().is_none_or(|first| *first <= LONGEST) {
        let usage = write(engine, prompts.next(n_before), n_tokens).await?;
        times.push(usage.eval_duration);
    }
    // The prompt gives the first token.
    let n_steps = n_tokens.saturating_sub(1);
    Ok(Decode {
        n_before,
        n_tokens,
        tokens_per_second: n_steps as f64 / median(times),
    })
}

/// How long a prompt, or a text to embed, takes.
async fn read(engine: &Engine, tokens: Vec<u32>) -> Result<Duration> {
    if engine.embeds() {
        let start = Instant::now();
        engine.embed(vec![tokens]).await?;
        return Ok(start.elapsed());
    }
    Ok(write(engine, tokens, 1).await?.prompt_duration)
}

/// Counts and times of an answer of so many tokens.
async fn write(engine: &Engine, tokens: Vec<u32>, n_predict: usize) -> Result<Usage> {
    let request = Request {
        n_predict: Some(n_predict),
        max_repeats: None,
        params: SamplingParams {
            seed: Some(0),
            ..SamplingParams::default()
        },
        ..Request::new(tokens)
    };
    let mut events = engine.submit(request)?;
    while let Some(event) = events.recv().await {
        match event {
            Event::Piece { .. } => {}
            Event::Done { usage, .. } => return Ok(usage),
            Event::Failed(error) => return Err(error.into()),
        }
    }
    bail!("the model's thread ended")
}

/// Prompts of fixed tokens, none of which begins as another: nothing is found in the cache.
struct Prompts {
    n_vocab: usize,
    n_given: usize,
}

impl Prompts {
    fn new(n_vocab: usize) -> Prompts {
        Prompts {
            n_vocab,
            n_given: 0,
        }
    }

    fn next(&mut self, n_tokens: usize) -> Vec<u32> {
        self.n_given += 1;
        let first = 101 * self.n_given;
        let ids = (0..n_tokens).map(|i| ((17 * i + first) % self.n_vocab) as u32);
        ids.collect()
    }
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_begin_differently() {
        let mut prompts = Prompts::new(500);
        let first = prompts.next(40);
        assert_eq!((first.len(), first[1]), (40, 118));
        assert_ne!(prompts.next(40)[0], first[0]);
    }

    #[test]
    fn the_median_is_a_time_that_was() {
        let times = [9, 1, 5].map(Duration::from_secs).to_vec();
        assert_eq!(median(times), 5.0);
    }
}
