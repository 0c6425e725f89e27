//! `show`: one section of a model, or a summary as headed blocks.

use super::table::Table;
use crate::api::{Object, ShowReply};
use crate::store::human_number;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

/// A part of a model that is printed by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Section {
    License,
    Modelfile,
    Parameters,
    System,
    Template,
}

impl Section {
    /// The section's text as it is printed: scripts read system and template, so these get no line feed added.
    pub fn text(self, model: &ShowReply) -> String {
        match self {
            Section::License => format!("{}\n", model.license),
            Section::Modelfile => format!("{}\n", model.modelfile),
            Section::Parameters => format!("{}\n", model.parameters),
            Section::System => model.system.clone(),
            Section::Template => model.template.clone(),
        }
    }
}

/// The blocks that describe a model; `verbose` adds its metadata and tensors.
pub fn summary(model: &ShowReply, verbose: bool) -> String {
    let mut text = String::new();
    let mut block = |title: &str, table: Table| {
        if !table.is_empty() {
            text += &format!("  {title}\n{}\n", table.render());
        }
    };
    block("Model", facts(model));
    block("Capabilities", lines(&model.capabilities));
    block("Projector", projector(&model.projector_info));
    block("Parameters", parameters(&model.parameters));
    if verbose {
        block("Metadata", metadata(&model.model_info));
        block("Tensors", tensors(model));
    }
    block("System", head(&model.system));
    block("License", head(&model.license));
    text
}

fn rows() -> Table {
    Table::indented("    ")
}

fn facts(model: &ShowReply) -> Table {
    let info = &model.model_info;
    let details = &model.details;
    let arch = info.get("general.architecture").and_then(Value::as_str);
    let arch = arch.unwrap_or(&details.family);
    let parameters = info.get("general.parameter_count").and_then(Value::as_u64);
    let length = |key: &str| info.get(&format!("{arch}.{key}")).map(scalar);
    let mut table = rows();
    let mut fact = |name: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            table.row([name.to_owned(), value]);
        }
    };
    fact("architecture", Some(arch.to_owned()));
    let parameters = parameters.map(human_number);
    fact(
        "parameters",
        parameters.or(Some(details.parameter_size.clone())),
    );
    fact("context length", length("context_length"));
    fact("embedding length", length("embedding_length"));
    fact("quantization", Some(details.quantization_level.clone()));
    fact("requires", Some(model.requires.clone()));
    table
}

fn projector(info: &Object) -> Table {
    let mut table = rows();
    let arch = info.get("general.architecture").and_then(Value::as_str);
    let Some(arch) = arch else { return table };
    table.row(["architecture".to_owned(), arch.to_owned()]);
    let count = info.get("general.parameter_count").and_then(Value::as_u64);
    if let Some(count) = count {
        table.row(["parameters".to_owned(), human_number(count)]);
    }
    for (name, key) in [
        ("embedding length", "vision.embedding_length"),
        ("dimensions", "vision.projection_dim"),
    ] {
        if let Some(value) = info.get(&format!("{arch}.{key}")) {
            table.row([name.to_owned(), scalar(value)]);
        }
    }
    table
}

fn lines(names: &[String]) -> Table {
    let mut table = rows();
    for name in names {
        table.row([name.clone()]);
    }
    table
}

/// The reply's parameters, one `name value` a line.
fn parameters(text: &str) -> Table {
    let mut table = rows();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let (name, value) = line
            .trim()
            .split_once(char::is_whitespace)
            .unwrap_or((line, ""));
        table.row([name.to_owned(), value.trim_start().to_owned()]);
    }
    table
}

fn metadata(info: &Object) -> Table {
    let mut keys: Vec<&String> = info.keys().collect();
    keys.sort();
    let mut table = rows();
    for key in keys {
        match &info[key] {
            Value::Null => {}
            Value::Array(items) => table.row([key.clone(), array(items)]),
            value => table.row([key.clone(), scalar(value)]),
        }
    }
    table
}

