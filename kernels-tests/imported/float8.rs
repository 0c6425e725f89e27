//! Checkpoints of 8-bit floats with scales of blocks, as DeepSeek and Qwen publish them, beside the same weights in 32 bits.

use serde_json::{Map, Value, json};

use super::{Files, Fixture, files, imported};

/// Names, types, shapes and bytes of a file's tensors.
type Tensors = Vec<(String, String, Vec<usize>, Vec<u8>)>;

/// Those of all files of a checkpoint, which are taken out of it.
fn take(files: &mut Files) -> Tensors {
    let is_weights = |name: &String| name.contains(".safetensors");
    let names: Vec<String> = files
        .keys()
        .filter(|name| is_weights(name))
        .cloned()
        .collect();
    let taken = names
        .iter()
        .map(|name| (name, files.remove(name).expect("a file")));
    let weights = taken.filter(|(name, _)| name.ends_with(".safetensors"));
    weights.flat_map(|(_, file)| read(&file)).collect()
}

fn read(file: &[u8]) -> Tensors {
    let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    let header: Map<String, Value> =
        serde_json::from_slice(&file[8..8 + length]).expect("a header");
    let tensors = header
        .into_iter()
        .filter(|(name, _)| name != "__metadata__");
    let numbers = |value: &Value| -> Vec<usize> {
        let items = value.as_array().expect("numbers").iter();
        items
            .map(|n| n.as_u64().expect("a number") as usize)
            .collect()
    };
    let tensor = |(name, entry): (String, Value)| {
        let place = numbers(&entry["data_offsets"]);
        let bytes = file[8 + length..][place[0]..place[1]].to_vec();
        let dtype = entry["dtype"].as_str().expect("a type").to_owned();
        (name, dtype, numbers(&entry["shape"]), bytes)
    };
    tensors.map(tensor).collect()
}

fn write(tensors: &Tensors) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, dtype, shape, bytes) in tensors {
        let range = [data.len(), data.len() + bytes.len()];
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": range });
        header.insert(name.clone(), entry);
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &data].concat()
}

/// The number of a byte with `n_exponent` bits of exponent, by the definition in words.
fn number(byte: u8, n_exponent: i32) -> f64 {
    let n_fraction = 7 - n_exponent;
    let bias = (1 << (n_exponent - 1)) - 1;
    let exponent = i32::from(byte & 0x7F) >> n_fraction;
    let fraction =
        f64::from(i32::from(byte) & ((1 << n_fraction) - 1)) / f64::from(1 << n_fraction);
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(1 - bias),
        _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
    };
    if byte < 0x80 { magnitude } else { -magnitude }
}

/// Bytes that are numbers of every size, none of them beyond 16.
fn bytes(n: usize, n_exponent: i32) -> Vec<u8> {
    let all: Vec<u8> = (0..=255)
        .filter(|&b| number(b, n_exponent).abs() <= 16.0)
        .collect();
    let at = |i: usize| all[((i * 2_654_435_761) >> 7) % all.len()];
    (0..n).map(at).collect()
}

/// A checkpoint whose matrices in layers are 8-bit floats with scales for blocks of this size, and one with those weights
/// in 32 bits.
fn pair(name: &str, dtype: &str, scale_type: &str, block: [usize; 2]) -> (Files, Files) {
    let n_exponent = if dtype == "F8_E4M3" { 4 } else { 5 };
    let mut others = files(name);
    let (mut small, mut plain) = (Tensors::new(), Tensors::new());
    for tensor in take(&mut others) {
        let (name, _, shape, _) = &tensor;
        let (&[rows, columns], true) = (&shape[..], name.contains("_proj")) else {
            small.push(tensor.clone());
            plain.push(tensor);
            continue;
        };
        let floats = bytes(rows * columns, n_exponent);
        let blocks = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
        // Exact in both types of scales.
        let scales: Vec<f32> = (0..blocks[0] * blocks[1])
            .map(|i| (1.0 + (i % 5) as f32 / 8.0) / 64.0)
            .collect();
        let weight = |i: usize| {
            let scale = scales[i / columns / block[0] * blocks[1] + i % columns / block[1]];
            (number(floats[i], n_exponent) * f64::from(scale)) as f32
        };
        let weights = (0..rows * columns)
            .flat_map(|i| weight(i).to_le_bytes())
            .collect();
        plain.push((name.clone(), "F32".into(), shape.clone(), weights));
        let scale_bytes = scales.iter().flat_map(|scale| match scale_type {
            "F32" => scale.to_le_bytes().to_vec(),
            _ => scale.to_le_bytes()[2..].to_vec(),
        });
        let scales = (
            format!("{name}_scale_inv"),
            scale_type.into(),
            blocks.to_vec(),
            scale_bytes.collect(),
        );
        small.push((name.clone(), dtype.into(), shape.clone(), floats));
        small.push(scales);
    }
    let with = |tensors| {
        let weights = ("model.safetensors".into(), write(tensors));
        others.clone().into_iter().chain([weights]).collect()
    };
    (with(&small), with(&plain))
}

