//! The table of pre-tokenizers: how each kind of byte-level vocabulary has text cut into words.

use super::Error;
use super::split::{Pass, TRAILING_SPACE};

/// How models with this `tokenizer.ggml.pre` cut text into words.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    pub(super) passes: &'static [Pass],
    /// Whether prompts start with BOS unless the file says otherwise.
    pub(super) adds_bos: bool,
    /// Whether a word that is an entry is taken whole, without looking at merges.
    pub(super) whole_words: bool,
}

const CONTRACTION: &str = r"(?i-u:'s|'t|'re|'ve|'m|'ll|'d)";
const LETTERS: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+";
const SYMBOLS: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*";
const SYMBOLS_OR_PATH: &str = r" ?[^\s\p{L}\p{N}]+[\r\n/]*";
const NEWLINES: &str = r"\s*[\r\n]+";
const SPACES: &str = r"\s+";
const DIGIT: &str = r"\p{N}";
const UP_TO_3_DIGITS: &str = r"\p{N}{1,3}";

/// The cased letters that deepseek-llm's vocabulary lists: those of Unicode without some scripts.
const CASED_WORD: &str = concat!(
    r"\s?[\p{LC}--[\u{560}-\u{588}\u{10C7}-\u{10FF}\u{1C80}-\u{1C8F}\u{2D00}-\u{2D2F}\u{A790}-\u{A7FF}",
    r"\u{AB30}-\u{AB6F}\u{10570}-\u{105BF}\u{16E40}-\u{16E7F}\u{1D400}-\u{1D7FF}\u{1DF00}-\u{1DFFF}]]+"
);

const GPT2: Pass = &[
    "'s|'t|'re|'ve|'m|'ll|'d",
    r" ?\p{L}+",
    r" ?\p{N}+",
    r" ?[^\s\p{L}\p{N}]+",
    TRAILING_SPACE,
];

/// Rows of llama.cpp's list; a row is here once it has been checked against reference ids.
const PRE_TOKENIZERS: &[PreTokenizer] = &[
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
        ],
        passes: &[LLAMA3],
        adds_bos: true,
        whole_words: true,
    },
    PreTokenizer {
        names: &["dbrx", "smaug-bpe", "chatglm-bpe"],
        passes: &[LLAMA3],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &["glm4"],
        passes: &[LLAMA3],
        adds_bos: false,
        whole_words: true,
    },
    PreTokenizer {
        names: &[
            "qwen2",
            "deepseek-r1-qwen",
            "kormo",
            "f2llmv2",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
            "grok-2",
        ],
        passes: &[&[
            CONTRACTION,
            LETTERS,
            DIGIT,
            SYMBOLS,
            NEWLINES,
            TRAILING_SPACE,
            SPACES,
        ]],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &["qwen35"],
        passes: &[&[
            CONTRACTION,
            r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
            DIGIT,
            r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
            NEWLINES,
            TRAILING_SPACE,
            SPACES,
        ]],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &[
            "smollm",
            "starcoder",
            "refact",
            "command-r",
            "codeshell",
            "exaone",
            "minerva-7b",
            "mellum2",
        ],
        passes: &[&[DIGIT], GPT2],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &[
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
        ],
        passes: &[GPT2],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &["default"],
        passes: &[
            &[r"[\p{P}$+<=>^~|]+"],
            GPT2,
            &[r"\p{N}+"],
            &["[0-9][0-9][0-9]"],
        ],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &["tekken"],
        passes: &[&[
            concat!(
                r"[^\r\n\p{L}\p{N}]?(?:[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+",
                r"|[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*)"
            ),
            DIGIT,
            SYMBOLS_OR_PATH,
            NEWLINES,
            TRAILING_SPACE,
            SPACES,
        ]],
        adds_bos: true,
        whole_words: true,
    },
    PreTokenizer {
        names: &["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"],
        passes: &[&[
            concat!(
                r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+",
                "(?i-u:'s|'t|'re|'ve|'m|'ll|'d)?"
            ),
            concat!(
                r"[^\r\n\p{L}\p{N}]?[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*",
                "(?i-u:'s|'t|'re|'ve|'m|'ll|'d)?"
            ),
            UP_TO_3_DIGITS,
            SYMBOLS_OR_PATH,
            NEWLINES,
            TRAILING_SPACE,
            SPACES,
        ]],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        passes: &[
            &[UP_TO_3_DIGITS],
            &["[一-龥\u{3040}-ゟ゠-ヿ]+"],
            &[
                r"[[:punct:]][A-Za-z]+",
                r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
                r" ?[\p{P}\p{S}]+[\r\n]*",
                NEWLINES,
                TRAILING_SPACE,
                SPACES,
            ],
        ],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &["deepseek-llm"],
        passes: &[
            &[r"[\r\n]"],
            &[CASED_WORD],
            &[r"\s?[!-/:-~！-／：-～‘-‟、。]+"],
            &[r"\s+$"],
            &[r"[\u{800}-龥가-\u{D7FF}&&\S]+"],
            &[r"\p{N}+"],
        ],
        adds_bos: false,
        whole_words: false,
    },
];

const LLAMA3: Pass = &[
    CONTRACTION,
    LETTERS,
    UP_TO_3_DIGITS,
    SYMBOLS,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

/// The row of a `tokenizer.ggml.pre`.
pub(super) fn by_name(name: &str) -> Result<&'static PreTokenizer, Error> {
    let row = PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name));
    row.ok_or_else(|| Error::Pre {
        name: name.into(),
        supported: names().collect::<Vec<_>>().join(", "),
    })
}

fn names() -> impl Iterator<Item = &'static str> {
    PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied()
}

#[cfg(test)]
mod tests {
    use super::super::split::Splitter;
    use super::*;

    fn words(pre: &str, text: &'static str) -> Vec<&'static str> {
        let pre = by_name(pre).expect("in the table");
        let splitter = Splitter::new(pre.passes).expect("valid patterns");
        let mut words = Vec::new();
        splitter.split(text, &mut |word| words.push(word));
        words
    }

    #[test]
    fn every_row_compiles_and_keeps_the_text() {
        let text = "I'm 12345 x=\u{E9}\u{4F60}\u{3000}1\r\n\n  \tDON'T  $5,000! ";
        for name in names() {
            assert_eq!(words(name, text).concat(), text, "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut all: Vec<_> = names().collect();
        all.sort_unstable();
        let n = all.len();
        all.dedup();
        assert_eq!(all.len(), n);
    }

    #[test]
    fn rows_without_a_reference_file_cut_as_expected() {
        let text = "It's 12345 a+b  c";
        let gpt2 = ["It", "'s", " 12345", " a", "+", "b", " ", " c"];
        assert_eq!(words("gpt-2", text), gpt2);
        let default = ["It", "'", "s", " ", "123", "45", " a", "+", "b", " ", " c"];
        assert_eq!(words("default", text), default);
    }
}