/// The first items of an array, about ten columns of them, and how many more there are.
fn array(items: &[Value]) -> String {
    const WIDTH: usize = 10;
    let items: Vec<_> = items.iter().map(scalar).collect();
    let mut used = 1;
    let mut shown = 0;
    for item in &items {
        used += item.width() + if shown > 0 { 2 } else { 0 };
        if used > WIDTH && shown > 0 {
            break;
        }
        shown += 1;
    }
    let text = items[..shown].join(" ");
    match items.len() - shown {
        0 => format!("[{text}]"),
        more => format!("[{text} ...+{more} more]"),
    }
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.as_i64().is_none() && number.as_u64().is_none() => {
            number.as_f64().map_or_else(|| number.to_string(), float)
        }
        other => other.to_string(),
    }
}

/// The shortest text that reads back; very small numbers with an exponent of two digits, as Go writes them.
fn float(number: f64) -> String {
    if number == 0.0 || number.abs() >= 1e-4 {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once("e-") {
        Some((mantissa, exponent)) => format!("{mantissa}e-{exponent:0>2}"),
        None => text,
    }
}

fn tensors(model: &ShowReply) -> Table {
    let mut table = rows();
    for tensor in &model.tensors {
        let shape: Vec<_> = tensor.shape.iter().map(u64::to_string).collect();
        table.row([
            tensor.name.clone(),
            tensor.kind.clone(),
            format!("[{}]", shape.join(" ")),
        ]);
    }
    table
}

/// The first two lines that are not blank.
fn head(text: &str) -> Table {
    let mut table = rows();
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    for line in lines.by_ref().take(2) {
        table.row([line.to_owned()]);
    }
    if lines.next().is_some() {
        table.row(["...".to_owned()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json};

    fn model() -> ShowReply {
        from_value(json!({
            "parameters": "num_predict                    3\nstop                           \"<|im start|>\"",
            "system": "one\n\n two \nthree",
            "details": {"family": "llama", "parameter_size": "134.52M", "quantization_level": "Q4_1"},
            "model_info": {
                "general.architecture": "llama", "general.parameter_count": 134515008, "llama.context_length": 8192,
                "llama.embedding_length": 576, "general.languages": ["en"], "tokenizer.ggml.add_bos_token": false,
                "tokenizer.ggml.token_type": [3, 3, 3, 3, 3], "tokenizer.ggml.tokens": ["<|endoftext|>", "b"],
                "tokenizer.ggml.merges": null
            },
            "tensors": [{"name": "token_embd.weight", "type": "Q8_0", "shape": [576, 49152]}],
            "capabilities": ["completion"]
        }))
        .unwrap()
    }

    #[test]
    fn summary_has_blocks() {
        let expected = "  Model\n    architecture        llama      \n    parameters          134.52M    \n    context length      8192       \n    embedding length    576        \n    quantization        Q4_1       \n\n  Capabilities\n    completion    \n\n  Parameters\n    num_predict    3                 \n    stop           \"<|im start|>\"    \n\n  System\n    one    \n    two    \n    ...    \n\n";
        assert_eq!(summary(&model(), false), expected);
    }

    #[test]
    fn verbose_adds_metadata_and_tensors() {
        let text = summary(&model(), true);
        for line in [
            "    general.languages               [en]                          \n",
            "    general.parameter_count         134515008                     \n",
            "    tokenizer.ggml.add_bos_token    false                         \n",
            "    tokenizer.ggml.token_type       [3 3 3 ...+2 more]            \n",
            "    tokenizer.ggml.tokens           [<|endoftext|> ...+1 more]    \n",
            "  Tensors\n    token_embd.weight    Q8_0    [576 49152]    \n",
        ] {
            assert!(text.contains(line), "{line:?} not in\n{text}");
        }
        assert!(!text.contains("merges"));
    }

    #[test]
    fn numbers_are_short() {
        for (number, text) in [
            ("9.99e-06", "9.99e-06"),
            ("0.00001", "1e-05"),
            ("100000.0", "100000"),
            ("0.25", "0.25"),
            ("18446744073709551615", "18446744073709551615"),
            ("0.0", "0"),
        ] {
            let value: Value = serde_json::from_str(number).unwrap();
            assert_eq!(scalar(&value), text);
        }
    }

    #[test]
    fn sections_end_as_recorded() {
        let model = ShowReply {
            template: "t\n".into(),
            ..model()
        };
        assert_eq!(Section::License.text(&model), "\n");
        assert_eq!(Section::Template.text(&model), "t\n");
        assert_eq!(Section::System.text(&model), "one\n\n two \nthree");
    }
}
