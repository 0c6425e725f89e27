//! Templates that come with the server, for models whose own chat template is one of twenty known ones. Names and stop
//! strings are Ollama's; the texts are ours, after the formats that the models were published with.

mod recognise;
#[cfg(test)]
mod tests;

pub use recognise::recognise;

/// A Go template and the stop strings that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    pub name: &'static str,
    pub template: &'static str,
    pub stop: &'static [&'static str],
}

macro_rules! shipped {
    ($name:literal, $stop:expr) => {
        shipped!($name, $name, $stop)
    };
    ($name:literal, $file:literal, $stop:expr) => {
        Shipped {
            name: $name,
            template: include_str!(concat!("../../../assets/templates/", $file, ".gotmpl")),
            stop: &$stop,
        }
    };
}

const CHATML: Shipped = shipped!("chatml", ["<|im_start|>", "<|im_end|>"]);
/// Those of ChatML, as in Ollama.
const MISTRAL_STOP: [&str; 2] = ["<|im_start|>", "<|im_end|>"];
const SOLAR_STOP: [&str; 3] = ["### System:", "### User:", "### Assistant"];

/// All of them; a name with several wordings has a row each.
pub const SHIPPED: [Shipped; 23] = [
    shipped!(
        "alfred",
        [
            "<start_system>",
            "<end_message>",
            "<start_user>",
            "<start_assistant>"
        ]
    ),
    shipped!("alpaca", ["### Instruction:", "### Response"]),
    CHATML,
    shipped!(
        "chatqa",
        ["System:", "User:", "Assistant:", "<|begin_of_text|>"]
    ),
    shipped!(
        "codellama-70b-instruct",
        ["Source:", "Destination:", "<step>"]
    ),
    shipped!(
        "command-r",
        ["<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"]
    ),
    // `Assistant:` although the template writes `Falcon:`, as in Ollama.
    shipped!("falcon-instruct", ["User:", "Assistant:"]),
    shipped!("gemma-instruct", ["<start_of_turn>", "<end_of_turn>"]),
    shipped!("gemma3-instruct", ["<end_of_turn>"]),
    shipped!("granite-instruct", ["System:", "Question:", "Answer:"]),
    shipped!("llama2-chat", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"]),
    shipped!(
        "llama3-instruct",
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    ),
    shipped!("magicoder", ["@@ Instruction", "@@ Response"]),
    shipped!("mistral-instruct", MISTRAL_STOP),
    shipped!("mistral-instruct", "mistral-instruct.v0.1", MISTRAL_STOP),
    shipped!("mistral-instruct", "mistral-instruct.v0.2", MISTRAL_STOP),
    shipped!("openchat", ["<|end_of_turn|>"]),
    shipped!(
        "phi-3",
        ["<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
    ),
    shipped!("solar-instruct", SOLAR_STOP),
    shipped!("solar-instruct", "solar-instruct.v1", SOLAR_STOP),
    shipped!(
        "starcoder2-instruct",
        ["### Instruction", "### Response", "<|endoftext|>"]
    ),
    shipped!("vicuna", ["USER:", "ASSISTANT:"]),
    shipped!(
        "zephyr",
        ["<|system|>", "</s>", "<|user|>", "<|assistant|>"]
    ),
];

/// The ChatML template: what a chat uses when a model brings no template at all.
pub fn chatml() -> Shipped {
    CHATML
}
