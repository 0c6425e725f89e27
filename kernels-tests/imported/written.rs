//! Safetensors files of the weights of GGUF files.

use ollama_wgpu::gguf::{Gguf, TensorInfo};
use ollama_wgpu::quant::QuantType;
use serde_json::{Map, Value, json};

/// Names of parts in checkpoints.
pub const PARTS: &[(&str, &str)] = &[
    ("attn_qkv", "self_attn.qkv_proj"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// A matrix by rows.
pub type Rows = Vec<Vec<f32>>;

pub fn rows(gguf: &Gguf, tensor: &TensorInfo) -> Rows {
    let mut weights = vec![0.0; tensor.n_elements() as usize];
    let quant = tensor.quant().expect("a known type");
    quant.decode(gguf.data(tensor), &mut weights);
    let columns = tensor.shape[0] as usize;
    weights.chunks(columns).map(<[f32]>::to_vec).collect()
}

pub fn turned(rows: &Rows) -> Rows {
    let columns = 0..rows[0].len();
    columns
        .map(|i| rows.iter().map(|row| row[i]).collect())
        .collect()
}

/// Rows of each head with pairs half a head apart, where GGUF files have them side by side.
pub fn halves(rows: &Rows, n_heads: usize) -> Rows {
    let heads = rows.chunks(rows.len() / n_heads);
    let own = |head: &[Vec<f32>]| {
        let (even, odd) = (head.iter().step_by(2), head.iter().skip(1).step_by(2));
        even.chain(odd).cloned().collect::<Rows>()
    };
    heads.flat_map(own).collect()
}

/// A tensor that is to be written: its name, shape, weights, and a type that loses nothing of them.
pub type Tensor = (String, Vec<usize>, Vec<f32>, QuantType);

/// The safetensors file of these tensors.
pub fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (name, shape, weights, quant) in tensors {
        let mut bytes = vec![0; quant.row_bytes(weights.len())];
        quant.encode(weights, &mut bytes).expect("floats");
        let range = [data.len(), data.len() + bytes.len()];
        let entry = json!({ "dtype": quant.name(), "shape": shape, "data_offsets": range });
        header.insert(name.clone(), entry);
        data.extend(bytes);
    }
    let header = Value::Object(header).to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &data].concat()
}
