//! A conversation laid out as the data of a Go template, in the three forms that templates expect:
//! a list of messages, one turn at a time, and text before and after a gap.

use super::{
    Error, Message, RenderInput, Role, ToolCall,
    gotemplate::{
        GoTemplate,
        value::{Field, Form, Value},
    },
    tool::{Parameters, Property, Tool},
};

/// Steps for the template's own work.
const BASE_STEPS: usize = 1_000_000;
/// More steps for each message, so that long conversations are never refused.
const STEPS_PER_MESSAGE: usize = 5_000;

/// Parses a template; one that uses neither messages nor the response gets the response appended.
pub fn parse(source: &str) -> Result<GoTemplate, Error> {
    let mut template = GoTemplate::parse(source)?;
    let identifiers = template.identifiers();
    if !identifiers.contains("messages") && !identifiers.contains("response") {
        template.append_response();
    }
    Ok(template)
}

/// Renders a conversation.
pub fn render(template: &GoTemplate, input: &RenderInput) -> Result<String, Error> {
    let messages = collate(input.messages);
    if template.identifiers().contains("messages") {
        let mut data = vec![
            ("System".into(), system_text(input.messages).into()),
            (
                "Messages".into(),
                Value::list(messages.iter().map(message).collect(), Form::Plain),
            ),
            ("Tools".into(), tools(input.tools)),
            ("Response".into(), "".into()),
        ];
        data.extend(think_fields(input));
        return template.run(
            &Value::map(data, Form::Plain),
            input.now,
            max_steps(&messages),
        );
    }
    render_turns(template, &messages, input)
}

/// Renders the text around a gap that the model is to fill.
pub fn render_insert(
    template: &GoTemplate,
    prompt: &str,
    suffix: &str,
    input: &RenderInput,
) -> Result<String, Error> {
    let mut data = vec![
        ("Prompt".into(), prompt.into()),
        ("Suffix".into(), suffix.into()),
        ("Response".into(), "".into()),
    ];
    data.extend(think_fields(input));
    let steps = BASE_STEPS + prompt.len() + suffix.len();
    template.run(&Value::map(data, Form::Plain), input.now, steps)
}

/// One turn of a template from before there were messages.
#[derive(Debug, Default)]
struct Turn<'m> {
    system: &'m str,
    prompt: &'m str,
    response: &'m str,
}

impl Turn<'_> {
    fn data(&self, input: &RenderInput) -> Value {
        let texts = [
            ("System", self.system),
            ("Prompt", self.prompt),
            ("Response", self.response),
        ];
        let texts = texts
            .into_iter()
            .map(|(key, text)| (key.to_string(), text.into()));
        Value::map(texts.chain(think_fields(input)), Form::Plain)
    }
}

/// Runs the template once a turn, and for the last turn up to the response.
fn render_turns(
    template: &GoTemplate,
    messages: &[Message],
    input: &RenderInput,
) -> Result<String, Error> {
    let (mut out, mut turn) = (String::new(), Turn::default());
    let steps = max_steps(messages);
    for message in messages {
        let is_complete = match message.role {
            Role::System => !turn.prompt.is_empty() || !turn.response.is_empty(),
            Role::User => !turn.response.is_empty(),
            _ => false,
        };
        if is_complete {
            out.push_str(&template.run(&turn.data(input), input.now, steps)?);
            turn = Turn::default();
        }
        match message.role {
            Role::System => turn.system = &message.content,
            Role::User => turn.prompt = &message.content,
            Role::Assistant => turn.response = &message.content,
            _ => {}
        }
    }
    out.push_str(&template.run_to_response(&turn.data(input), input.now, steps)?);
    Ok(out)
}

/// Joins neighbours of one role, tools' answers excepted, by a blank line. Only contents join.
fn collate(messages: &[Message]) -> Vec<Message> {
    let mut out: Vec<Message> = Vec::with_capacity(messages.len());
    for message in messages {
        match out.last_mut() {
            Some(last) if last.role == message.role && message.role != Role::Tool => {
                last.content.push_str("\n\n");
                last.content.push_str(&message.content);
            }
            _ => out.push(message.clone()),
        }
    }
    out
}

fn system_text(messages: &[Message]) -> String {
    let systems = messages.iter().filter(|m| m.role == Role::System);
    systems
        .map(|m| m.content.as_str())
        .collect::<Vec<_>>()
        .join("\n\n")
}

fn max_steps(messages: &[Message]) -> usize {
    let given = messages
        .iter()
        .map(|m| m.content.len() + m.thinking.len())
        .sum::<usize>();
    BASE_STEPS + given + messages.len() * STEPS_PER_MESSAGE
}

