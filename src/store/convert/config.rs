//! `config.json`: the numbers of a model, read with the member named in every error.

use super::checkpoint::Checkpoint;
use super::{Error, bad};
use serde_json::{Map, Value};

pub const FILE: &str = "config.json";
const MAX_BYTES: u64 = 1 << 20;
/// Bound on every extent; real models stay far below, and products of two fit 64 bits.
pub const MAX_EXTENT: u64 = 1 << 24;
/// As many as a model may have when it is loaded.
const MAX_LAYERS: u32 = 1024;

/// Members of `config.json`, or of an object in it.
pub struct Config {
    members: Map<String, Value>,
    /// How errors name it.
    name: String,
}

impl Config {
    /// Reads the file; the first of its `architectures` and what describes the text model.
    pub fn read(checkpoint: &Checkpoint) -> Result<(String, Config), Error> {
        let members = checkpoint.json(FILE, MAX_BYTES)?;
        let missing = || Error::BadRequest(format!("{FILE} is missing: it describes the model"));
        let whole = Config {
            members: members.ok_or_else(missing)?,
            name: FILE.into(),
        };
        let architectures = whole.members.get("architectures").and_then(Value::as_array);
        let first = architectures.and_then(|all| all.first()?.as_str());
        let first =
            first.ok_or_else(|| whole.bad("architectures", "must name the architecture"))?;
        let (first, text) = (first.to_owned(), whole.object("text_config")?);
        Ok((first, text.unwrap_or(whole)))
    }

    /// Puts numbers where the file has none.
    pub fn fill(&mut self, defaults: &[(&str, f64)]) {
        for &(key, number) in defaults
            .iter()
            .filter(|(key, _)| !self.has(key))
            .collect::<Vec<_>>()
        {
            let whole = number as u64;
            let value = match whole as f64 == number {
                true => Value::from(whole),
                false => Value::from(number),
            };
            self.members.insert(key.into(), value);
        }
    }

    /// An error about one member.
    pub fn bad(&self, key: &str, what: impl std::fmt::Display) -> Error {
        bad(&self.name, format!("{key} {what}"))
    }

