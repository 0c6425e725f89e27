//! `tokenizer.model`: SentencePiece's own file, a protocol buffer.
//!
//! Format: <https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>.

use super::super::checkpoint::Checkpoint;
use super::super::limits::Members;
use super::super::{Error, MAX_ENTRIES, bad};
use super::{Added, Kind, Vocabulary};
use serde::Deserialize;

pub const NAME: &str = "tokenizer.model";
const MAX_BYTES: u64 = 64 << 20;
const MAX_ADDED: usize = 1 << 17;
const CONFIG: &str = "tokenizer_config.json";
const ADDED: &str = "added_tokens.json";
/// The number of BPE among the types of models.
const BPE: u64 = 2;

/// A field of a message: its number and value.
enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
    Fixed64,
}

/// The fields of a message, until one is cut off or has an unknown type.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(usize::try_from(n).ok()?)?;
        self.0 = rest;
        Some(taken)
    }

    /// The next field; `Err` where the message is damaged.
    fn next(&mut self) -> Result<Option<(u64, Value<'a>)>, Error> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let mut field = || {
            let key = self.varint()?;
            let value = match key & 7 {
                0 => Value::Varint(self.varint()?),
                1 => self.take(8).map(|_| Value::Fixed64)?,
                2 => {
                    let n = self.varint()?;
                    Value::Bytes(self.take(n)?)
                }
                5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().ok()?)),
                _ => return None,
            };
            Some((key >> 3, value))
        };
        field()
            .map(Some)
            .ok_or_else(|| bad(NAME, "it is no SentencePiece model"))
    }
}

#[derive(Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    added_tokens_decoder: Members<Decoder, MAX_ADDED>,
}

#[derive(Deserialize)]
struct Decoder {
    content: String,
    #[serde(default)]
    special: bool,
}

/// The vocabulary of the file, with the tokens that were added to it.
pub fn vocabulary(checkpoint: &Checkpoint, n: usize) -> Result<Vocabulary, Error> {
    let bytes = checkpoint.bytes(NAME, MAX_BYTES)?.unwrap_or_default();
    let mut vocabulary = Vocabulary {
        space_prefix: Some(true),
        ..Vocabulary::new("llama", "default", n)
    };
    let (mut id, mut model_type) = (0, 1);
    let mut fields = Fields(&bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(piece)) => {
                if id as usize >= MAX_ENTRIES {
                    return Err(bad(NAME, format!("it has more than {MAX_ENTRIES} entries")));
                }
                let (text, score, kind) = self::piece(piece)?;
                vocabulary.scores.insert(id, score);
                vocabulary.set(NAME, id, text, kind)?;
                id += 1;
            }
            (2, Value::Bytes(trainer)) => model_type = number(trainer, 3)?.unwrap_or(model_type),
            (3, Value::Bytes(normalizer)) => {
                let prefix = number(normalizer, 3)?;
                vocabulary.space_prefix = Some(prefix != Some(0));
            }
            _ => {}
        }
    }
    if model_type != BPE {
        let text = format!(
            "{NAME}: a model of type {model_type} is not supported; supported is BPE ({BPE})"
        );
        return Err(Error::Unsupported(text));
    }
    vocabulary.add(NAME, added(checkpoint)?)?;
    Ok(vocabulary)
}

/// An entry. A user's own symbols are found in text before spaces are replaced.
fn piece(bytes: &[u8]) -> Result<(String, f32, Kind), Error> {
    let (mut text, mut score, mut kind) = (None, 0.0, Kind::Normal);
    let mut fields = Fields(bytes);
    while let Some(field) = fields.next()? {
        match field {
            (1, Value::Bytes(bytes)) => text = std::str::from_utf8(bytes).ok(),
            (2, Value::Fixed32(bits)) => score = f32::from_bits(bits),
            (3, Value::Varint(number)) => {
                kind = match number {
                    2 => Kind::Unknown,
                    3 => Kind::Control,
                    4 => Kind::UserDefined,
                    5 => Kind::Unused,
                    6 => Kind::Byte,
                    _ => Kind::Normal,
                }
            }
            _ => {}
        }
    }
    let text = text.ok_or_else(|| bad(NAME, "an entry has no text"))?;
    match kind {
        Kind::UserDefined => Ok((text.replace('\u{2581}', " "), score, kind)),
        _ => Ok((text.to_owned(), score, kind)),
    }
}

/// A number of a message.
fn number(bytes: &[u8], wanted: u64) -> Result<Option<u64>, Error> {
    let mut found = None;
    let mut fields = Fields(bytes);
    while let Some((field, value)) = fields.next()? {
        if let (true, Value::Varint(n)) = (field == wanted, value) {
            found = Some(n);
        }
    }
    Ok(found)
}

fn added(checkpoint: &Checkpoint) -> Result<Vec<Added>, Error> {
    let mut all = Vec::new();
    let ids: Option<Members<u32, MAX_ADDED>> = checkpoint.json(ADDED, MAX_BYTES)?;
    for (text, id) in ids.unwrap_or_default().0 {
        all.push(Added {
            id,
            text,
            is_special: false,
        });
    }
    let config: Option<TokenizerConfig> = checkpoint.json(CONFIG, MAX_BYTES)?;
    for (id, token) in config
        .map(|config| config.added_tokens_decoder.0)
        .unwrap_or_default()
    {
        let wrong = || bad(CONFIG, format!("added_tokens_decoder has {id:?} for an id"));
        all.push(Added {
            id: id.parse().map_err(|_| wrong())?,
            text: token.content,
            is_special: token.special,
        });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let mut bytes = b"\x0a\x04\xe2\x96\x81a\x15".to_vec();
        bytes.extend((-2.5f32).to_le_bytes());
        bytes.extend(b"\x18\x01");
        let (text, score, kind) = piece(&bytes).unwrap();
        assert_eq!(
            (text.as_str(), score, kind),
            ("\u{2581}a", -2.5, Kind::Normal)
        );
        let (text, _, kind) = piece(b"\x0a\x06\xe2\x96\x81\xe2\x96\x81\x18\x04").unwrap();
        assert_eq!((text.as_str(), kind), ("  ", Kind::UserDefined));
        assert_eq!(number(b"\x10\x07\x18\x02", 3).unwrap(), Some(2));
    }

    /// Every beginning of a message, and lengths beyond it, are errors.
    #[test]
    fn damaged_messages() {
        let whole = b"\x0a\x04\xe2\x96\x81a\x15\0\0\0\0";
        for n in 1..whole.len() {
            let cut = piece(&whole[..n]);
            assert_eq!(cut.is_ok(), n == 6, "{n}");
        }
        for bytes in [
            &b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..],
            &[0xff; 11],
            b"\x0b",
            b"\x0a\x01\xff",
        ] {
            assert!(piece(bytes).is_err(), "{bytes:?}");
        }
    }
}
