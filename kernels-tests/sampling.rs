//! Tokens that a device chooses, against the twin in f64.

use ollama_wgpu::backend::*;

use crate::cases::{below, rows};
use crate::devices::{self, Device};
use crate::file::Random;
use crate::reference::sample::sample;

/// What two sums of probabilities may differ by.
const ROUNDING: f32 = 1e-5;

/// A plan whose input are the logits of so many rows.
fn plan(n: usize, n_vocab: usize) -> Plan {
    let view = View {
        buffer: BufferId(0),
        offset: 0,
        cols: n_vocab,
    };
    Plan {
        shape: BatchShape {
            phase: Phase::Decode,
            n_tokens: n,
            n_outputs: n,
        },
        ops: vec![Op::TopK {
            input: view,
            k: MAX_CANDIDATES.min(n_vocab),
        }],
        labels: vec![String::new()],
        layers: vec![None],
        buffers: vec![BufferInfo {
            rows: Rows::Outputs,
            cols: n_vocab,
            storage: 0,
        }],
        rope_tables: Vec::new(),
        outputs: vec![BufferId(0)],
        inputs: vec![BufferId(0)],
    }
}

/// Rows that are easy to get wrong.
fn logits(n_vocab: usize) -> Vec<Vec<f32>> {
    let mut r = Random::new(n_vocab as u64);
    let mut random = |scale: f32| -> Vec<f32> { (0..n_vocab).map(|_| r.float() * scale).collect() };
    let smooth = random(8.0);
    let ties = random(4.0)
        .iter()
        .map(|x| (x * 4.0).round() / 4.0)
        .collect();
    let negative = random(3.0).iter().map(|x| x - 20.0).collect();
    let with = |at: usize, value: f32| {
        let mut row = smooth.clone();
        row[at % n_vocab] = value;
        row
    };
    let mut few = vec![f32::NEG_INFINITY; n_vocab];
    few[n_vocab / 2] = 1.0;
    few[n_vocab / 3] = 0.5;
    vec![
        with(7, 1e4),
        with(9, f32::NEG_INFINITY),
        ties,
        negative,
        vec![3.25; n_vocab],
        few,
        with(11, f32::NAN),
        with(13, f32::INFINITY),
        vec![f32::NEG_INFINITY; n_vocab],
        smooth,
    ]
}

/// All that a request may ask of a device, one after another.
fn samplings(row: &[f32]) -> Vec<Sampling> {
    let mut ids: Vec<u32> = (0..row.len() as u32).collect();
    ids.sort_by(|&a, &b| row[b as usize].total_cmp(&row[a as usize]));
    let mut r = Random::new(5);
    let mut all = Vec::new();
    for (repeat, presence, frequency, n_before) in [
        (1.0, 0.0, 0.0, 0),
        (1.1, 0.0, 0.0, 63),
        (1.5, 0.5, 0.3, 7),
        (2.0, 0.0, 1.5, 87),
    ] {
        // Among the best, and some of them more than once.
        let before: Vec<u32> = (0..n_before).map(|_| ids[below(&mut r, 30)]).collect();
        let penalties = (n_before > 0).then_some(Penalties {
            repeat,
            presence,
            frequency,
            before,
        });
        for (temperature, top_k, top_p, min_p) in [
            (1.0, 1, 1.0, 0.0),
            (0.8, 40, 0.9, 0.0),
            (1.0, 40, 0.1, 0.0),
            (2.0, 40, 1.0, 0.05),
            (0.01, 40, 1.0, 0.0),
            (1e-20, 40, 0.5, 0.0),
            (1.0, 40, 0.0, 1.0),
            (f32::MAX, 2, 1.0, 0.0),
        ] {
            all.push(Sampling {
                temperature,
                top_k,
                top_p,
                log_min_p: f32::ln(min_p).max(f32::MIN),
                penalties: penalties.clone(),
                uniform: [0.0, 0.3, 0.71, 0.999, 1.0 - 1.0 / 16_777_216.0][all.len() % 5],
            });
        }
    }
    all.push(Sampling {
        top_k: MAX_CANDIDATES as u32,
        uniform: 0.5,
        ..Sampling::best()
    });
    all
}

