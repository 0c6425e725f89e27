//! BPE of `tokenizer.json`: byte-level as it is, BPE over text as the scores that give the same merges.

use super::super::{Error, bad};
use super::file::{Merge, NAME, Pattern, TokenizerFile, unsupported};
use super::{Added, Kind, Vocabulary, pre_tokenizer};
use std::collections::{HashMap, HashSet};

const SPACE: &str = "\u{2581}";
/// Bytes of an entry that merges make; the time to check an entry grows with their square.
const LONGEST_ENTRY: usize = 512;

/// The vocabulary of a file whose model is BPE.
pub fn vocabulary(mut file: TokenizerFile, n: usize) -> Result<Vocabulary, Error> {
    for (what, value) in [
        (
            "continuing_subword_prefix",
            &file.model.continuing_subword_prefix,
        ),
        ("end_of_word_suffix", &file.model.end_of_word_suffix),
    ] {
        if let Some(text) = value.as_ref().filter(|text| !text.is_empty()) {
            return Err(unsupported(what, text));
        }
    }
    let is_bytes = file
        .pre_tokenizers()
        .iter()
        .any(|step| step.kind == "ByteLevel");
    let mut vocabulary = match is_bytes {
        true => Vocabulary::new("gpt2", pre_tokenizer::name(&file)?, n),
        false => Vocabulary {
            space_prefix: Some(space_prefix(&file)?),
            ..Vocabulary::new("llama", "default", n)
        },
    };
    if is_bytes {
        check_normalizers(&file)?;
    } else if file.model.byte_fallback != Some(true) {
        let text = "BPE over text without byte_fallback is not supported";
        return Err(Error::Unsupported(format!("{NAME}: {text}")));
    }
    (vocabulary.first, vocabulary.last) = file.around()?;
    vocabulary.strips_behind = file.strips_behind();
    let added = file.added();
    vocabulary.unknown = file.model.unk_token.take();
    let entries = std::mem::take(&mut file.model.vocab.0);
    let merges = std::mem::take(&mut file.model.merges.0);
    let merges = merges
        .into_iter()
        .map(pair)
        .collect::<Result<Vec<_>, Error>>()?;
    if is_bytes {
        vocabulary.merges = joined(&merges)?;
    } else {
        vocabulary.scores = scores(&entries, &merges, &added)?;
    }
    for (text, id) in entries {
        let kind = match () {
            _ if is_bytes => Kind::Normal,
            _ if vocabulary.unknown.as_ref() == Some(&text) => Kind::Unknown,
            _ if is_byte(&text) => Kind::Byte,
            _ => Kind::Normal,
        };
        vocabulary.set(NAME, id, text, kind)?;
    }
    vocabulary.add(NAME, added)?;
    Ok(vocabulary)
}

fn pair(merge: Merge) -> Result<[String; 2], Error> {
    match merge {
        Merge::Pair(pair) => Ok(pair),
        Merge::Text(text) => match text.split_once(' ') {
            Some((left, right)) => Ok([left.into(), right.into()]),
            None => Err(bad(NAME, format!("merge {text:?} is no pair"))),
        },
    }
}

/// Merges as GGUF has them, whose halves a space separates.
fn joined(merges: &[[String; 2]]) -> Result<Vec<String>, Error> {
    let join = |[left, right]: &[String; 2]| match left.contains(' ') || right.contains(' ') {
        true => Err(bad(NAME, format!("merge {left:?} {right:?} has a space"))),
        false => Ok(format!("{left} {right}")),
    };
    merges.iter().map(join).collect()
}

/// Unicode's composed form does not change most texts, and no reader of GGUF makes it.
fn check_normalizers(file: &TokenizerFile) -> Result<(), Error> {
    match file
        .normalizers()
        .into_iter()
        .find(|step| step.kind != "NFC")
    {
        Some(step) => Err(unsupported("normalizer", &step.kind)),
        None => Ok(()),
    }
}

/// Whether a text gets a space in front. Spaces must become [`SPACE`] and nothing else change.
fn space_prefix(file: &TokenizerFile) -> Result<bool, Error> {
    let mut is_prefixed = false;
    let mut is_replaced = false;
    for step in file.normalizers() {
        match (step.kind.as_str(), &step.pattern) {
            ("Prepend", _) if step.prepend.as_deref() == Some(SPACE) => is_prefixed = true,
            ("Replace", Some(Pattern::String(from)))
                if from == " " && step.content.as_deref() == Some(SPACE) =>
            {
                is_replaced = true;
            }
            (kind, _) => return Err(unsupported("normalizer", kind)),
        }
    }
    for step in file.pre_tokenizers() {
        match (step.kind.as_str(), &step.pattern) {
            ("Metaspace", _)
                if step.replacement.as_deref() == Some(SPACE) && step.split == Some(false) =>
            {
                is_replaced = true;
                is_prefixed = match step.prepend_scheme.as_deref() {
                    Some("first" | "always") => true,
                    Some("never") => false,
                    Some(other) => return Err(unsupported("prepend_scheme", other)),
                    None => step.add_prefix_space.unwrap_or(true),
                };
            }
            // There are no spaces any more.
            ("Split", Some(Pattern::String(text))) if text == " " && is_replaced => {}
            (kind, _) => return Err(unsupported("pre-tokenizer", kind)),
        }
    }
    match is_replaced {
        true => Ok(is_prefixed),
        false => Err(bad(NAME, "no normalizer or pre-tokenizer replaces spaces")),
    }
}

