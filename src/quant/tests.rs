use super::*;

#[test]
fn rows_are_complete() {
    for quant in QuantType::all() {
        assert_eq!(quant.row().quant, quant);
        assert_eq!(QuantType::from_ggml(quant.ggml()), Some(quant));
        assert_eq!(QuantType::from_name(quant.name()), Some(quant));
    }
    assert_eq!(QuantType::all().count(), QuantType::Q2_0 as usize + 1);
}

#[test]
fn unsupported_types_have_names() {
    assert_eq!(ggml_name(9), "Q8_1");
    assert_eq!(ggml_name(12), "Q4_K");
    assert_eq!(ggml_name(4711), "number 4711");
}

/// Every block of the reference file decodes to the same bits.
#[test]
fn blocks_decode_as_the_reference() {
    let text = include_str!("../../kernels-tests/golden/dequant.json");
    let reference: serde_json::Value = serde_json::from_str(text).expect("reference is JSON");
    let mut n_weights = 0;
    let not_there = [QuantType::F32, QuantType::Q2_0];
    for quant in QuantType::all().filter(|q| !not_there.contains(q)) {
        for block in reference[quant.name()]["blocks"]
            .as_array()
            .expect("blocks")
        {
            let bytes = hex::decode(block["hex"].as_str().expect("hex")).expect("hex");
            let values = block["values"].as_array().expect("values");
            let mut decoded = vec![0f32; bytes.len() / quant.block_bytes() * quant.block_len()];
            quant.decode(&bytes, &mut decoded);
            assert_eq!(decoded.len(), values.len());
            for (i, (got, want)) in decoded.iter().zip(values).enumerate() {
                let want = want.as_f64().expect("number") as f32;
                let label = &block["label"];
                assert_eq!(
                    got.to_bits(),
                    want.to_bits(),
                    "{} {label} weight {i}: {got} instead of {want}",
                    quant.name()
                );
                n_weights += 1;
            }
        }
    }
    assert!(
        n_weights > 30_000,
        "the reference has only {n_weights} weights"
    );
}

/// A type that the reference file does not have: 64 codes in rising order of bits.
#[test]
fn q2_0_counts_its_pairs_from_the_lowest_bits() {
    let mut block = vec![0x00, 0xb8];
    block.extend((0..16).map(|i| 0b11_10_01_00u8.rotate_left(2 * i)));
    let mut weights = [0.0; 64];
    QuantType::Q2_0.decode(&block, &mut weights);
    assert_eq!(weights[..8], [0.5, -0.0, -0.5, -1.0, -1.0, 0.5, -0.0, -0.5]);
    assert_eq!(weights[60..], [-0.0, -0.5, -1.0, 0.5]);
}
