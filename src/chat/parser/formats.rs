//! The formats of tool calls that models are trained on.

use super::{
    Tool,
    bodies::{self, Call},
    notations,
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

impl Format {
    /// Texts of it that may be special tokens.
    pub fn tokens(&self) -> Vec<&'static str> {
        [&[self.open, self.close], self.inner].concat()
    }
}

/// The formats, most telling mark first.
pub const FORMATS: [Format; 29] = [
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
        read: notations::quoted_calls,
    },
    // Functionary 3.1, Llama 3.1's custom tools: <function=f>{"city": "Paris"}</function>
    Format {
        mark: "<function=example_function_name>{",
        open: "<function=",
        close: "</function>",
        inner: &[],
        read: bodies::named_object,
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
    // Apriel, Hunyuan: [{"name": "f", "arguments": {}}]; MiniMax M1: such objects, one a line
    Format {
        mark: "<tool_calls>",
        open: "<tool_calls>",
        close: "</tool_calls>",
        inner: &[],
        read: bodies::json_calls,
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
        read: notations::python_calls,
    },
    // FunctionGemma: call:f{city:<escape>Paris<escape>}
    Format {
        mark: "<start_function_call>",
        open: "<start_function_call>",
        close: "<end_function_call>",
        inner: &["<escape>"],
        read: notations::escaped_calls,
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
    // DeepSeek V3.2: <｜DSML｜invoke name="f"><｜DSML｜parameter name="city" string="true">Paris</｜DSML｜parameter>
    // </｜DSML｜invoke>; its template keeps the token in a variable.
    Format {
        mark: "'function_calls>",
        open: "<｜DSML｜function_calls>",
        close: "</｜DSML｜function_calls>",
        inner: &["｜DSML｜"],
        read: bodies::dsml_invocations,
    },
    // DeepSeek V4: the same in another block.
    Format {
        mark: "'tool_calls>",
        open: "<｜DSML｜tool_calls>",
        close: "</｜DSML｜tool_calls>",
        inner: &["｜DSML｜"],
        read: bodies::dsml_invocations,
    },
    // MiniCPM 5: <function name="f"><param name="city">Paris</param></function>
    Format {
        mark: "<function name=\"",
        open: "<function name=\"",
        close: "</function>",
        inner: &[],
        read: bodies::param_function,
    },
    // Solar Open: <|tool_call:begin|>id<|tool_call:name|>f<|tool_call:args|>{"city": "Paris"}<|tool_call:end|>
    Format {
        mark: "<|tool_call:begin|>",
        open: "<|tool_calls|>",
        close: "<|calls|>",
        inner: &[
            "<|tool_call:begin|>",
            "<|tool_call:name|>",
            "<|tool_call:args|>",
            "<|tool_call:end|>",
        ],
        read: bodies::solar_calls,
    },
    // Apertus: [{"f": {"city": "Paris"}}]
    Format {
        mark: "<|tools_prefix|>",
        open: "<|tools_prefix|>",
        close: "<|tools_suffix|>",
        inner: &[],
        read: bodies::keyed_calls,
    },
    // GigaChat 3: {"name": "f", "arguments": {}}, in a message of its own
    Format {
        mark: "'role': 'function call'",
        open: "<|message_sep|>\n\nfunction call<|role_sep|>\n",
        close: "<|message_sep|>",
        inner: &["<|role_sep|>"],
        read: bodies::json_calls,
    },
    // GigaChat 3.1: {"name": "f", "arguments": {}}
    Format {
        mark: "<|function_call|>",
        open: "<|function_call|>",
        close: "",
        inner: &[],
        read: bodies::json_calls,
    },
    // Command R and R+: a fenced [{"tool_name": "f", "parameters": {}}]
    Format {
        mark: "followed by a json-formatted list of actions",
        open: "Action:",
        close: "",
        inner: &[],
        read: bodies::fenced_calls,
    },
    // Firefunction, Phi 4's examples: functools[{"name": "f", "arguments": {}}]
    Format {
        mark: "functools[",
        open: "functools[",
        close: "",
        inner: &[],
        read: bodies::open_list,
    },
    // LFM2.5, whose template has no tag at all.
    Format {
        mark: "List of tools: [",
        ..LFM2
    },
];

const LFM2: Format = Format {
    mark: "<|tool_list_start|>",
    open: "<|tool_call_start|>",
    close: "<|tool_call_end|>",
    inner: &[],
    read: notations::python_calls,
};
