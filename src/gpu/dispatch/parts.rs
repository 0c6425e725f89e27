//! Which files and numbers a shader needs for an activation, a cache, a type of weights.

use crate::backend::{Activation, KvDims, KvType, PAGE_TOKENS};
use crate::gpu::buffer::{Shard, WeightShape};
use crate::gpu::shader::Shader;
use crate::quant::QuantType;

/// The parts that define `activate`.
pub(super) fn activation_parts(activation: Activation) -> &'static [&'static str] {
    match activation {
        Activation::Silu => &["parts/silu", "parts/logistic"],
        Activation::Sigmoid => &["parts/sigmoid", "parts/logistic"],
        Activation::Identity => &["parts/identity"],
        Activation::GeluTanh => &["parts/gelu_tanh", "parts/logistic"],
        Activation::GeluErf => &["parts/gelu_erf"],
        Activation::ReluSquared => &["parts/relu_squared"],
        Activation::ClampedSwish => &["parts/clamped_swish", "parts/logistic"],
    }
}

/// The parts that define `activate` and `gated`.
pub(super) fn with_gate(shader: Shader, activation: Activation) -> Shader {
    let shader = shader.parts(activation_parts(activation));
    let shader = shader.parts(match activation {
        Activation::ClampedSwish => &["parts/up_clamped"],
        _ => &["parts/up_plain"],
    });
    swish_numbers(shader, activation)
}

pub(super) fn swish_numbers(shader: Shader, activation: Activation) -> Shader {
    match activation {
        Activation::ClampedSwish => shader
            .float("LIMIT", Activation::SWISH_LIMIT)
            .float("SLOPE", Activation::SWISH_SLOPE),
        _ => shader,
    }
}

/// What reads and writes a cache of this type and size needs.
pub(super) fn with_cache(shader: Shader, kv_type: KvType, kv: KvDims) -> Shader {
    let parts: &[&'static str] = match kv_type {
        KvType::F32 => &["kv/f32"],
        KvType::F16 => &["kv/f16", "parts/half_bits"],
        KvType::Q8_0 => &["kv/q8_0", "parts/kv_blocks", "parts/half_bits"],
        KvType::Q4_0 => &["kv/q4_0", "parts/kv_blocks", "parts/half_bits"],
    };
    let shader = shader.number("KEYS", kv.keys).number("VALUES", kv.values);
    shader.parts(parts)
}

/// Bytes of one token's numbers in a cache: what `shaders/kv` reads.
pub(in crate::gpu) fn cached_bytes(kv_type: KvType, numbers: usize) -> usize {
    // Half floats of blocks share words.
    kv_type.bytes(numbers).next_multiple_of(4)
}

/// What `span_values` needs for a part of a weight.
pub(super) fn with_weights(shader: Shader, weight: &WeightShape, shard: Shard) -> Shader {
    let layout = &weight.layout;
    shader
        .number("COLS", layout.cols)
        .number("SPANS", layout.spans())
        .number("N_ROWS", shard.rows)
        .number("ROW_VEC4S", layout.row_words / 4)
        .number("TABLE_AT", shard.rows * layout.row_words / 4)
        .number("HIGH_AT", layout.high_at)
        .number("SIGNS_AT", layout.signs_at)
        .number("SCALES_AT", layout.scales_at)
        .number("STEPS_AT", layout.steps_at)
        .parts(weight_parts(layout.quant))
}

/// Whether the halves of a span have scales of their own.
pub(super) fn two_scales(quant: QuantType) -> bool {
    use QuantType::{IQ1_M, IQ2_S, IQ2_XS, NVFP4, Q2_K, Q3_K, Q6_K};
    matches!(quant, Q2_K | Q3_K | Q6_K | IQ1_M | IQ2_XS | IQ2_S | NVFP4)
}

fn weight_parts(quant: QuantType) -> &'static [&'static str] {
    macro_rules! quantised {
        ($codes:literal, $values:literal, $quant:literal) => {
            &[
                "parts/span",
                "parts/span_values",
                "parts/row_word",
                $codes,
                $values,
                $quant,
            ]
        };
    }
    match quant {
        QuantType::F32 => &["parts/span", "quant/f32"],
        QuantType::F16 => &["parts/span", "quant/f16"],
        QuantType::BF16 => &["parts/span", "quant/bf16"],
        QuantType::Q4_0 => quantised!("parts/codes_4", "parts/values_unsigned", "quant/q4_0"),
        QuantType::Q4_1 => quantised!("parts/codes_4", "parts/values_unsigned", "quant/q4_1"),
        QuantType::Q5_0 => quantised!("parts/codes_5", "parts/values_unsigned", "quant/q5_0"),
        QuantType::Q5_1 => quantised!("parts/codes_5", "parts/values_unsigned", "quant/q5_1"),
        QuantType::Q8_0 => quantised!("parts/codes_8", "parts/values_signed", "quant/q8_0"),
        QuantType::Q2_K => quantised!("parts/codes_2", "parts/values_unsigned", "quant/q2_k"),
        QuantType::Q3_K => quantised!("parts/codes_3", "parts/values_unsigned", "quant/q3_k"),
        QuantType::Q4_K => quantised!("parts/codes_4", "parts/values_unsigned", "quant/q4_k"),
        QuantType::Q5_K => quantised!("parts/codes_5", "parts/values_unsigned", "quant/q5_k"),
        QuantType::Q6_K => quantised!("parts/codes_6", "parts/values_unsigned", "quant/q6_k"),
        QuantType::IQ1_S => quantised!("parts/grid", "parts/values_unsigned", "quant/iq1_s"),
        QuantType::IQ1_M => quantised!("parts/grid", "parts/values_unsigned", "quant/iq1_m"),
        QuantType::IQ2_XXS => quantised!("parts/grid", "parts/values_signed", "quant/iq2_xxs"),
        QuantType::IQ2_XS => quantised!("parts/grid", "parts/values_signed", "quant/iq2_xs"),
        QuantType::IQ2_S => quantised!("parts/grid", "parts/values_signed", "quant/iq2_s"),
        QuantType::IQ3_XXS => quantised!("parts/grid", "parts/values_signed", "quant/iq3_xxs"),
        QuantType::IQ3_S => quantised!("parts/grid", "parts/values_signed", "quant/iq3_s"),
        QuantType::IQ4_NL => quantised!("parts/codes_4", "parts/values_iq4", "quant/iq4_nl"),
        QuantType::IQ4_XS => quantised!("parts/codes_4", "parts/values_iq4", "quant/iq4_xs"),
        QuantType::TQ1_0 | QuantType::TQ2_0 => {
            quantised!("parts/codes_2", "parts/values_unsigned", "quant/tq2_0")
        }
        QuantType::MXFP4 => quantised!("parts/codes_4", "parts/values_e2m1", "quant/mxfp4"),
        QuantType::NVFP4 => quantised!("parts/codes_4", "parts/values_e2m1", "quant/nvfp4"),
        QuantType::Q1_0 => quantised!("parts/codes_1", "parts/values_unsigned", "quant/q1_0"),
        QuantType::Q2_0 => quantised!("parts/codes_2", "parts/values_unsigned", "quant/q2_0"),
    }
}

/// Tokens of a page, as shaders know it.
pub(super) fn with_pages(shader: Shader) -> Shader {
    shader.number("PAGE", PAGE_TOKENS).parts(&["parts/pages"])
}
