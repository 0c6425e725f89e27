//! Tools that a request offers, and calls that a model makes.

use super::Error;
use super::go_json::kind;
use serde_json::{Map, Value, json};

/// A call of a tool, by a model or in a conversation's history.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolCall {
    /// Empty where nobody gave one; see [`ToolCall::new_id`].
    pub id: String,
    /// Position among the calls of one answer, from 0.
    pub index: usize,
    pub name: String,
    pub arguments: Map<String, Value>,
}

impl ToolCall {
    /// An id of Ollama's form: `call_` and eight characters of `a-z0-9`, from 64 random bits.
    pub fn new_id(mut random: u64) -> String {
        const ALPHABET: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
        let mut id = String::from("call_");
        for _ in 0..8 {
            id.push(ALPHABET[(random % 36) as usize] as char);
            random /= 36;
        }
        id
    }
}

/// A function that the model may call. Schema keywords outside the named ones are dropped, as
/// Ollama does, so that templates see the same text.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    pub kind: String,
    /// As the request has it; templates may print it.
    pub items: Option<Value>,
    pub name: String,
    pub description: String,
    pub parameters: Parameters,
}

/// The object schema of a tool's arguments.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Parameters {
    pub kind: String,
    pub defs: Option<Value>,
    pub items: Option<Value>,
    pub required: Vec<String>,
    /// In the order of the request.
    pub properties: Option<Vec<(String, Property)>>,
}

/// The schema of one argument.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Property {
    /// Schemas of which one must hold.
    pub any_of: Vec<Property>,
    /// One type, or the members of a union.
    pub kind: Vec<String>,
    pub items: Option<Value>,
    pub description: String,
    /// Values of `enum`.
    pub choices: Vec<Value>,
    pub properties: Option<Vec<(String, Property)>>,
    pub required: Vec<String>,
}

impl Tool {
    /// Reads a tool of a request: `{type, function: {name, description, parameters}}`. Fails on
    /// a member of the wrong type.
    pub fn from_json(value: &Value) -> Result<Tool, Error> {
        let tool = Object::new(value, "tool")?;
        let function = tool.object("function")?;
        Ok(Tool {
            kind: tool.string("type")?,
            items: tool.any("items"),
            name: function.string("name")?,
            description: function.string("description")?,
            parameters: Parameters::from_json(&function.object("parameters")?)?,
        })
    }

    /// The tool with its members in Ollama's order, as templates print it.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("type".into(), json!(self.kind));
        insert_some(&mut out, "items", &self.items);
        out.insert("function".into(), self.function_json());
        Value::Object(out)
    }

    /// The member `function` alone.
    pub fn function_json(&self) -> Value {
        json!({
            "name": self.name,
            "description": self.description,
            "parameters": self.parameters.to_json(),
        })
    }
}

impl Parameters {
    fn from_json(object: &Object) -> Result<Parameters, Error> {
        Ok(Parameters {
            kind: object.string("type")?,
            defs: object.any("$defs"),
            items: object.any("items"),
            required: object.strings("required")?,
            properties: object.properties()?,
        })
    }

    /// `{type, $defs?, items?, required?, properties}`; properties are null when absent.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        out.insert("type".into(), json!(self.kind));
        insert_some(&mut out, "$defs", &self.defs);
        insert_some(&mut out, "items", &self.items);
        if !self.required.is_empty() {
            out.insert("required".into(), json!(self.required));
        }
        let properties = self
            .properties
            .as_deref()
            .map_or(Value::Null, properties_json);
        out.insert("properties".into(), properties);
        Value::Object(out)
    }
}

impl Property {
    /// The declared types, members of unions included.
    pub fn types(&self) -> Vec<String> {
        let inner = self.any_of.iter().flat_map(Property::types);
        self.kind.iter().cloned().chain(inner).collect()
    }

    /// Reads the schema of one value.
    pub fn from_json(value: &Value) -> Result<Property, Error> {
        let object = Object::new(value, "property")?;
        Ok(Property {
            any_of: object
                .list("anyOf")?
                .iter()
                .map(Property::from_json)
                .collect::<Result<_, _>>()?,
            kind: object.string_or_strings("type")?,
            items: object.any("items"),
            description: object.string("description")?,
            choices: object.list("enum")?.to_vec(),
            properties: object.properties()?,
            required: object.strings("required")?,
        })
    }

