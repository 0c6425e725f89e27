//! The patterns that the rows of the table are made of.

use super::super::split::{CASCADING_SPACE, Pass, TRAILING_SPACE};

pub(super) const CONTRACTION: &str = r"(?i-u:'s|'t|'re|'ve|'m|'ll|'d)";
pub(super) const LETTERS: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+";
pub(super) const SYMBOLS: &str = r" ?[^\s\p{L}\p{N}]+[\r\n]*";
pub(super) const SYMBOLS_OR_PATH: &str = r" ?[^\s\p{L}\p{N}]+[\r\n/]*";
pub(super) const NEWLINES: &str = r"\s*[\r\n]+";
pub(super) const SPACES: &str = r"\s+";
pub(super) const DIGIT: &str = r"\p{N}";
pub(super) const DIGITS: &str = r"\p{N}+";
pub(super) const UP_TO_3_DIGITS: &str = r"\p{N}{1,3}";
pub(super) const PUNCTUATION: &str = r"[\p{P}$+<=>^~|]+";
pub(super) const PUNCTUATION_OR_TICK: &str = r"[\p{P}$+<=>^~|`]+";
pub(super) const ASCII_THREE: &str = "[0-9][0-9][0-9]";
pub(super) const LINE_BREAK: &str = r"[\r\n]";
pub(super) const LINE: &str = r"[^\n]+|\n+";
pub(super) const HAN_AND_KANA: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
pub(super) const ASIAN: &str = r"[\u{800}-龥가-\u{D7FF}&&\S]+";
pub(super) const PROSE: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";

pub(super) const GPT2: Pass = &[
    "'s|'t|'re|'ve|'m|'ll|'d",
    r" ?\p{L}+",
    r" ?\p{N}+",
    r" ?[^\s\p{L}\p{N}]+",
    TRAILING_SPACE,
];

