//! Runs the table of cases on every device, and proves that it would notice a wrong result.

use std::process::Command;

use crate::case::{Case, Outcome, difference};
use crate::devices::{self, Device};
use crate::{cases, reference};
use ollama_wgpu::gpu;
use ollama_wgpu::quant::QuantType;

/// Runs all cases on one device and returns a line for each that failed.
fn failures(device: &Device, cases: &[Case], expected: &[Outcome]) -> Vec<String> {
    let mut lines = Vec::new();
    for (case, want) in cases.iter().zip(expected) {
        let problem = match device.open() {
            Err(e) => Some(format!("cannot be opened: {e}")),
            Ok(mut backend) => match case.run(&mut *backend) {
                Err(e) => Some(e.to_string()),
                Ok(got) => difference(&got, want),
            },
        };
        lines.extend(problem.map(|p| format!("{}: {}: {p}", device.name, case.name)));
    }
    lines
}

fn run_on(devices: &[Device], cases: &[Case]) {
    assert!(!devices.is_empty(), "there is no device to run on");
    let expected: Vec<Outcome> = cases.iter().map(Case::expected).collect();
    let lines: Vec<String> =
        devices::beside_one_another(devices, |device| failures(device, cases, &expected));
    assert!(
        lines.is_empty(),
        "{} of {} runs failed:\n{}",
        lines.len(),
        cases.len() * devices.len(),
        lines.join("\n")
    );
}

#[test]
fn every_case_on_every_instruction_set() {
    run_on(&devices::cpus(), &cases::all());
}

#[test]
fn every_case_on_every_gpu_variant() {
    run_on(&devices::gpus(), &cases::all());
}

/// Limits and parts matter to kernels, not to types: those with scales of two kinds and a table
/// stand for all.
#[test]
fn every_kernel_on_every_gpu_with_least_limits() {
    let types = [QuantType::F16, QuantType::Q5_K, QuantType::IQ2_S];
    run_on(&devices::least_gpus(), &cases::of_types(&types));
}

/// Products of prompts alone have other arithmetic. Every type has one product; those whose names
/// are listed stand for all in the others.
#[test]
fn every_product_of_prompts_in_every_arithmetic() {
    let mut cases = cases::all();
    let sizes = ["[65, 512] x 9 ", "matmul F16 ", "matmul Q4_0 "];
    let experts = ["F16", "Q8_0", "Q6_K"].map(|quant| format!("matmul_experts {quant} "));
    cases.retain(|case| {
        let has = |part: &str| case.name.contains(part);
        let mut listed = sizes.into_iter().chain(experts.iter().map(String::as_str));
        has("Prefill") && listed.any(has)
    });
    run_on(&devices::arithmetic_gpus(), &cases);
}

/// 4 and 8 are the widths of SwiftShader and llvmpipe.
#[test]
fn every_reduction_by_subgroups_of_every_width() {
    run_on(
        &devices::gpus_of_widths(&[16, 32, 64, 128]),
        &cases::reductions(),
    );
}

/// Lanes that share a weight row add up in one order, with subgroups and without.
#[test]
fn products_of_single_tokens_do_not_depend_on_subgroups() {
    let mut cases = cases::of_types(&[QuantType::F16, QuantType::Q4_0]);
    cases.retain(|case| case.name.contains("matmul") && !case.name.contains("Prefill"));
    assert!(cases.len() > 10, "{} products", cases.len());
    let mut devices = devices::gpus_of_widths(&[32]);
    devices.push(devices::first_gpu_in_its_shapes(true));
    let without = devices::first_gpu_in_its_shapes(false);
    let bits = |device: &Device, case: &Case| {
        let mut backend = device.open().expect("it opens");
        let outcome = case.run(&mut *backend).expect("it runs");
        let values = outcome.values.iter().map(|x| x.to_bits());
        values.collect::<Vec<u32>>()
    };
    for case in &cases {
        let want = bits(&without, case);
        for device in &devices {
            let is_same = bits(device, case) == want;
            assert!(is_same, "{}: {} is another", device.name, case.name);
        }
    }
}

#[test]
#[ignore = "the test below runs it where llvmpipe has other widths"]
fn every_reduction_on_every_gpu() {
    for limits in gpu::limits() {
        println!("subgroups: {:?}", limits.subgroups);
    }
    run_on(&devices::plain_gpus(), &cases::reductions());
}

/// Its subgroups fill a vector register, of which processors without AVX-512 have no wider.
#[test]
fn every_reduction_by_wider_and_narrower_subgroups_of_llvmpipe() {
    for bits in ["128", "512"] {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args([
            "--ignored",
            "--exact",
            "--nocapture",
            "suite::every_reduction_on_every_gpu",
        ]);
        let output = command.env("LP_NATIVE_VECTOR_WIDTH", bits).output();
        let output = output.expect("it runs");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{bits} bits: {text}");
        assert!(text.contains("1 passed"), "{bits} bits: {text}");
        println!("{bits} bits: {text}");
    }
}

#[test]
fn one_changed_value_is_noticed() {
    let case = &cases::all()[0];
    let want = case.expected();
    for i in [0, want.values.len() / 2, want.values.len() - 1] {
        let mut got = case.expected();
        assert!(difference(&got, &want).is_none());
        got.values[i] += 0.01;
        assert!(difference(&got, &want).is_some(), "value {i}");
        got.values[i] = f32::NAN;
        assert!(difference(&got, &want).is_some(), "NaN at {i}");
    }
}

#[test]
fn a_missing_or_swapped_candidate_is_noticed() {
    let cases = cases::all();
    let case = cases
        .iter()
        .find(|c| c.top_k == Some(64))
        .expect("a top_k case");
    let want = case.expected();
    let mut swapped = case.expected();
    swapped.candidates[0].ids.swap(0, 1);
    assert!(difference(&swapped, &want).is_some());
    let mut missing = case.expected();
    missing.candidates.pop();
    assert!(difference(&missing, &want).is_some());
}

#[test]
#[should_panic(expected = "there is no device")]
fn a_suite_without_devices_fails() {
    run_on(&[], &[]);
}

#[test]
fn the_oracle_agrees_with_itself() {
    let device = Device::new("oracle", || Ok(Box::new(reference::Reference::default())));
    let cases = cases::all();
    let expected: Vec<Outcome> = cases.iter().map(Case::expected).collect();
    assert_eq!(failures(&device, &cases, &expected), Vec::<String>::new());
}
