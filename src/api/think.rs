//! The `think` member: on, off, or a level.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

/// Whether, and how hard, a thinking model reasons before it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Think {
    Switch(bool),
    /// `low`, `medium`, `high` or `max`.
    Level(String),
}

impl Think {
    /// Is reasoning asked for? Any level is.
    pub fn is_on(&self) -> bool {
        !matches!(self, Think::Switch(false))
    }

    /// Level for templates: `true` is `medium`, `false` the empty string.
    pub fn level(&self) -> &str {
        match self {
            Think::Switch(true) => "medium",
            Think::Switch(false) => "",
            Think::Level(level) => level,
        }
    }
}

impl Serialize for Think {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Think::Switch(on) => serializer.serialize_bool(*on),
            Think::Level(level) => serializer.serialize_str(level),
        }
    }
}

impl<'de> Deserialize<'de> for Think {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        const KINDS: &str = r#""high", "medium", "low", "max", true, or false"#;
        match Value::deserialize(deserializer)? {
            Value::Bool(on) => Ok(Think::Switch(on)),
            Value::String(s) if matches!(s.as_str(), "low" | "medium" | "high" | "max") => {
                Ok(Think::Level(s))
            }
            Value::String(s) => Err(de::Error::custom(format!(
                "invalid think value: {s:?} (must be {KINDS})"
            ))),
            _ => Err(de::Error::custom(format!(
                "think must be a boolean or string ({KINDS})"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    #[test]
    fn forms_and_levels() {
        for (sent, on, level) in [
            (json!(true), true, "medium"),
            (json!(false), false, ""),
            (json!("low"), true, "low"),
            (json!("max"), true, "max"),
        ] {
            let think: Think = from_value(sent.clone()).unwrap();
            assert_eq!((think.is_on(), think.level()), (on, level), "{sent}");
            assert_eq!(serde_json::to_value(&think).unwrap(), sent);
        }
    }

    #[test]
    fn refusals_have_ollamas_texts() {
        let text = |sent| from_value::<Think>(sent).unwrap_err().to_string();
        assert_eq!(
            text(json!("")),
            r#"invalid think value: "" (must be "high", "medium", "low", "max", true, or false)"#
        );
        assert_eq!(
            text(json!(3)),
            r#"think must be a boolean or string ("high", "medium", "low", "max", true, or false)"#
        );
    }
}