pub(super) const LLAMA3: Pass = &[
    CONTRACTION,
    LETTERS,
    UP_TO_3_DIGITS,
    SYMBOLS,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

pub(super) const JAIS2: Pass = &[
    CONTRACTION,
    LETTERS,
    UP_TO_3_DIGITS,
    SYMBOLS,
    NEWLINES,
    CASCADING_SPACE,
];

pub(super) const QWEN2: Pass = &[
    CONTRACTION,
    LETTERS,
    DIGIT,
    SYMBOLS,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

pub(super) const QWEN35: Pass = &[
    CONTRACTION,
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    DIGIT,
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

/// QWEN2 with longer numbers.
pub(super) const MINICPM5: Pass = &[
    CONTRACTION,
    LETTERS,
    DIGITS,
    SYMBOLS,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

/// QWEN2 without contractions, which Turkish suffixes would be taken for.
pub(super) const UFAKZEKA: Pass = &[LETTERS, DIGIT, SYMBOLS, NEWLINES, TRAILING_SPACE, SPACES];

pub(super) const SEED_CODER: Pass = &[
    CONTRACTION,
    LETTERS,
    DIGIT,
    r" ?[^\s\p{L}\p{N}\r\n]+",
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

/// Words that lone spaces separate stay together.
pub(super) const EXAONE_MOE: Pass = &[
    CONTRACTION,
    r"[^\r\n\p{L}\p{N}]?\p{L}\p{M}*(?: ?\p{L}\p{M}*)*",
    DIGIT,
    r" ?[^\s\p{L}\p{N}]+[\r\n/]?",
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

/// Letters of any script count as lower case and as upper case, but ASCII's.
pub(super) const GPT4O: Pass = &[
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
];

/// GPT4O with marks as letters.
pub(super) const GRANITE_EMBEDDING: Pass = &[
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}--a-z]*[\p{L}\p{M}--A-Z]+",
        "(?i-u:'s|'t|'re|'ve|'m|'ll|'d)?"
    ),
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}--a-z]+[\p{L}\p{M}--A-Z]*",
        "(?i-u:'s|'t|'re|'ve|'m|'ll|'d)?"
    ),
    UP_TO_3_DIGITS,
    SYMBOLS_OR_PATH,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

/// The case of letters does not matter to llama.cpp here.
pub(super) const TINY_AYA: Pass = &[
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?i-u:'s|'t|'re|'ve|'m|'ll|'d)?",
    UP_TO_3_DIGITS,
    SYMBOLS_OR_PATH,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

pub(super) const YOUTU_SCRIPTS: Pass = &[
    "[가-힣ㄱ-ㆎ]+",
    "[！…“”‘’—：；，、-〿︰-﹏]+",
    "[ㄅ-ㄯ]+",
    HAN_AND_KANA,
];

pub(super) const YOUTU: Pass = &[
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+(?i-u:'s|'t|'re|'ve|'m|'ll|'d)?",
    DIGIT,
    SYMBOLS_OR_PATH,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

pub(super) const TEKKEN: Pass = &[
    concat!(
        r"[^\r\n\p{L}\p{N}]?(?:[\p{L}&&[^a-z]]*[\p{L}&&[^A-Z]]+",
        r"|[\p{L}&&[^a-z]]+[\p{L}&&[^A-Z]]*)"
    ),
    DIGIT,
    SYMBOLS_OR_PATH,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

pub(super) const DEEPSEEK3: Pass = &[
    r"[[:punct:]][A-Za-z]+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+[\r\n]*",
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

/// DEEPSEEK3 with single line breaks.
pub(super) const SPARK: Pass = &[
    r"[[:punct:]][A-Za-z]+",
    r"[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+",
    r" ?[\p{P}\p{S}]+",
    LINE_BREAK,
    TRAILING_SPACE,
    SPACES,
];

/// The cased letters that deepseek-llm's vocabulary lists: those of Unicode without some scripts.
pub(super) const CASED_WORD: &str = concat!(
    r"\s?[\p{LC}--[\u{560}-\u{588}\u{10C7}-\u{10FF}\u{1C80}-\u{1C8F}\u{2D00}-\u{2D2F}\u{A790}-\u{A7FF}",
    r"\u{AB30}-\u{AB6F}\u{10570}-\u{105BF}\u{16E40}-\u{16E7F}\u{1D400}-\u{1D7FF}\u{1DF00}-\u{1DFFF}]]+"
);
pub(super) const DEEPSEEK_PUNCTUATION: &str = r"\s?[!-/:-~！-／：-～‘-‟、。]+";

/// Kimi's ideographs, of which a run is a word and which are no letters to the others.
pub(super) const KIMI: Pass = &[
    concat!(
        r"[\u{3400}-\u{4DBF}\u{4E00}-\u{9FFF}\u{F900}-\u{FAFF}\u{20000}-\u{2A6DF}\u{2A700}-\u{2B81F}",
        r"\u{2B820}-\u{2EBEF}\u{2F800}-\u{2FA1F}]+"
    ),
    concat!(
        r"[^\r\n\p{L}\p{N}]?[\p{L}--[\u{3400}-\u{4DBF}\u{4E00}-\u{9FFF}\u{F900}-\u{FAFF}",
        r"\u{20000}-\u{2A6DF}\u{2A700}-\u{2EBEF}\u{2F800}-\u{2FA1F}]]+(?i-u:'s|'t|'re|'ve|'m|'ll|'d)?"
    ),
    UP_TO_3_DIGITS,
    SYMBOLS,
    NEWLINES,
    TRAILING_SPACE,
    SPACES,
];

/// Scripts without spaces between words.
pub(super) const AFMOE_SCRIPTS: &str = concat!(
    r"[\u{4E00}-\u{9FFF}\u{3400}-\u{4DBF}\u{8C48}-\u{FAFF}\u{3040}-\u{30FF}\u{FF65}-\u{FF9F}\u{2F00}-\u{2FDF}",
    r"\u{E40}-\u{EFF}\u{1780}-\u{17FF}\u{1000}-\u{109F}\u{AA60}-\u{AA7F}\u{A9E0}-\u{A9FF}\u{AC00}-\u{D7AF}",
    r"\u{1100}-\u{11FF}]+"
);
