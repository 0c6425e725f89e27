//! Which tools an answer calls: the request's `tool_choice` and `parallel_tool_calls`, enforced by a grammar.

use super::error::ApiError;
use crate::api::ChatRequest;
use crate::chat::{Callable, Rules, Template};
use crate::engine::{Constraint, Lease, prepared_schema};
use serde_json::{Value, json};

/// What the request says about calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolChoice {
    /// The model decides.
    Auto,
    /// No calls: the model does not get to see the tools.
    Never,
    /// At least one call.
    Required,
    /// A call of this tool.
    Function(String),
    /// Calls of these tools alone; at least one of them where that is required.
    Allowed { names: Vec<String>, required: bool },
}

impl ToolChoice {
    /// `"auto"`, `"none"`, `"required"`, or one or several functions in the form of either of OpenAI's APIs.
    ///
    /// # Errors
    /// 400 for anything else, and for a choice that the request's tools cannot fulfil.
    pub fn of(request: &ChatRequest) -> Result<ToolChoice, ApiError> {
        let choice = match &request.tool_choice {
            None | Some(Value::Null) => ToolChoice::Auto,
            Some(Value::String(text)) => match text.as_str() {
                "" | "auto" => ToolChoice::Auto,
                "none" => ToolChoice::Never,
                "required" => ToolChoice::Required,
                _ => return Err(invalid(&request.tool_choice)),
            },
            Some(choice) => {
                let choice = match choice["type"].as_str() {
                    Some("function") | None => function(choice).map(ToolChoice::Function),
                    Some("allowed_tools") => allowed(choice),
                    Some(_) => None,
                };
                choice.ok_or_else(|| invalid(&request.tool_choice))?
            }
        };
        if choice == ToolChoice::Required && request.tools.is_empty() {
            return Err(ApiError::bad_request(
                "tool_choice \"required\" needs tools",
            ));
        }
        let is_sent = |name: &&String| request.tools.iter().any(|tool| name_of(tool) == *name);
        match choice.names().iter().find(|name| !is_sent(name)) {
            None => Ok(choice),
            Some(name) => Err(ApiError::bad_request(format!(
                "tool_choice names {name:?}, which is none of the request's tools"
            ))),
        }
    }

    /// The tools that it names; none where all may be called.
    fn names(&self) -> &[String] {
        match self {
            ToolChoice::Function(name) => std::slice::from_ref(name),
            ToolChoice::Allowed { names, .. } => names,
            _ => &[],
        }
    }

    fn is_forced(&self) -> bool {
        match self {
            ToolChoice::Required | ToolChoice::Function(_) => true,
            ToolChoice::Allowed { required, .. } => *required,
            ToolChoice::Auto | ToolChoice::Never => false,
        }
    }

    /// The constraint of an answer's calls: where they are required, where only one or only some tools are allowed, and
    /// where a tool is declared `strict`. Arguments fit the tools' schemas then.
    ///
    /// # Errors
    /// 400 for a schema that cannot be enforced.
    pub fn constraint(
        &self,
        request: &ChatRequest,
        template: &Template,
        lease: &Lease,
    ) -> Result<Option<Constraint>, ApiError> {
        let one_only = request.parallel_tool_calls == Some(false);
        let is_strict = |tool: &Value| tool["function"]["strict"] == json!(true);
        let names = self.names();
        let applies = self.is_forced()
            || one_only
            || !names.is_empty()
            || request.tools.iter().any(is_strict);
        if !applies || request.tools.is_empty() || *self == ToolChoice::Never {
            return Ok(None);
        }
        let callable =
            |tool: &&Value| names.is_empty() || names.iter().any(|name| name == name_of(tool));
        let tools: Result<Vec<Callable>, ApiError> =
            request.tools.iter().filter(callable).map(named).collect();
        let rules = Rules {
            required: self.is_forced(),
            several: !one_only && !matches!(self, ToolChoice::Function(_)),
        };
        let tokenizer = lease.tokenizer();
        let control = |text: &str| {
            let id = tokenizer.token_id(text);
            id.filter(|&id| tokenizer.is_control(id))
        };
        let grammar = template.call_grammar(&tools?, rules, &control)?;
        Ok(Some(Constraint::Grammar(grammar)))
    }
}