fn with_block(files: &mut Files, block: &Value) {
    let mut config: Value = serde_json::from_slice(&files["config.json"]).expect("JSON");
    config["quantization_config"] = json!({
        "activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": block,
    });
    files.insert("config.json".into(), config.to_string().into());
}

#[test]
fn weights_are_floats_times_the_scales_of_their_blocks() {
    for (name, dtype, scale_type, block, level, plain_level) in [
        ("llama", "F8_E4M3", "F32", [128, 128], "F32", "F32"),
        ("llama", "F8_E4M3", "BF16", [48, 40], "F16", "F16"),
        ("qwen3", "F8_E4M3", "BF16", [128, 128], "", "q8_0"),
        ("qwen3", "F8_E5M2", "F32", [16, 24], "q4_K_M", "q4_K_M"),
        ("qwen3", "F8_E5M2", "F32", [128, 128], "BF16", "BF16"),
    ] {
        let what = format!("{name} of {dtype} in blocks of {block:?} at {level:?}");
        let (mut small, plain) = pair(name, dtype, scale_type, block);
        if block != [128, 128] {
            with_block(&mut small, &json!(block));
        }
        let (made, wanted) = (imported(&small, level), imported(&plain, plain_level));
        assert_eq!(made.tensors().len(), wanted.tensors().len(), "{what}");
        for tensor in wanted.tensors() {
            let own = made
                .tensor(&tensor.name)
                .unwrap_or_else(|| panic!("{what}: {}", tensor.name));
            assert_eq!(own.ggml_type, tensor.ggml_type, "{what}: {}", tensor.name);
            assert!(
                made.data(own) == wanted.data(tensor),
                "{what}: {}",
                tensor.name
            );
        }
        assert_eq!(
            made.u32("general.file_type"),
            wanted.u32("general.file_type"),
            "{what}"
        );
    }
}

#[test]
fn what_has_no_scales_of_blocks_is_refused_by_name() {
    const MATRIX: &str = "model.layers.0.mlp.up_proj.weight";
    let error = |change: &dyn Fn(&mut Tensors), block: Value| {
        let (mut small, _) = pair("llama", "F8_E4M3", "F32", [128, 128]);
        let mut tensors = take(&mut small);
        change(&mut tensors);
        small.insert("model.safetensors".into(), write(&tensors));
        with_block(&mut small, &block);
        Fixture::new().create(&small, "").expect_err("refused")
    };
    let scales = format!("{MATRIX}_scale_inv");
    let at = |tensors: &Tensors| tensors.iter().position(|t| t.0 == scales).expect("scales");
    let without = error(&|t| drop(t.remove(at(t))), json!([128, 128]));
    assert!(
        without.contains(MATRIX)
            && without.contains("no \"model.layers.0.mlp.up_proj.weight_scale_inv\""),
        "{without}"
    );
    let one = |tensors: &mut Tensors| {
        let place = at(tensors);
        (tensors[place].2, tensors[place].3) = (vec![1], 1f32.to_le_bytes().to_vec());
    };
    let one = error(&one, json!([128, 128]));
    assert!(
        one.contains(&scales) && one.contains("has the shape [1]: blocks of [128, 128]"),
        "{one}"
    );
    let integers = |tensors: &mut Tensors| {
        let place = at(tensors);
        tensors[place].1 = "I32".into();
    };
    let integers = error(&integers, json!([128, 128]));
    assert!(
        integers.contains("has type I32; scales of F32, F16, BF16"),
        "{integers}"
    );
    let other = |tensors: &mut Tensors| {
        let place = at(tensors);
        tensors[place].0 = format!("{MATRIX}_scale");
    };
    let other = error(&other, json!([128, 128]));
    assert!(
        other.contains("is not one of LlamaForCausalLM") || other.contains("no \""),
        "{other}"
    );
    for block in [json!([128]), json!([0, 128]), json!([1.5, 2]), json!("x")] {
        let text = error(&|_| (), block.clone());
        assert!(
            text.starts_with("config.json: quantization_config: weight_block_size must be"),
            "{block}: {text}"
        );
    }
    // Integers and other kinds of 8-bit weights have no such scales.
    let mut files = files("llama");
    let mut tensors = take(&mut files);
    for tensor in tensors.iter_mut().filter(|tensor| tensor.0 == MATRIX) {
        let n = tensor.2.iter().product();
        (tensor.1, tensor.3) = ("I8".into(), vec![1; n]);
    }
    files.insert("model.safetensors".into(), write(&tensors));
    let text = Fixture::new().create(&files, "").expect_err("refused");
    assert!(
        text.contains("has type I8; supported are F32, F16, BF16, and F8_E4M3"),
        "{text}"
    );
}