fn think_fields(input: &RenderInput) -> [(String, Value); 3] {
    let level = input.think.map_or("", |think| think.level());
    [
        (
            "Think".into(),
            input.think.is_some_and(|think| think.is_on()).into(),
        ),
        ("ThinkLevel".into(), level.into()),
        ("IsThinkSet".into(), input.think.is_some().into()),
    ]
}

fn field(name: &'static str, key: &'static str, value: impl Into<Value>) -> Field {
    Field {
        name,
        key,
        omit_empty: false,
        value: value.into(),
    }
}

fn optional(name: &'static str, key: &'static str, value: impl Into<Value>) -> Field {
    Field {
        omit_empty: true,
        ..field(name, key, value)
    }
}

fn message(message: &Message) -> Value {
    let calls = message.tool_calls.iter().map(tool_call).collect();
    // Templates ask whether there are images; the bytes are the engine's.
    let images = (0..message.n_images)
        .map(|i| Value::Int(i as i64))
        .collect();
    Value::record(
        "api.Message",
        Form::Plain,
        vec![
            field("Role", "role", message.role.as_str()),
            field("Content", "content", message.content.as_str()),
            optional("Thinking", "thinking", message.thinking.as_str()),
            optional("Images", "images", Value::list(images, Form::Plain)),
            optional("ToolCalls", "tool_calls", Value::list(calls, Form::Plain)),
            optional("ToolName", "tool_name", message.tool_name.as_str()),
            optional("ToolCallID", "tool_call_id", message.tool_call_id.as_str()),
        ],
    )
}

fn tool_call(call: &ToolCall) -> Value {
    let arguments = call
        .arguments
        .iter()
        .map(|(k, v)| (k.clone(), Value::from_json(v)));
    let function = Value::record(
        "api.ToolCallFunction",
        Form::Plain,
        vec![
            field("Index", "index", Value::Int(call.index as i64)),
            field("Name", "name", call.name.as_str()),
            field("Arguments", "arguments", Value::map(arguments, Form::Json)),
        ],
    );
    Value::record(
        "api.ToolCall",
        Form::Plain,
        vec![
            optional("ID", "id", call.id.as_str()),
            field("Function", "function", function),
        ],
    )
}

fn tools(tools: &[Tool]) -> Value {
    Value::list(tools.iter().map(tool).collect(), Form::Json)
}

/// A tool prints as JSON, but its function alone as a Go struct: so the prompts of a real Ollama.
fn tool(tool: &Tool) -> Value {
    let function = Value::record(
        "api.ToolFunction",
        Form::Plain,
        vec![
            field("Name", "name", tool.name.as_str()),
            field("Description", "description", tool.description.as_str()),
            field("Parameters", "parameters", parameters(&tool.parameters)),
        ],
    );
    Value::record(
        "api.Tool",
        Form::Json,
        vec![
            field("Type", "type", tool.kind.as_str()),
            optional("Items", "items", json_or_nil(&tool.items)),
            field("Function", "function", function),
        ],
    )
}

fn parameters(parameters: &Parameters) -> Value {
    let properties = match &parameters.properties {
        Some(known) => properties(known),
        None => Value::map([], Form::Absent),
    };
    Value::record(
        "api.ToolFunctionParameters",
        Form::Plain,
        vec![
            field("Type", "type", parameters.kind.as_str()),
            optional("Defs", "$defs", json_or_nil(&parameters.defs)),
            optional("Items", "items", json_or_nil(&parameters.items)),
            optional(
                "Required",
                "required",
                strings(&parameters.required, Form::Plain),
            ),
            field("Properties", "properties", properties),
        ],
    )
}

fn properties(properties: &[(String, Property)]) -> Value {
    let properties = properties
        .iter()
        .map(|(name, p)| (name.clone(), property(p)));
    Value::map(properties, Form::Json)
}

fn property(property: &Property) -> Value {
    let any_of = property.any_of.iter().map(self::property).collect();
    let choices = property.choices.iter().map(Value::from_json).collect();
    let nested = property
        .properties
        .as_ref()
        .map_or(Value::Nil, |p| properties(p));
    Value::record(
        "api.ToolProperty",
        Form::Plain,
        vec![
            optional("AnyOf", "anyOf", Value::list(any_of, Form::Plain)),
            optional("Type", "type", strings(&property.kind, Form::Single)),
            optional("Items", "items", json_or_nil(&property.items)),
            optional("Description", "description", property.description.as_str()),
            optional("Enum", "enum", Value::list(choices, Form::Plain)),
            optional("Properties", "properties", nested),
            optional(
                "Required",
                "required",
                strings(&property.required, Form::Plain),
            ),
        ],
    )
}

fn strings(texts: &[String], form: Form) -> Value {
    Value::list(
        texts.iter().map(|text| text.as_str().into()).collect(),
        form,
    )
}

fn json_or_nil(json: &Option<serde_json::Value>) -> Value {
    json.as_ref().map_or(Value::Nil, Value::from_json)
}
