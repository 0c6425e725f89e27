//! The renderers and parsers that a model's config may name. Prompts are rendered by the GGUF's own template, which says
//! the same as the renderer; a parser is one of our formats, told by the marks that its models' templates have.

/// A parser by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Named {
    pub name: &'static str,
    /// What a template of its models contains: the tags around reasoning and the mark of its calls.
    pub marks: &'static str,
    /// Whether its models are said to reason.
    pub thinks: bool,
    /// Whether its models are said to call tools.
    pub calls: bool,
}

const fn plain(name: &'static str, marks: &'static str) -> Named {
    Named {
        name,
        marks,
        thinks: false,
        calls: true,
    }
}

const fn thinking(name: &'static str, marks: &'static str) -> Named {
    Named {
        thinks: true,
        ..plain(name, marks)
    }
}

pub const NAMED: [Named; 27] = [
    thinking("qwen3", "<think></think><tool_call>"),
    thinking("qwen3-thinking", "<think></think><tool_call>"),
    thinking("qwen3.5", "<think></think><function="),
    thinking("ornith", "<think></think><function="),
    plain("qwen3-coder", "<function="),
    plain("qwen3-vl-instruct", "<tool_call>"),
    thinking("qwen3-vl-thinking", "<think></think><tool_call>"),
    plain("ministral", "[THINK][/THINK][TOOL_CALLS][ARGS]"),
    Named {
        calls: false,
        ..plain("passthrough", "")
    },
    thinking("harmony", "<|start|><|channel|><|message|>"),
    thinking("cogito", "<think></think><｜tool▁calls▁begin｜>```json"),
    thinking("deepseek3", "<think></think><｜tool▁calls▁begin｜>"),
    plain("olmo3", "<function_calls>"),
    Named {
        calls: false,
        ..thinking("olmo3-think", "<think></think>")
    },
    thinking("nemotron-3-nano", "<think></think><function="),
    thinking("nemotron-3.5-nano", "<think></think><function="),
    plain("functiongemma", "<start_function_call>"),
    thinking("glm-4.7", "<think></think><arg_key>"),
    thinking("glm-ocr", "<think></think><arg_key>"),
    thinking("gemma4", "<|channel>thought<channel|><|tool_call>call:"),
    plain(
        "gemma4-no-thinking",
        "<|channel>thought<channel|><|tool_call>call:",
    ),
    plain("lfm2", "<|tool_call_start|>"),
    thinking("lfm2-thinking", "<think></think><|tool_call_start|>"),
    thinking("laguna", "<think></think><arg_key>"),
    thinking("poolside-v1", "<think></think><arg_key>"),
    thinking(
        "cohere",
        "<|START_THINKING|><|END_THINKING|><|START_ACTION|>",
    ),
    thinking("glimmer", "<|start|><|message|><atem:function_calls>"),
];

const RENDERERS: [&str; 26] = [
    "qwen3-coder",
    "qwen3-vl-instruct",
    "qwen3-vl-thinking",
    "qwen3.5",
    "qwen3.8",
    "ornith",
    "cogito",
    "deepseek3.1",
    "olmo3",
    "olmo3.1",
    "olmo3-think",
    "olmo3-32b-think",
    "nemotron-3-nano",
    "nemotron-3.5-nano",
    "gemma4",
    "gemma4-small",
    "gemma4-large",
    "functiongemma",
    "glm-4.7",
    "glm-ocr",
    "lfm2",
    "lfm2-thinking",
    "laguna",
    "poolside-v1",
    "cohere",
    "glimmer",
];

/// What models of an architecture are given when they are made, where nothing else is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FamilyNames {
    pub renderer: &'static str,
    pub parser: &'static str,
    /// A stop string; none where it is empty.
    pub stop: &'static str,
}

/// Those of an architecture, as Ollama has them.
pub fn family_names(architecture: &str) -> Option<FamilyNames> {
    let (renderer, stop) = match architecture {
        "gemma4" => ("gemma4", "<turn|>"),
        "laguna" => ("laguna", ""),
        "nemotron_h" | "nemotron_h_moe" | "nemotron_h_omni" => ("nemotron-3-nano", ""),
        _ => return None,
    };
    Some(FamilyNames {
        renderer,
        parser: renderer,
        stop,
    })
}

/// The parser of this name, if there is one.
pub fn named(name: &str) -> Option<&'static Named> {
    NAMED.iter().find(|known| known.name == name)
}

/// Whether Ollama has a renderer of this name.
pub fn is_renderer(name: &str) -> bool {
    RENDERERS.contains(&name)
}
