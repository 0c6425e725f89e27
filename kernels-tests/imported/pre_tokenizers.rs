//! Pre-tokenizers as files spell them out, beside the library tokenizers: the name that each gets, and the ids.

use serde_json::{Value, json};

use super::vocabularies::id_problems;
use super::{Fixture, changed, imported};

fn split(regex: &str) -> Value {
    json!({ "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false })
}

fn digits(individual: bool) -> Value {
    json!({ "type": "Digits", "individual_digits": individual })
}

fn punctuation(behavior: &str) -> Value {
    json!({ "type": "Punctuation", "behavior": behavior })
}

fn bytes(use_regex: bool) -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex })
}

/// Splits, and bytes behind them.
fn splits(regexes: &[&str]) -> Vec<Value> {
    let splits = regexes.iter().map(|regex| split(regex));
    splits.chain([bytes(false)]).collect()
}

const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const CL100K: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+";
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const JAIS2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}";
const UFAKZEKA: &str =
    r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const SEED_CODER: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+";
const MINICPM5: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const YOUTU_SCRIPTS: &str =
    "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u{3040}-ゟ゠-ヿ]+";
const HAN_AND_KANA: &str = "[一-龥\u{3040}-ゟ゠-ヿ]+";
const DEEPSEEK3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";
const SPARK: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+|[\r\n]|\\s+(?!\\S)|\\s+";
const BLOOM: &str = r" ?[^(\s|[.,!?…。，、।۔،])]+";
const ASIAN: &str = "[一-龥ࠀ-一가-\u{d7ff}]+";
const CASED_WORD: &str = "\\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";

/// Names, and the steps of files that get them.
fn rows() -> Vec<(&'static str, Vec<Value>)> {
    let coder = [r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", ASIAN];
    let deepseek = [
        "[\r\n]",
        CASED_WORD,
        "\\s?[!-/:-~！-／：-～‘-‟\u{3000}-。]+",
        "\\s+$",
        ASIAN,
    ];
    let with = |regexes: &[&str], steps: Vec<Value>| -> Vec<Value> {
        let splits = regexes.iter().map(|regex| split(regex));
        splits.chain(steps).chain([bytes(false)]).collect()
    };
    let removed = json!({ "type": "Split", "pattern": { "Regex": LLAMA3 }, "behavior": "Removed", "invert": true });
    vec![
        ("gpt-2", vec![bytes(true)]),
        ("smollm", vec![digits(true), bytes(true)]),
        ("dbrx", splits(&[LLAMA3])),
        ("dbrx", splits(&[CL100K])),
        ("dbrx", vec![removed, bytes(false)]),
        ("qwen2", splits(&[QWEN2])),
        ("qwen2", splits(&[BAILING])),
        ("qwen35", splits(&[QWEN35])),
        ("jais-2", splits(&[JAIS2])),
        ("laguna", splits(&[r"[^\n]+|[\n]+", QWEN2])),
        ("ufakzeka", splits(&[UFAKZEKA])),
        ("seed-coder", splits(&[SEED_CODER])),
        ("exaone-moe", splits(&[EXAONE_MOE])),
        ("minicpm5", splits(&[r"\p{N}{1,3}", MINICPM5])),
        ("gpt-4o", splits(&[GPT4O])),
        ("tekken", splits(&[TEKKEN])),
        (
            "youtu",
            splits(&[YOUTU_SCRIPTS, &GPT4O.replace("{1,3}", "")]),
        ),
        ("superbpe", splits(&[r"\p{N}+", r"(?=(\d{3})+(?!\d))"])),
        ("bloom", splits(&[BLOOM])),
        ("viking", with(&[BLOOM], vec![digits(true)])),
        (
            "deepseek-v3",
            splits(&[r"\p{N}{1,3}", HAN_AND_KANA, DEEPSEEK3]),
        ),
        (
            "spark2_5",
            with(&[r"\p{N}{1,3}", HAN_AND_KANA, SPARK], vec![digits(true)]),
        ),
        ("deepseek-llm", with(&deepseek, vec![digits(true)])),
        ("deepseek-coder", with(&coder, vec![digits(true)])),
        (
            "chameleon",
            vec![
                split("<sentinel:[0-9]+>"),
                split("(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z"),
                split("([\\t\\n]|    |  )"),
                digits(true),
                punctuation("Isolated"),
                bytes(true),
            ],
        ),
    ]
}

/// Where llama.cpp's rules of a name are known to differ: letters beyond ASCII have no case to some, and the long s
/// makes no contraction; to another, spaces beyond ASCII are no Asian letters.
fn is_apart(pre: &str, c: char) -> bool {
    let is_mark = unicode_normalization::char::is_combining_mark(c);
    !c.is_ascii()
        && match pre {
            "gpt-4o" | "tekken" | "youtu" => is_mark || c.is_lowercase() || c.is_uppercase(),
            "deepseek-coder" | "deepseek-llm" => c.is_whitespace(),
            _ => false,
        }
}

#[test]
fn pre_tokenizers_are_recognised_by_their_patterns() {
    let mut problems = Vec::new();
    for (pre, steps) in rows() {
        let files = changed("llama", "tokenizer.json", |tokenizer| {
            tokenizer["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": steps });
            let takes_whole = ["tekken", "youtu", "minicpm5"].contains(&pre);
            tokenizer["model"]["ignore_merges"] = takes_whole.into();
            // What the files of this one do not have.
            if pre == "deepseek-llm" {
                let has_digits =
                    |merge: &Value| merge.to_string().contains(|c: char| c.is_numeric());
                let merges = tokenizer["model"]["merges"].as_array_mut();
                merges.expect("merges").retain(|merge| !has_digits(merge));
            }
        });
        let made = imported(&files, "");
        let name = made.str("tokenizer.ggml.pre");
        if name != Some(pre) {
            problems.push(format!("{pre} is called {name:?}"));
        }
        let differ = id_problems(&files["tokenizer.json"], &made, |c| is_apart(pre, c));
        if let Some(first) = differ.first() {
            problems.push(format!("{pre}: {} texts differ, as {first}", differ.len()));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// What is kept of a text, and what stands between words, is not the patterns' alone.
#[test]
fn other_behaviors_are_refused_by_name() {
    let removed = json!({ "type": "Split", "pattern": { "Regex": r"\p{N}" }, "behavior": "Removed", "invert": true });
    let merged = json!({ "type": "Split", "pattern": { "Regex": LLAMA3 }, "behavior": "MergedWithNext", "invert": false });
    for (step, what) in [
        (removed, "a pre-tokenizer Split of the behavior \"Removed\""),
        (
            merged,
            "a pre-tokenizer Split of the behavior \"MergedWithNext\"",
        ),
        (
            punctuation("Contiguous"),
            "a pre-tokenizer Punctuation of the behavior \"Contiguous\"",
        ),
        (split(r"\p{N}{1,2}"), r#"of the patterns ["\\p{N}{1,2}", "#),
        (
            json!({ "type": "UnicodeScripts" }),
            "pre-tokenizer \"UnicodeScripts\"",
        ),
    ] {
        let files = changed("llama", "tokenizer.json", |tokenizer| {
            let steps = json!([step, bytes(true)]);
            tokenizer["pre_tokenizer"] = json!({ "type": "Sequence", "pretokenizers": steps });
        });
        let error = Fixture::new().create(&files, "").expect_err("refused");
        assert!(error.contains(what), "{error}");
    }
}
