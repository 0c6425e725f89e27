//! GGUF's quantisation types: the table of names and block sizes, decoding and encoding on the CPU.
//!
//! A *block* is the unit a type packs; a *span* is 32 weights, the unit every kernel steps by.
//! Layouts: `ggml-common.h` of llama.cpp. Every type here decodes as
//! `scale * code + bias` with one scale and bias per 16 or 32 weights.

pub mod coded;
pub mod device;
mod encode;
mod finite;
mod float;
pub mod grid;
mod grids;
pub mod k;
mod legacy;
pub mod lookup;
pub mod ternary;
#[cfg(test)]
mod tests;

pub use encode::EncodeError;

/// Weights in a span.
pub const SPAN: usize = 32;

/// A tensor type that the engine computes with, spelled as GGUF does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(non_camel_case_types)]
pub enum QuantType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    IQ1_S,
    IQ1_M,
    IQ2_XXS,
    IQ2_XS,
    IQ2_S,
    IQ3_XXS,
    IQ3_S,
    IQ4_NL,
    IQ4_XS,
    TQ1_0,
    TQ2_0,
    MXFP4,
    NVFP4,
    Q1_0,
    Q2_0,
}

/// What the table says of one type.
struct Row {
    quant: QuantType,
    /// GGML's number of the type.
    ggml: u32,
    name: &'static str,
    block_len: usize,
    block_bytes: usize,
    /// Decodes whole blocks: bytes, then as many weights as they hold.
    decode: fn(&[u8], &mut [f32]),
}

macro_rules! rows {
    ($($quant:ident = $ggml:literal: $len:literal in $bytes:literal by $decode:expr;)*) => {
        const ROWS: &[Row] = &[$(Row {
            quant: QuantType::$quant, ggml: $ggml, name: stringify!($quant),
            block_len: $len, block_bytes: $bytes, decode: $decode,
        }),*];
    };
}

rows! {
    F32 = 0: 1 in 4 by float::f32;
    F16 = 1: 1 in 2 by float::f16;
    BF16 = 30: 1 in 2 by float::bf16;
    Q4_0 = 2: 32 in 18 by legacy::q4_0;
    Q4_1 = 3: 32 in 20 by legacy::q4_1;
    Q5_0 = 6: 32 in 22 by legacy::q5_0;
    Q5_1 = 7: 32 in 24 by legacy::q5_1;
    Q8_0 = 8: 32 in 34 by legacy::q8_0;
    Q2_K = 10: 256 in 84 by k::q2_k;
    Q3_K = 11: 256 in 110 by coded::decode::<k::Q3K>;
    Q4_K = 12: 256 in 144 by k::q4_k;
    Q5_K = 13: 256 in 176 by k::q5_k;
    Q6_K = 14: 256 in 210 by k::q6_k;
    IQ1_S = 19: 256 in 50 by coded::decode::<grid::Iq1S>;
    IQ1_M = 29: 256 in 56 by coded::decode::<grid::Iq1M>;
    IQ2_XXS = 16: 256 in 66 by coded::decode::<grid::Iq2Xxs>;
    IQ2_XS = 17: 256 in 74 by coded::decode::<grid::Iq2Xs>;
    IQ2_S = 22: 256 in 82 by coded::decode::<grid::Iq2S>;
    IQ3_XXS = 18: 256 in 98 by coded::decode::<grid::Iq3Xxs>;
    IQ3_S = 21: 256 in 110 by coded::decode::<grid::Iq3S>;
    IQ4_NL = 20: 32 in 18 by coded::decode::<lookup::Iq4Nl>;
    IQ4_XS = 23: 256 in 136 by coded::decode::<lookup::Iq4Xs>;
    TQ1_0 = 34: 256 in 54 by coded::decode::<ternary::Tq1_0>;
    TQ2_0 = 35: 256 in 66 by coded::decode::<ternary::Tq2_0>;
    MXFP4 = 39: 32 in 17 by coded::decode::<lookup::Mxfp4>;
    NVFP4 = 40: 64 in 36 by coded::decode::<lookup::Nvfp4>;
    Q1_0 = 41: 128 in 18 by coded::decode::<ternary::Q1_0>;
    Q2_0 = 42: 64 in 18 by coded::decode::<ternary::Q2_0>;
}

/// Names of the types that GGUF numbers but this engine does not compute with.
const OTHER_NAMES: &[(u32, &str)] = &[
    (9, "Q8_1"),
    (15, "Q8_K"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
];

impl QuantType {
    /// All types, in table order.
    pub fn all() -> impl Iterator<Item = QuantType> {
        ROWS.iter().map(|row| row.quant)
    }

    /// The type with this GGML number, if the engine computes with it.
    pub fn from_ggml(number: u32) -> Option<QuantType> {
        let row = ROWS.iter().find(|row| row.ggml == number)?;
        Some(row.quant)
    }

    /// The type of this name, in any case.
    pub fn from_name(name: &str) -> Option<QuantType> {
        let row = ROWS
            .iter()
            .find(|row| row.name.eq_ignore_ascii_case(name))?;
        Some(row.quant)
    }

    fn row(self) -> &'static Row {
        // The table has one row per variant, in another order: `rows_are_complete` proves it.
        &ROWS[ROWS.iter().position(|row| row.quant == self).unwrap_or(0)]
    }

    /// GGML's number of the type.
    pub fn ggml(self) -> u32 {
        self.row().ggml
    }

    /// The name as GGUF spells it, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// Weights in a block.
    pub fn block_len(self) -> usize {
        self.row().block_len
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.row().block_bytes
    }

    /// Bytes of a row of `cols` weights, a multiple of the block length.
    pub fn row_bytes(self, cols: usize) -> usize {
        cols / self.block_len() * self.block_bytes()
    }

    /// Whether weights are stored as plain floats.
    pub fn is_float(self) -> bool {
        self.block_len() == 1
    }

    /// Decodes `out.len()` weights, whole blocks, from `bytes`: exactly the f32 values of GGML.
    ///
    /// # Panics
    /// If `bytes` does not hold exactly those blocks.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(out.len() % self.block_len(), 0, "whole blocks");
        assert_eq!(
            bytes.len(),
            self.row_bytes(out.len()),
            "bytes of the blocks"
        );
        (self.row().decode)(bytes, out);
    }
}

/// The name of any GGML type number, for messages.
pub fn ggml_name(number: u32) -> String {
    if let Some(quant) = QuantType::from_ggml(number) {
        return quant.name().into();
    }
    let other = OTHER_NAMES.iter().find(|(n, _)| *n == number);
    other.map_or_else(|| format!("number {number}"), |(_, name)| (*name).into())
}

/// The supported types in one line, for messages.
pub fn supported_names() -> String {
    let names: Vec<_> = ROWS.iter().map(|row| row.name).collect();
    names.join(", ")
}

/// Reads the little-endian f16 at byte `at`.
fn f16_at(block: &[u8], at: usize) -> f32 {
    half::f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}
