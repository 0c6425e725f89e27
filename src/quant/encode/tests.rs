//! Against GGML's own blocks of the same weights (`scripts/quantize/make_references.py`).

use super::*;
use serde_json::Value;

fn reference() -> Value {
    let text = include_str!("../../../kernels-tests/golden/quantize.json");
    serde_json::from_str(text).expect("reference is JSON")
}

fn bytes(hex: &Value) -> Vec<u8> {
    hex::decode(hex.as_str().expect("hex")).expect("hex")
}

/// All that is encoded means the same weights, bit for bit. Bytes differ only where a group's scale is zero, so that its codes
/// mean nothing.
#[test]
fn blocks_are_those_of_the_reference() {
    let reference = reference();
    for name in reference["types"].as_array().expect("types") {
        let quant = QuantType::from_name(name.as_str().expect("a name")).expect("a type");
        for block in reference["blocks"].as_array().expect("blocks") {
            let mut weights = [0.0; 256];
            QuantType::F16.decode(&bytes(&block["weights"]), &mut weights);
            let want = bytes(&block["encoded"][quant.name()]);
            let mut got = vec![0xff; want.len()];
            quant.encode(&weights, &mut got).expect("encoded");
            let (mut here, mut there) = ([0.0; 256], [0.0; 256]);
            quant.decode(&got, &mut here);
            quant.decode(&want, &mut there);
            assert_eq!(here, there, "{} {}", quant.name(), block["label"]);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for quant in [
        QuantType::F16,
        QuantType::Q8_0,
        QuantType::Q4_K,
        QuantType::BF16,
    ] {
        let mut out = vec![0; quant.row_bytes(256)];
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = [0.5; 256];
            weights[200] = bad;
            let error = quant.encode(&weights, &mut out).unwrap_err();
            assert!(matches!(error, EncodeError::Weight(..)), "{}", quant.name());
        }
    }
    let (large, mut two) = ([70_000.0], [0; 2]);
    assert!(QuantType::F16.encode(&large, &mut two).is_err());
    assert!(QuantType::BF16.encode(&large, &mut two).is_ok());
    let refused = QuantType::IQ4_NL.encode(&[0.0; 32], &mut [0; 18]);
    assert_eq!(refused, Err(EncodeError::Type(QuantType::IQ4_NL)));
}

/// Weights of every size, the least ones too, come out finite.
#[test]
fn extremes_stay_finite() {
    for name in [
        "F16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K",
    ] {
        let quant = QuantType::from_name(name).expect("a type");
        for size in [
            f32::MIN_POSITIVE / 4.0,
            1e-42,
            1e-30,
            1e-14,
            1e-7,
            1.0,
            65504.0,
        ] {
            let weights: [f32; 256] =
                std::array::from_fn(|i| size * ((i * 37 % 101) as f32 / 50.0 - 1.0));
            let mut encoded = vec![0; quant.row_bytes(256)];
            quant.encode(&weights, &mut encoded).expect("encoded");
            let mut decoded = [0.0; 256];
            quant.decode(&encoded, &mut decoded);
            for (got, w) in decoded.iter().zip(weights) {
                assert!(
                    (got - w).abs() <= 0.35 * size.max(1e-6),
                    "{name}: {got} instead of {w}"
                );
            }
        }
    }
}
