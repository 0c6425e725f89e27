//! JSON that was uploaded: read into types that bound what a small text can grow to.

use super::Error;
use serde::de::{
    Deserialize, DeserializeOwned, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use std::fmt;
use std::marker::PhantomData;

/// An array of at most `MOST` items.
#[derive(Debug, Clone)]
pub struct Few<T, const MOST: usize>(pub Vec<T>);

/// An object of at most `MOST` members, in their order; names may occur twice.
#[derive(Debug, Clone)]
pub struct Members<T, const MOST: usize>(pub Vec<(String, T)>);

impl<T, const MOST: usize> Default for Few<T, MOST> {
    fn default() -> Self {
        Few(Vec::new())
    }
}

impl<T, const MOST: usize> Default for Members<T, MOST> {
    fn default() -> Self {
        Members(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(Items(PhantomData))
    }
}

struct Items<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Items<T, MOST> {
    type Value = Few<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an array of at most {MOST} items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(item) = items.next_element()? {
            if all.len() == MOST {
                return Err(A::Error::custom(format!(
                    "more than {MOST} items in an array"
                )));
            }
            all.push(item);
        }
        Ok(Few(all))
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Members<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Pairs(PhantomData))
    }
}

struct Pairs<T, const MOST: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Pairs<T, MOST> {
    type Value = Members<T, MOST>;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "an object of at most {MOST} members")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
        let mut all = Vec::new();
        while let Some(member) = members.next_entry()? {
            if all.len() == MOST {
                return Err(A::Error::custom(format!(
                    "more than {MOST} members in an object"
                )));
            }
            all.push(member);
        }
        Ok(Members(all))
    }
}

/// The value of a JSON text; `file` names it in errors. Python writes `NaN` and `Infinity`, which count as `null`.
pub fn parse<T: DeserializeOwned>(file: &str, text: &[u8]) -> Result<T, Error> {
    let is_odd = |word: &[u8]| text.windows(word.len()).any(|part| part == word);
    let cleaned;
    let text = if is_odd(b"NaN") || is_odd(b"Infinity") {
        cleaned = without_odd_numbers(text);
        &cleaned
    } else {
        text
    };
    serde_json::from_slice(text).map_err(|e| super::bad(file, e))
}

/// The text with `null` for the numbers that JSON does not have.
fn without_odd_numbers(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some((&byte, tail)) = rest.split_first() {
        let odd = [b"-Infinity".as_slice(), b"Infinity", b"NaN"];
        let odd = odd.into_iter().find_map(|word| rest.strip_prefix(word));
        if let Some(behind) = odd.filter(|_| !in_string) {
            out.extend(b"null");
            rest = behind;
            continue;
        }
        in_string ^= byte == b'"';
        out.push(byte);
        rest = tail;
        if let Some((&escaped, behind)) = rest.split_first().filter(|_| in_string && byte == b'\\')
        {
            out.push(escaped);
            rest = behind;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn numbers_that_json_lacks() {
        let text = br#"{"a": NaN, "b": [Infinity, -Infinity], "c\"NaN": "NaN \\", "d": NaN}"#;
        let value: Value = parse("x", text).unwrap();
        let want = r#"{"a":null,"b":[null,null],"c\"NaN":"NaN \\","d":null}"#;
        assert_eq!(value.to_string(), want);
    }

    #[test]
    fn bounds() {
        assert_eq!(parse::<Few<u8, 2>>("x", b"[1,2]").unwrap().0, [1, 2]);
        let error = parse::<Few<u8, 2>>("x.json", b"[1,2,3]")
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("x.json: more than 2 items"), "{error}");
        let members = parse::<Members<u8, 2>>("x", br#"{"a":1,"a":2}"#).unwrap().0;
        assert_eq!(members, [("a".into(), 1), ("a".into(), 2)]);
        assert!(parse::<Members<u8, 1>>("x", br#"{"a":1,"a":2}"#).is_err());
        assert!(parse::<Value>("x", "[".repeat(10_000).as_bytes()).is_err());
    }
}