/// The name in `{"function": {"name"}}` or in `{"name"}`.
fn function(choice: &Value) -> Option<String> {
    let name = choice.pointer("/function/name").or(choice.get("name"))?;
    name.as_str().map(str::to_owned)
}

/// `{"mode", "tools"}`, itself or in a member `allowed_tools`.
fn allowed(choice: &Value) -> Option<ToolChoice> {
    let allowed = choice.get("allowed_tools").unwrap_or(choice);
    let required = match allowed["mode"].as_str() {
        Some("auto") => false,
        Some("required") => true,
        _ => return None,
    };
    let names: Vec<String> = allowed["tools"]
        .as_array()?
        .iter()
        .map(function)
        .collect::<Option<_>>()?;
    (!names.is_empty()).then_some(ToolChoice::Allowed { names, required })
}

/// A tool's name and the schema of its arguments.
fn named(tool: &Value) -> Result<Callable, ApiError> {
    let name = name_of(tool).to_owned();
    let schema = match &tool["function"]["parameters"] {
        Value::Object(schema) if !schema.is_empty() => {
            prepared_schema(&tool["function"]["parameters"])
        }
        _ => prepared_schema(&json!({"type": "object", "properties": {}})),
    };
    match schema {
        Ok(schema) => Ok(Callable { name, schema }),
        Err(e) => Err(ApiError::bad_request(format!(
            "parameters of tool {name:?}: {e}"
        ))),
    }
}

fn name_of(tool: &Value) -> &str {
    tool["function"]["name"].as_str().unwrap_or_default()
}

fn invalid(choice: &Option<Value>) -> ApiError {
    let sent = choice.as_ref().map(Value::to_string).unwrap_or_default();
    ApiError::bad_request(format!(
        "invalid tool_choice {sent}: \"auto\", \"none\", \"required\", one function or allowed_tools"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(sent: Value, names: &[&str]) -> Result<ToolChoice, ApiError> {
        let tool = |name: &&str| json!({"type": "function", "function": {"name": name}});
        ToolChoice::of(&ChatRequest {
            tool_choice: Some(sent),
            tools: names.iter().map(tool).collect(),
            ..ChatRequest::default()
        })
    }

    #[test]
    fn choices_are_read_in_both_of_openais_forms() {
        let function = Ok(ToolChoice::Function("f".into()));
        for (sent, expected) in [
            (json!(null), Ok(ToolChoice::Auto)),
            (json!("auto"), Ok(ToolChoice::Auto)),
            (json!("none"), Ok(ToolChoice::Never)),
            (json!("required"), Ok(ToolChoice::Required)),
            (
                json!({"type": "function", "function": {"name": "f"}}),
                function.clone(),
            ),
            (json!({"type": "function", "name": "f"}), function),
            (
                json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [
                    {"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "g"}},
                ]}}),
                Ok(ToolChoice::Allowed {
                    names: vec!["f".into(), "g".into()],
                    required: false,
                }),
            ),
            (
                json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]}),
                Ok(ToolChoice::Allowed {
                    names: vec!["g".into()],
                    required: true,
                }),
            ),
        ] {
            assert_eq!(choice(sent.clone(), &["f", "g"]), expected, "{sent}");
        }
    }

    #[test]
    fn what_cannot_be_fulfilled_is_refused() {
        for (sent, names, part) in [
            (json!("required"), &[][..], "needs tools"),
            (
                json!({"type": "function", "function": {"name": "g"}}),
                &["f"][..],
                "\"g\"",
            ),
            (json!("sometimes"), &["f"][..], "sometimes"),
            (
                json!({"type": "allowed_tools", "allowed_tools": {}}),
                &["f"][..],
                "allowed_tools",
            ),
            (
                json!({"type": "allowed_tools", "mode": "auto", "tools": []}),
                &["f"][..],
                "allowed_tools",
            ),
            (
                json!({"type": "allowed_tools", "mode": "auto", "tools": [{"name": "f"}, {"name": "g"}]}),
                &["f"][..],
                "\"g\"",
            ),
            (json!({"type": "custom", "name": "f"}), &["f"][..], "custom"),
            (json!(5), &["f"][..], "invalid tool_choice 5"),
        ] {
            let refused = choice(sent, names).unwrap_err();
            assert!(refused.message.contains(part), "{refused}");
        }
    }
}
