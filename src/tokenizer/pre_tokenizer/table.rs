//! llama.cpp's list of pre-tokenizers, as of its release in llama-cpp-python 0.3.36.

use super::super::split::{DIGITS_FROM_THE_RIGHT, Pass, THREES_FROM_THE_RIGHT};
use super::patterns::*;
use super::{Alphabet, PreTokenizer};

/// What most rows have.
const ROW: PreTokenizer = PreTokenizer {
    names: &[],
    passes: &[],
    adds_bos: false,
    whole_words: false,
    alphabet: Alphabet::Bytes,
};

const fn row(names: &'static [&'static str], passes: &'static [Pass]) -> PreTokenizer {
    PreTokenizer {
        names,
        passes,
        ..ROW
    }
}

/// Every row has been compared with reference ids or with llama.cpp itself.
pub(super) const PRE_TOKENIZERS: &[PreTokenizer] = &[
    PreTokenizer {
        names: &[
            "llama-bpe",
            "llama3",
            "llama-v3",
            "falcon3",
            "falcon-h1",
            "pixtral",
            "midm-2.0",
            "lfm2",
            "jina-v5-nano",
        ],
        passes: &[LLAMA3],
        adds_bos: true,
        whole_words: true,
        ..ROW
    },
    row(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    PreTokenizer {
        names: &["glm4", "glm5"],
        passes: &[LLAMA3],
        whole_words: true,
        ..ROW
    },
    row(&["jais-2"], &[JAIS2]),
    row(
        &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
            "bailingmoe",
            "bailingmoe2",
            "llada-moe",
        ],
        &[QWEN2],
    ),
    row(&["qwen35"], &[QWEN35]),
    row(&["laguna"], &[&[LINE], QWEN2]),
    row(&["ufakzeka"], &[UFAKZEKA]),
    row(&["seed-coder"], &[SEED_CODER]),
    row(&["exaone-moe"], &[EXAONE_MOE]),
    PreTokenizer {
        names: &["minicpm5"],
        passes: &[&[UP_TO_3_DIGITS], MINICPM5],
        whole_words: true,
        ..ROW
    },
    row(
        &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        &[&[DIGIT], GPT2],
    ),
    row(
        &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "gigachat",
            "a.x-4.0",
            "mellum",
            "exaone4",
            "trillion",
            "granite-docling",
            "jina-es",
            "jina-de",
            "jina-v1-en",
            "jina-v2-es",
            "jina-v2-de",
            "jina-v2-code",
            "roberta-bpe",
            "modern-bert",
        ],
        &[GPT2],
    ),
    row(
        &["default"],
        &[&[PUNCTUATION], GPT2, &[DIGITS], &[ASCII_THREE]],
    ),
    row(&["falcon"], &[&[PUNCTUATION_OR_TICK], GPT2, &[ASCII_THREE]]),
    row(&["bloom", "poro-chat", "gpt3-finnish"], &[&[PROSE]]),
    row(&["viking"], &[&[PROSE], &[DIGIT]]),
    PreTokenizer {
        names: &["chameleon"],
        passes: &[
            &["<sentinel:[0-9]+>"],
            &["IMGIMG[A-I]{1,4}Z"],
            &[r"[\t\n]|    |  "],
            &[DIGIT],
            &[r"[\p{P}[:punct:]]"],
            GPT2,
        ],
        adds_bos: true,
        ..ROW
    },
    PreTokenizer {
        names: &["tekken"],
        passes: &[TEKKEN],
        adds_bos: true,
        whole_words: true,
        ..ROW
    },
    row(
        &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        &[GPT4O],
    ),
    PreTokenizer {
        names: &["granite-embed-multi-97m"],
        passes: &[GRANITE_EMBEDDING],
        whole_words: true,
        ..ROW
    },
    row(
        &["tiny_aya", "cohere2moe"],
        &[&[DIGITS_FROM_THE_RIGHT], TINY_AYA],
    ),
    row(&["superbpe"], &[&[DIGITS], &[THREES_FROM_THE_RIGHT]]),
    row(&["kimi-k2"], &[KIMI]),
    PreTokenizer {
        names: &["youtu"],
        passes: &[YOUTU_SCRIPTS, YOUTU],
        whole_words: true,
        ..ROW
    },
    row(
        &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        &[&[UP_TO_3_DIGITS], &[HAN_AND_KANA], DEEPSEEK3],
    ),
    row(
        &["spark2_5"],
        &[&[UP_TO_3_DIGITS], &[HAN_AND_KANA], SPARK, &[DIGIT]],
    ),
    row(
        &["afmoe"],
        &[&[DIGITS_FROM_THE_RIGHT], &[AFMOE_SCRIPTS], DEEPSEEK3],
    ),
    row(
        &["deepseek-llm"],
        &[
            &[LINE_BREAK],
            &[CASED_WORD],
            &[DEEPSEEK_PUNCTUATION],
            &[r"\s+$"],
            &[ASIAN],
            &[DIGITS],
        ],
    ),
    row(
        &["deepseek-coder"],
        &[
            &[LINE_BREAK],
            &[r"\s?\p{L}+"],
            &[r"\s?\p{P}+"],
            &[ASIAN],
            &[DIGIT],
        ],
    ),
    PreTokenizer {
        names: &["gemma4", "granite-embed-multi-311m"],
        passes: &[&[LINE]],
        adds_bos: true,
        alphabet: Alphabet::Text { line_breaks: true },
        ..ROW
    },
    PreTokenizer {
        names: &["whitespace"],
        passes: &[&[r"\S+"]],
        alphabet: Alphabet::Words,
        ..ROW
    },
    PreTokenizer {
        names: &["sarvam-moe"],
        passes: &[&[LINE]],
        alphabet: Alphabet::Text { line_breaks: false },
        ..ROW
    },
];