/// The twin's tokens, with its sums a little off.
fn expected(sampling: &Sampling, own: u32, row: &[f32]) -> Vec<Option<u32>> {
    let off = [0.0, -ROUNDING, ROUNDING];
    let all = off.iter().flat_map(|p| off.map(|u| (p, u)));
    let tokens = all.map(|(p, u)| {
        let top_p = match sampling.top_p < 1.0 {
            true => (sampling.top_p + p).min(1.0 - ROUNDING),
            false => 1.0,
        };
        let near = Sampling {
            top_p,
            uniform: (sampling.uniform + u).clamp(0.0, 1.0 - ROUNDING / 100.0),
            ..sampling.clone()
        };
        sample(&near, own, row)
    });
    tokens.collect()
}

fn failures(device: &Device) -> Vec<String> {
    let mut lines = Vec::new();
    for n_vocab in [100, 5000] {
        let rows_of = logits(n_vocab);
        let mut backend = device.open().expect("it opens");
        let id = backend
            .prepare(plan(rows_of.len(), n_vocab))
            .expect("a valid plan");
        let mut batch = rows(Phase::Decode, rows_of.len());
        batch.outputs = (0..rows_of.len() as u32).collect();
        backend
            .write(id, BufferId(0), &rows_of.concat())
            .expect("it is an input");
        let by_row: Vec<Vec<Sampling>> = rows_of.iter().map(|row| samplings(row)).collect();
        for case in 0..by_row[0].len() {
            let chosen: Vec<Option<Sampling>> =
                by_row.iter().map(|all| Some(all[case].clone())).collect();
            backend
                .start(id, &batch, &chosen, false)
                .expect("it starts");
            let got = backend.finish().expect("it runs");
            for (i, row) in rows_of.iter().enumerate() {
                let sampling = chosen[i].as_ref().expect("all are chosen");
                let got = match got[i] {
                    Sampled::Token(token) => Some(token),
                    Sampled::InvalidLogits => None,
                    Sampled::Candidates(_) => panic!("the device chooses"),
                };
                let want = expected(sampling, batch.tokens[i], row);
                if !want.contains(&got) {
                    lines.push(format!(
                        "{}: {n_vocab} tokens, row {i}: {got:?} instead of {:?}: {sampling:?}",
                        device.name, want[0]
                    ));
                }
            }
        }
    }
    lines
}

#[test]
fn tokens_are_chosen_alike_on_every_gpu_variant() {
    let gpus = devices::gpus();
    assert!(!gpus.is_empty(), "there is no device to run on");
    let lines = devices::beside_one_another(&gpus, failures);
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

/// Rows whose token the host chooses keep their candidates, whatever the others do.
#[test]
fn a_step_has_chosen_rows_and_others_on_every_gpu() {
    for device in devices::plain_gpus() {
        let row = logits(5000).remove(1);
        let mut backend = device.open().expect("it opens");
        let id = backend.prepare(plan(3, 5000)).expect("a valid plan");
        backend
            .write(id, BufferId(0), &[&row[..], &row, &row].concat())
            .expect("it is an input");
        let mut batch = rows(Phase::Decode, 3);
        batch.outputs = vec![0, 1, 2];
        let all = backend.run(id, &batch).expect("it runs");
        let best = Sampling::best();
        let chosen = [None, Some(best.clone()), None];
        backend
            .start(id, &batch, &chosen, false)
            .expect("it starts");
        let refused = backend.run(id, &batch);
        assert!(refused.is_err(), "a step is under way");
        let got = backend.finish().expect("it runs");
        let wanted = [
            Sampled::Candidates(all[0].clone()),
            Sampled::Token(all[1].ids[0]),
            Sampled::Candidates(all[2].clone()),
        ];
        assert_eq!(got, wanted, "{}", device.name);

        // Not all tokens were chosen, so that a step cannot follow; nor is there a third.
        let chosen = [(); 3].map(|()| Some(best.clone()));
        assert!(backend.start(id, &batch, &chosen, true).is_err());
        backend
            .start(id, &batch, &chosen, false)
            .expect("the first");
        backend
            .start(id, &batch, &chosen, true)
            .expect("the second");
        assert!(backend.start(id, &batch, &chosen, true).is_err(), "a third");
        let first = backend.finish().expect("it runs");
        assert_eq!(first, vec![Sampled::Token(all[0].ids[0]); 3]);
        assert_eq!(backend.finish().expect("it runs"), first);
        assert!(backend.finish().is_err(), "nothing is under way");

        let many = Sampling {
            top_k: 1 + MAX_CANDIDATES as u32,
            ..best
        };
        let refused = backend.start(id, &batch, &[None, Some(many), None], false);
        assert!(refused.is_err(), "the candidates do not decide");
    }
}
