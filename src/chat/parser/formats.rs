//! The formats of tool calls that models are trained on.

use super::{
    Tool,
    bodies::{self, Call},
};

/// One way to write tool calls.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// What a Jinja template of this format contains.
    pub mark: &'static str,
    /// The text before the calls.
    pub open: &'static str,
    /// The text after them; empty where calls last to the end of the answer.
    pub close: &'static str,
    /// Special tokens inside the calls.
    pub inner: &'static [&'static str],
    /// The calls of a complete body.
    pub read: fn(&str, &[Tool]) -> Option<Vec<Call>>,
}

/// The formats, most telling mark first.
pub const FORMATS: [Format; 17] = [
    // Seed OSS: <function=f><parameter=city>Paris</parameter></function>
    Format {
        mark: "<seed:tool_call>",
        open: "<seed:tool_call>",
        close: "</seed:tool_call>",
        inner: &[],
        read: bodies::xml_functions,
    },
    // MiniMax M2: <invoke name="f"><parameter name="city">Paris</parameter></invoke>
    Format {
        mark: "<minimax:tool_call>",
        open: "<minimax:tool_call>",
        close: "</minimax:tool_call>",
        inner: &[],
        read: bodies::invocations,
    },
    // Kimi K2: <|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"city": "Paris"}<|tool_call_end|>
    Format {
        mark: "<|tool_calls_section_begin|>",
        open: "<|tool_calls_section_begin|>",
        close: "<|tool_calls_section_end|>",
        inner: &[
            "<|tool_call_begin|>",
            "<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ],
        read: bodies::kimi_calls,
    },
    // Gemma 4: call:f{city:<|"|>Paris<|"|>}
    Format {
        mark: "<|tool_call>call:",
        open: "<|tool_call>",
        close: "<tool_call|>",
        inner: &["<|\"|>"],
        read: bodies::quoted_calls,
    },
    // Qwen3-Coder, Qwen3.5, Nemotron 3: <function=f><parameter=city>Paris</parameter></function>
    Format {
        mark: "<function=",
        open: "<tool_call>",
        close: "</tool_call>",
        inner: &[],
        read: bodies::xml_functions,
    },
    // GLM 4.5 and later: f<arg_key>city</arg_key><arg_value>Paris</arg_value>
    Format {
        mark: "<arg_key>",
        open: "<tool_call>",
        close: "</tool_call>",
        inner: &["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
        read: bodies::key_value_pairs,
    },
    // Qwen 2.5 and 3, Hermes, SmolLM3: {"name": "f", "arguments": {"city": "Paris"}}
    Format {
        mark: "<tool_call>",
        open: "<tool_call>",
        close: "</tool_call>",
        inner: &[],
        read: bodies::json_calls,
    },
    // Mistral: [{"name": "f", "arguments": {}}], or f[ARGS]{"city": "Paris"}
    Format {
        mark: "[TOOL_CALLS]",
        open: "[TOOL_CALLS]",
        close: "",
        inner: &["[ARGS]", "[CALL_ID]"],
        read: bodies::mistral_calls,
    },
    // DeepSeek: <｜tool▁call▁begin｜>f<｜tool▁sep｜>{"city": "Paris"}<｜tool▁call▁end｜>
    Format {
        mark: "<｜tool▁calls▁begin｜>",
        open: "<｜tool▁calls▁begin｜>",
        close: "<｜tool▁calls▁end｜>",
        inner: &[
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
        ],
        read: bodies::deepseek_calls,
    },
    // LFM2: [f(city="Paris", days=2)]
    Format {
        mark: "<|tool_call_start|>",
        ..LFM2
    },
    // The same in a template that leaves calls in the text.
    LFM2,
    // OLMo 3: f(city="Paris"), one a line
    Format {
        mark: "<function_calls>",
        open: "<function_calls>",
        close: "</function_calls>",
        inner: &[],
        read: bodies::python_calls,
    },
    // FunctionGemma: call:f{city:<escape>Paris<escape>}
    Format {
        mark: "<start_function_call>",
        open: "<start_function_call>",
        close: "<end_function_call>",
        inner: &["<escape>"],
        read: bodies::escaped_calls,
    },
    // Command R7B and A: [{"tool_call_id": "0", "tool_name": "f", "parameters": {}}]
    Format {
        mark: "<|START_ACTION|>",
        open: "<|START_ACTION|>",
        close: "<|END_ACTION|>",
        inner: &[],
        read: bodies::json_calls,
    },
    // Phi-4-mini: [{"name": "f", "arguments": {}}]
    Format {
        mark: "<|/tool_call|>",
        open: "<|tool_call|>",
        close: "<|/tool_call|>",
        inner: &[],
        read: bodies::json_calls,
    },
    // Granite 3: the same without an end
    Format {
        mark: "<|tool_call|>",
        open: "<|tool_call|>",
        close: "",
        inner: &[],
        read: bodies::json_calls,
    },
    // Nemotron Nano 2: [{"name": "f", "arguments": {}}]
    Format {
        mark: "<TOOLCALL>",
        open: "<TOOLCALL>",
        close: "</TOOLCALL>",
        inner: &[],
        read: bodies::json_calls,
    },
];

const LFM2: Format = Format {
    mark: "<|tool_list_start|>",
    open: "<|tool_call_start|>",
    close: "<|tool_call_end|>",
    inner: &[],
    read: bodies::python_calls,
};
