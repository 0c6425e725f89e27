//! Byte-level BPE: text is cut into words by the model's pre-tokenizer, and each word's bytes, written in a
//! printable alphabet, are merged by the `tokenizers` crate.

use std::collections::HashSet;
use std::sync::LazyLock;

use tokenizers::Model;
use tokenizers::models::bpe::{BPE, Merges, Vocab as CrateVocab};
use tracing::warn;

use super::Error;
use super::split::{Pass, Splitter, TRAILING_SPACE};
use super::vocab::Vocab;
use crate::gguf::Gguf;

/// How models with this `tokenizer.ggml.pre` cut text into words.
pub(super) struct PreTokenizer {
    names: &'static [&'static str],
    passes: &'static [Pass],
    /// Whether prompts start with BOS unless the file says otherwise.
    pub(super) adds_bos: bool,
    /// Whether a word that is an entry is taken whole, without looking at merges.
    whole_words: bool,
}

const CONTRACTION: &str = r"(?i-u:'s|'t|'re|'ve|'m|'ll|'d)";
const LETTERS: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+";
const SYMBOLS: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*";
const SYMBOLS_OR_PATH: &str = r" ?[^\s\p{L}\p{N}]+[\r\n/]*";
const NEWLINES: &str = r"\s*[\r\n]+";
const SPACES: &str = r"\s+";
const DIGIT: &str = r"\p{N}";
const UP_TO_3_DIGITS: &str = r"\p{N}{1,3}";

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
        names: &["dbrx", "smaug-bpe"],
        passes: &[LLAMA3],
        adds_bos: false,
        whole_words: false,
    },
    PreTokenizer {
        names: &["glm4", "chatglm-bpe"],
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
            &[r"\s?\p{LC}+"],
            &["\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+"],
            &[r"\s+$"],
            &["[一-龥\u{800}-一가-\u{D7FF}]+"],
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
pub(super) fn pre_tokenizer(name: &str) -> Result<&'static PreTokenizer, Error> {
    let row = PRE_TOKENIZERS.iter().find(|row| row.names.contains(&name));
    row.ok_or_else(|| Error::Pre {
        name: name.into(),
        supported: names().collect::<Vec<_>>().join(", "),
    })
}

fn names() -> impl Iterator<Item = &'static str> {
    PRE_TOKENIZERS.iter().flat_map(|row| row.names).copied()
}

/// The printable character of every byte, as GPT-2 has it: printable Latin-1 is itself, the other
/// bytes follow from U+0100 in their order.
static ALPHABET: LazyLock<[char; 256]> = LazyLock::new(|| {
    let mut next = 0x100..;
    std::array::from_fn(|byte| match byte as u8 {
        b @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..) => b as char,
        _ => next.next().and_then(char::from_u32).unwrap_or_default(),
    })
});

/// The byte of every character of [`ALPHABET`], by code point.
static BYTES: LazyLock<[Option<u8>; 0x144]> = LazyLock::new(|| {
    let mut bytes = [None; 0x144];
    for (byte, &c) in (0..=255).zip(ALPHABET.iter()) {
        bytes[c as usize] = Some(byte);
    }
    bytes
});

/// Appends the bytes of an entry; characters outside the alphabet stand for themselves.
pub(super) fn to_bytes(entry: &[u8], piece: &mut Vec<u8>) {
    let Ok(text) = std::str::from_utf8(entry) else {
        return piece.extend_from_slice(entry);
    };
    for c in text.chars() {
        match BYTES.get(c as usize) {
            Some(&Some(byte)) => piece.push(byte),
            _ => piece.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

/// Words that the `tokenizers` crate keeps the result of. At most 10 KB each (for words nearly 256
/// characters long), and usually some hundred bytes.
const CACHED_WORDS: usize = 4096;

pub(super) struct Bpe {
    splitter: Splitter,
    model: BPE,
    /// Bytes that no entry stands for. They get no token, and nothing merges across them.
    missing: [bool; 256],
}

impl Bpe {
    pub(super) fn from_gguf(gguf: &Gguf, vocab: &Vocab, pre: &PreTokenizer) -> Result<Bpe, Error> {
        let missing = |c: char| vocab.find(c.encode_utf8(&mut [0; 4]).as_bytes()).is_none();
        let model = BPE::builder()
            .vocab_and_merges(crate_vocab(vocab), merges(gguf, vocab)?)
            .ignore_merges(pre.whole_words)
            .cache_capacity(CACHED_WORDS)
            .build()
            .map_err(|e| Error::Build(e.to_string()))?;
        Ok(Bpe {
            splitter: Splitter::new(pre.passes)?,
            model,
            missing: std::array::from_fn(|byte| missing(ALPHABET[byte])),
        })
    }

    /// Appends the ids of a text without special tokens.
    pub(super) fn encode(&self, text: &str, ids: &mut Vec<u32>) {
        let mut printable = String::new();
        self.splitter.split(text, &mut |word| {
            for run in word.as_bytes().split(|&b| self.missing[b as usize]) {
                printable.clear();
                printable.extend(run.iter().map(|&b| ALPHABET[b as usize]));
                // Fails only for an unknown token that is not an entry, and none is set.
                let tokens = self.model.tokenize(&printable).unwrap_or_default();
                ids.extend(tokens.iter().map(|token| token.id));
            }
        });
    }
}

fn crate_vocab(vocab: &Vocab) -> CrateVocab {
    let mut entries = CrateVocab::with_capacity(vocab.len());
    for id in 0..vocab.len() as u32 {
        let text = vocab.text(id);
        if let Ok(entry) = std::str::from_utf8(text)
            && vocab.find(text) == Some(id)
        {
            entries.insert(entry.into(), id);
        }
    }
    entries
}

/// The file's merges in their order. One whose parts or result are no entries can never take part
/// in a token, and of a pair that occurs twice the first counts.
fn merges(gguf: &Gguf, vocab: &Vocab) -> Result<Merges, Error> {
    const MERGES: &str = "tokenizer.ggml.merges";
    let lines = gguf.strings(MERGES).ok_or(Error::Missing(MERGES))?;
    let mut merges = Merges::with_capacity(lines.len());
    let mut seen = HashSet::with_capacity(lines.len());
    let mut dropped = 0usize;
    let mut whole = Vec::new();
    for line in lines {
        let pair = split_merge(line).filter(|(left, right)| {
            whole.clear();
            whole.extend_from_slice(left.as_bytes());
            whole.extend_from_slice(right.as_bytes());
            let parts = vocab
                .find(left.as_bytes())
                .zip(vocab.find(right.as_bytes()));
            vocab.find(&whole).is_some() && parts.is_some_and(|parts| seen.insert(parts))
        });
        match pair {
            Some((left, right)) => merges.push((left.into(), right.into())),
            None => dropped += 1,
        }
    }
    if dropped > 0 {
        warn!("{dropped} entries of `{MERGES}` merge no pair of the vocabulary, ignored");
    }
    Ok(merges)
}

/// The two sides of a merge; a space at the very start belongs to the left one.
fn split_merge(line: &[u8]) -> Option<(&str, &str)> {
    let line = std::str::from_utf8(line).ok()?;
    let at = line.bytes().skip(1).position(|b| b == b' ')? + 1;
    Some((&line[..at], &line[at + 1..]))
}