    /// A member that is there; `null` counts as absent.
    fn get(&self, key: &str) -> Option<&Value> {
        self.members.get(key).filter(|value| !value.is_null())
    }

    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// An object, whose members errors name behind this key.
    pub fn object(&self, key: &str) -> Result<Option<Config>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(Config {
                members: members.clone(),
                name: format!("{}: {key}", self.name),
            })),
            Some(_) => Err(self.bad(key, "must be an object")),
        }
    }

    /// A positive whole number.
    pub fn optional_u32(&self, key: &str) -> Result<Option<u32>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(n @ 1..=MAX_EXTENT) => Ok(Some(n as u32)),
            _ => Err(self.bad(
                key,
                format!("must be a whole number from 1 to {MAX_EXTENT}, it is {value}"),
            )),
        }
    }

    /// A positive whole number that must be there.
    pub fn u32(&self, key: &str) -> Result<u32, Error> {
        self.optional_u32(key)?
            .ok_or_else(|| self.bad(key, "is missing"))
    }

    /// The number of layers.
    pub fn n_layers(&self) -> Result<u32, Error> {
        let key = "num_hidden_layers";
        match self.u32(key)? {
            n if n > MAX_LAYERS => {
                Err(self.bad(key, format!("is {n}; at most {MAX_LAYERS} are accepted")))
            }
            n => Ok(n),
        }
    }

    /// A positive finite number.
    pub fn optional_f64(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(n) if n > 0.0 && n.is_finite() && (n as f32).is_finite() => Ok(Some(n)),
            _ => Err(self.bad(key, format!("must be a positive number, it is {value}"))),
        }
    }

    /// A positive finite number that must be there.
    pub fn f64(&self, key: &str) -> Result<f64, Error> {
        self.optional_f64(key)?
            .ok_or_else(|| self.bad(key, "is missing"))
    }

    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(value) => Err(self.bad(key, format!("must be true or false, it is {value}"))),
        }
    }

    pub fn optional_str(&self, key: &str) -> Result<Option<&str>, Error> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(key, "must be a text")),
        }
    }

    /// Positive finite numbers.
    pub fn optional_f32s(&self, key: &str) -> Result<Option<Vec<f32>>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let numbers = value
            .as_array()
            .map(|items| items.iter().map(|item| item.as_f64().map(|n| n as f32)));
        let numbers = numbers.and_then(|numbers| numbers.collect::<Option<Vec<f32>>>());
        let numbers = numbers.filter(|n| n.iter().all(|n| *n > 0.0 && n.is_finite()));
        let wrong = || self.bad(key, "must be a list of positive numbers");
        numbers.ok_or_else(wrong).map(Some)
    }

    /// Texts.
    pub fn optional_strs(&self, key: &str) -> Result<Option<Vec<&str>>, Error> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let texts = value
            .as_array()
            .map(|items| items.iter().map(Value::as_str));
        let texts = texts.and_then(|texts| texts.collect::<Option<Vec<&str>>>());
        texts
            .ok_or_else(|| self.bad(key, "must be a list of texts"))
            .map(Some)
    }

    /// Refuses a member with another value than those that the engine computes.
    pub fn only(&self, key: &str, accepted: &[&str]) -> Result<(), Error> {
        match self.optional_str(key)? {
            Some(value) if !accepted.contains(&value) => Err(Error::Unsupported(format!(
                "{}: {key} {value:?} is not supported; supported are {}",
                self.name,
                accepted.join(", ")
            ))),
            _ => Ok(()),
        }
    }

    /// Refuses members that are set: to anything but false, nothing, or `none`.
    pub fn unset(&self, keys: &[&str]) -> Result<(), Error> {
        let is_set = |key: &&&str| match self.get(key) {
            None | Some(Value::Bool(false)) => false,
            Some(Value::Array(items)) => !items.is_empty(),
            Some(Value::Object(members)) => !members.is_empty(),
            Some(value) => value.as_str() != Some("none"),
        };
        match keys.iter().find(is_set) {
            Some(key) => Err(Error::Unsupported(format!(
                "{}: {key} is not supported",
                self.name
            ))),
            None => Ok(()),
        }
    }

    /// Ids of tokens, given as a number or as a list; what is no id counts as absent.
    pub fn token_ids(&self, key: &str) -> Vec<u32> {
        let id = |value: &Value| value.as_u64().and_then(|n| u32::try_from(n).ok());
        match self.get(key) {
            Some(Value::Array(items)) => items.iter().filter_map(id).collect(),
            Some(value) => id(value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// Another small file of settings, if it is there.
    pub fn of(checkpoint: &Checkpoint, file: &str) -> Result<Option<Config>, Error> {
        let members = checkpoint.json(file, MAX_BYTES)?;
        Ok(members.map(|members| Config {
            members,
            name: file.into(),
        }))
    }
}

#[cfg(test)]
impl Config {
    /// The members of a JSON object.
    pub fn of_text(text: &str) -> Config {
        Config {
            members: serde_json::from_str(text).expect("an object"),
            name: FILE.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_within_bounds() {
        let config = Config::of_text(
            r#"{"a": 3, "b": -1, "c": 2.5, "d": "4", "e": 1e40, "f": 4294967295, "g": null, "num_hidden_layers": 1431655}"#,
        );
        assert_eq!(config.u32("a").unwrap(), 3);
        assert_eq!(config.optional_u32("g").unwrap(), None);
        for key in ["b", "c", "d", "f"] {
            let error = config.u32(key).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("config.json: {key} must be")),
                "{error}"
            );
        }
        assert_eq!(config.f64("c").unwrap(), 2.5);
        for key in ["b", "d", "e"] {
            assert!(config.f64(key).is_err(), "{key}");
        }
        let error = config.n_layers().unwrap_err().to_string();
        assert!(error.contains("at most 1024"), "{error}");
        assert_eq!(
            config.u32("x").unwrap_err().to_string(),
            "config.json: x is missing"
        );
    }
}