/// An entry such as `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let digits = text
        .strip_prefix("<0x")
        .and_then(|text| text.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// Scores with which the best-scored neighbours merge as the pairs of lowest rank do.
///
/// That needs every pair of entries that make an entry to be a merge, and the merges that make one to follow one another:
/// so it is in files that were made from SentencePiece's. Others are refused. Entries that are found in text as a whole,
/// mostly runs of one kind of white space, need neither: SentencePiece has them all before the others, of one rank.
fn scores(
    entries: &[(String, u32)],
    merges: &[[String; 2]],
    added: &[Added],
) -> Result<HashMap<u32, f32>, Error> {
    let ids: HashMap<&str, u32> = entries
        .iter()
        .map(|(text, id)| (text.as_str(), *id))
        .collect();
    let other_order = |text: &str| {
        Error::Unsupported(format!(
            "{NAME}: the merges cannot be written as scores: other pairs make {text:?} than scores would merge"
        ))
    };
    let whole: HashSet<&str> = added.iter().map(|token| token.text.as_str()).collect();
    let is_merged = |text: &str| !is_byte(text) && !whole.contains(text);
    let mut scores: HashMap<u32, f32> = HashMap::new();
    let mut pairs = HashSet::new();
    let mut last = None;
    for (rank, [left, right]) in merges.iter().enumerate() {
        let text = format!("{left}{right}");
        let Some(&id) = ids.get(text.as_str()) else {
            let what = format!("merge {left:?} {right:?} makes no entry");
            return Err(bad(NAME, what));
        };
        if last != Some(id) {
            let is_apart = scores.contains_key(&id);
            if is_apart && is_merged(&text) {
                return Err(other_order(&text));
            }
            scores.entry(id).or_insert(-(rank as f32));
        }
        last = Some(id);
        pairs.insert((left.as_str(), right.as_str()));
    }
    for (text, _) in entries.iter().filter(|(text, _)| is_merged(text)) {
        if text.len() > LONGEST_ENTRY {
            let start: String = text.chars().take(20).collect();
            return Err(bad(
                NAME,
                format!("entry {start:?}... has more than {LONGEST_ENTRY} bytes"),
            ));
        }
        for (at, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(at);
            let makes_it = ids.contains_key(left) && ids.contains_key(right);
            if makes_it && !pairs.contains(&(left, right)) {
                return Err(other_order(text));
            }
        }
    }
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(entries: &[&str], merges: &[[&str; 2]]) -> Result<HashMap<u32, f32>, Error> {
        let entries: Vec<(String, u32)> = entries
            .iter()
            .zip(0..)
            .map(|(text, id)| (text.to_string(), id))
            .collect();
        let merges: Vec<[String; 2]> = merges.iter().map(|pair| pair.map(str::to_owned)).collect();
        scores(&entries, &merges, &[])
    }

    #[test]
    fn scores_are_ranks() {
        let entries = ["a", "b", "ab", "abb", "bb"];
        let scores = made(
            &entries,
            &[["a", "b"], ["b", "b"], ["ab", "b"], ["a", "bb"]],
        )
        .unwrap();
        assert_eq!((scores[&2], scores[&4], scores[&3]), (0.0, -1.0, -2.0));
        assert_eq!(scores.len(), 3);
    }

    #[test]
    fn merges_that_are_no_scores_are_refused() {
        let entries = ["a", "b", "ab", "abb", "bb"];
        let error = |merges: &[[&str; 2]]| made(&entries, merges).unwrap_err().to_string();
        let apart = error(&[["a", "b"], ["ab", "b"], ["b", "b"], ["a", "bb"]]);
        assert!(apart.contains("make \"abb\""), "{apart}");
        let missing = error(&[["a", "b"], ["b", "b"], ["ab", "b"]]);
        assert!(missing.contains("make \"abb\""), "{missing}");
        let unknown = error(&[["a", "a"]]);
        assert!(unknown.contains("\"a\" \"a\" makes no entry"), "{unknown}");
    }
}