    /// The property with empty members left out.
    pub fn to_json(&self) -> Value {
        let mut out = Map::new();
        if !self.any_of.is_empty() {
            out.insert(
                "anyOf".into(),
                self.any_of.iter().map(Property::to_json).collect(),
            );
        }
        match self.kind.as_slice() {
            [] => {}
            [one] => drop(out.insert("type".into(), json!(one))),
            several => drop(out.insert("type".into(), json!(several))),
        }
        insert_some(&mut out, "items", &self.items);
        if !self.description.is_empty() {
            out.insert("description".into(), json!(self.description));
        }
        if !self.choices.is_empty() {
            out.insert("enum".into(), json!(self.choices));
        }
        if let Some(properties) = &self.properties {
            out.insert("properties".into(), properties_json(properties));
        }
        if !self.required.is_empty() {
            out.insert("required".into(), json!(self.required));
        }
        Value::Object(out)
    }
}

fn properties_json(properties: &[(String, Property)]) -> Value {
    Value::Object(
        properties
            .iter()
            .map(|(name, p)| (name.clone(), p.to_json()))
            .collect(),
    )
}

fn insert_some(out: &mut Map<String, Value>, key: &str, value: &Option<Value>) {
    if let Some(value) = value {
        out.insert(key.into(), value.clone());
    }
}

/// An object of a request with the rules of Go's decoder: absent and null members are empty, any
/// other type is an error that names the member.
struct Object<'a> {
    members: Option<&'a Map<String, Value>>,
    what: &'static str,
}

impl<'a> Object<'a> {
    fn new(value: &'a Value, what: &'static str) -> Result<Object<'a>, Error> {
        match value {
            Value::Object(members) => Ok(Object {
                members: Some(members),
                what,
            }),
            Value::Null => Ok(Object {
                members: None,
                what,
            }),
            other => Err(wrong_type(what, "an object", other)),
        }
    }

    fn any(&self, key: &str) -> Option<Value> {
        self.get(key).cloned()
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.members
            .and_then(|m| m.get(key))
            .filter(|v| !v.is_null())
    }

    fn object(&self, key: &'static str) -> Result<Object<'a>, Error> {
        Object::new(self.get(key).unwrap_or(&Value::Null), key)
    }

    fn string(&self, key: &str) -> Result<String, Error> {
        match self.get(key) {
            None => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(self.wrong_member(key, "a string", other)),
        }
    }

    fn list(&self, key: &str) -> Result<&'a [Value], Error> {
        match self.get(key) {
            None => Ok(&[]),
            Some(Value::Array(items)) => Ok(items),
            Some(other) => Err(self.wrong_member(key, "an array", other)),
        }
    }

    fn strings(&self, key: &str) -> Result<Vec<String>, Error> {
        let string = |item: &Value| match item {
            Value::String(text) => Ok(text.clone()),
            other => Err(self.wrong_member(key, "an array of strings", other)),
        };
        self.list(key)?.iter().map(string).collect()
    }

    fn string_or_strings(&self, key: &str) -> Result<Vec<String>, Error> {
        match self.get(key) {
            Some(Value::String(text)) => Ok(vec![text.clone()]),
            _ => self.strings(key),
        }
    }

    fn properties(&self) -> Result<Option<Vec<(String, Property)>>, Error> {
        let Some(value) = self.get("properties") else {
            return Ok(None);
        };
        let Value::Object(members) = value else {
            return Err(self.wrong_member("properties", "an object", value));
        };
        let property = |(name, value): (&String, &Value)| {
            Property::from_json(value).map(|property| (name.clone(), property))
        };
        members
            .iter()
            .map(property)
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn wrong_member(&self, key: &str, expected: &str, found: &Value) -> Error {
        wrong_type(&format!("{}.{key}", self.what), expected, found)
    }
}

fn wrong_type(what: &str, expected: &str, found: &Value) -> Error {
    let found = kind(found);
    Error::Tool(format!(
        "json: cannot unmarshal {found} into {what}: expected {expected}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_put_in_ollamas_order_and_unknown_keywords_dropped() {
        let sent = json!({"function": {"parameters": {"properties": {"b": {"description": "d",
            "type": "string", "minLength": 3}, "a": {"type": ["null", "integer"]}}, "required": ["b"],
            "type": "object", "additionalProperties": false}, "name": "f"}, "type": "function"});
        let text = Tool::from_json(&sent).unwrap().to_json().to_string();
        assert_eq!(
            text,
            r#"{"type":"function","function":{"name":"f","description":"","parameters":{"type":"object","required":["b"],"properties":{"b":{"type":"string","description":"d"},"a":{"type":["null","integer"]}}}}}"#
        );
    }

    #[test]
    fn wrong_types_are_named() {
        let sent = json!({"type": "function", "function": {"name": 5}});
        let error = Tool::from_json(&sent).unwrap_err().to_string();
        assert!(
            error.contains("function.name") && error.contains("number"),
            "{error}"
        );
    }

    #[test]
    fn ids_have_ollamas_form() {
        assert_eq!(ToolCall::new_id(0), "call_aaaaaaaa");
        let id = ToolCall::new_id(u64::MAX);
        assert!(id.len() == 13 && id.starts_with("call_"), "{id}");
    }
}
