//! `bench` on models of a store: speeds, the device's share, and on a GPU what a token costs.

use std::process::Output;

use serde_json::{Value, json};

use crate::models;
use crate::server::{Server, binary};

/// A store with a tiny model, one with an adapter, and one that embeds.
fn store() -> Server {
    let server = Server::start(&[]);
    let tiny = |name: &str| models::path(&format!("tiny/{name}.gguf"));
    server.create("tiny", &tiny("tiny-llama"));
    server.create("bert", &tiny("tiny-bert"));
    let lora = tiny("tiny-llama-lora");
    let text = format!("FROM tiny\nADAPTER {}\n", lora.display());
    let (done, printed) = server.try_create_from("adapted", &text);
    assert!(done, "{printed}");
    server
}

fn bench(server: &Server, arguments: &[&str]) -> Output {
    let mut command = binary();
    command
        .arg("bench")
        .args(arguments)
        .env("HOME", server.home.path())
        .env("OLLAMA_MODELS", server.home.path().join("models"))
        .env("OLLAMA_WGPU_DEVICE", "cpu");
    command.output().expect("bench runs")
}

fn measured(server: &Server, arguments: &[&str]) -> Value {
    let output = bench(server, &[arguments, &["--json"]].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// The lengths of the prompts that were measured, none of which took no time.
fn lengths(report: &Value) -> Vec<u64> {
    let prompts = report["prefill"].as_array().expect("prompts").iter();
    let lengths = prompts.map(|prompt| {
        assert!(prompt["tokens_per_second"].as_f64() > Some(0.0), "{report}");
        prompt["tokens"].as_u64().expect("a number")
    });
    lengths.collect()
}

#[test]
fn a_model_is_measured_without_a_server() {
    let server = store();
    let plain = measured(&server, &["tiny"]);
    assert_eq!(lengths(&plain), [128, 512, 1024]);
    assert_eq!(plain["decode"]["tokens"], 64);
    assert_eq!(plain["decode"]["after"], 256);
    assert_eq!(plain["api"], "CPU");
    assert_eq!(plain["token"], Value::Null);
    // All but the embedding: 512 rows of 256 half floats.
    let weights = |report: &Value| report["weight_bytes"].as_u64().expect("a number");
    let read = plain["decode"]["weight_bytes_per_token"].as_u64();
    let vectors = 5 * 256 * 4;
    assert_eq!(read, Some(weights(&plain) - 512 * 256 * 2 - vectors));
    let adapted = measured(&server, &["adapted"]);
    assert_eq!(adapted["adapters"], 1);
    assert!(weights(&adapted) > weights(&plain));
    // An encoder for 128 tokens, which decodes nothing.
    let bert = measured(&server, &["bert"]);
    assert_eq!((lengths(&bert), &bert["decode"]), (vec![128], &json!(null)));
    let output = bench(&server, &["tiny"]);
    let text = String::from_utf8_lossy(&output.stdout);
    for part in [
        "tiny:latest on CPU",
        "prefill of 512",
        "decode of 64 after 256",
        "GB/s",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn on_a_gpu_the_cost_of_a_token_is_counted() {
    let server = store();
    let report = measured(&server, &["tiny", "--device", "llvmpipe"]);
    let token = &report["token"];
    assert_eq!(token["submits"], 1);
    assert!(token["launches"].as_u64() <= Some(8 * 2 + 8), "{report:#}");
    assert!(token["read_back_bytes"].as_u64() <= Some(8 * 128 + 256));
    let ops = token["by_op"].as_array().expect("a table");
    let count = |name: &str| {
        let of = ops.iter().filter(|op| op["kernel"] == name);
        of.map(|op| op["launches"].as_u64().expect("a number"))
            .sum::<u64>()
    };
    assert_eq!(count("attention_decode"), 2, "{report:#}");
    assert_eq!(report["gpu_bytes"], report["memory_bytes"]);
}

#[test]
fn what_cannot_be_measured_is_named() {
    let server = store();
    for (arguments, message) in [
        (&["nope"][..], "model 'nope:latest' not found"),
        (
            &["tiny", "--device", "no such"],
            "device \"no such\" not found",
        ),
        (&[], "accepts 1 arg(s), received 0"),
    ] {
        let output = bench(&server, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(message),
            "{stderr}"
        );
    }
}
