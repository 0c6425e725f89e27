//! The written forms of the formats that the parser reads.

use super::Body;
use super::bodies::{DSML, ESCAPED, INVOCATION, NAMED, PAIRS, PARAMS, PYTHON, QUOTED, XML, json};
use crate::chat::parser::Format;

/// What stands before, between and after calls.
pub type Frame = (&'static str, Option<&'static str>, &'static str);

/// How calls of some of the parser's formats are written.
pub struct Form {
    /// Of the formats; see [`Format::mark`].
    marks: &'static [&'static str],
    /// What a template of this form contains besides.
    also: &'static str,
    pub frame: Frame,
    pub call: Body,
}

/// The form of a format in a template that has this text.
pub fn form_of(format: &Format, text: &str) -> &'static Form {
    let is_its = |form: &&Form| form.marks.contains(&format.mark) && text.contains(form.also);
    let found = FORMS.iter().find(is_its);
    found.expect("a test finds one for each format")
}

/// Of several forms of a format, the one that needs more of the template comes first.
static FORMS: [Form; 30] = [
    Form {
        marks: &["<function=example_function_name>{"],
        also: "",
        frame: ("<function=", Some("</function><function="), "</function>"),
        call: json("", ">", ""),
    },
    Form {
        marks: &["<function="],
        also: "",
        frame: (
            "<tool_call>\n",
            Some("\n</tool_call>\n<tool_call>\n"),
            "\n</tool_call>",
        ),
        call: XML,
    },
    Form {
        marks: &["<arg_key>"],
        also: "",
        frame: (
            "<tool_call>",
            Some("</tool_call>\n<tool_call>"),
            "</tool_call>",
        ),
        call: PAIRS,
    },
    Form {
        marks: &["<tool_call>"],
        also: "",
        frame: (
            "<tool_call>\n",
            Some("\n</tool_call>\n<tool_call>\n"),
            "\n</tool_call>",
        ),
        call: NAMED,
    },
    Form {
        marks: &["[TOOL_CALLS]"],
        also: "[ARGS]",
        frame: ("[TOOL_CALLS]", Some("[TOOL_CALLS]"), ""),
        call: json("", "[ARGS]", ""),
    },
    Form {
        marks: &["[TOOL_CALLS]"],
        also: "",
        frame: ("[TOOL_CALLS][", Some(", "), "]"),
        call: NAMED,
    },
    Form {
        marks: &["<｜tool▁calls▁begin｜>"],
        also: "```json",
        frame: ("<｜tool▁calls▁begin｜>", Some("\n"), "<｜tool▁calls▁end｜>"),
        call: json(
            "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
            "\n```json\n",
            "\n```<｜tool▁call▁end｜>",
        ),
    },
    Form {
        marks: &["<｜tool▁calls▁begin｜>"],
        also: "",
        frame: ("<｜tool▁calls▁begin｜>", Some(""), "<｜tool▁calls▁end｜>"),
        call: json(
            "<｜tool▁call▁begin｜>",
            "<｜tool▁sep｜>",
            "<｜tool▁call▁end｜>",
        ),
    },
    Form {
        marks: &[
            "<|tool_call_start|>",
            "<|tool_list_start|>",
            "List of tools: [",
        ],
        also: "",
        frame: ("<|tool_call_start|>[", Some(", "), "]<|tool_call_end|>"),
        call: PYTHON,
    },
    Form {
        marks: &["<function_calls>"],
        also: "",
        frame: ("<function_calls>", Some("\n"), "</function_calls>"),
        call: PYTHON,
    },
    Form {
        marks: &["<start_function_call>"],
        also: "",
        frame: (
            "<start_function_call>",
            Some("<end_function_call><start_function_call>"),
            "<end_function_call>",
        ),
        call: ESCAPED,
    },
    Form {
        marks: &["<seed:tool_call>"],
        also: "",
        frame: (
            "<seed:tool_call>\n",
            Some("\n</seed:tool_call>\n<seed:tool_call>\n"),
            "\n</seed:tool_call>",
        ),
        call: XML,
    },
    Form {
        marks: &["<minimax:tool_call>"],
        also: "",
        frame: ("<minimax:tool_call>\n", Some(""), "</minimax:tool_call>"),
        call: INVOCATION,
    },
    // The index is that of the call, which nobody reads.
    Form {
        marks: &["<|tool_calls_section_begin|>"],
        also: "",
        frame: (
            "<|tool_calls_section_begin|>",
            Some(""),
            "<|tool_calls_section_end|>",
        ),
        call: json(
            "<|tool_call_begin|>functions.",
            ":0<|tool_call_argument_begin|>",
            "<|tool_call_end|>",
        ),
    },
    Form {
        marks: &["<|tool_call>call:"],
        also: "",
        frame: (
            "<|tool_call>",
            Some("<tool_call|><|tool_call>"),
            "<tool_call|>",
        ),
        call: QUOTED,
    },
    Form {
        marks: &["<|START_ACTION|>"],
        also: "",
        frame: ("<|START_ACTION|>[", Some(", "), "]<|END_ACTION|>"),
        call: json("{\"tool_name\": \"", "\", \"parameters\": ", "}"),
    },
    Form {
        marks: &["<|/tool_call|>"],
        also: "",
        frame: ("<|tool_call|>[", Some(", "), "]<|/tool_call|>"),
        call: NAMED,
    },
    Form {
        marks: &["<TOOLCALL>"],
        also: "",
        frame: ("<TOOLCALL>[", Some(", "), "]</TOOLCALL>"),
        call: NAMED,
    },
    Form {
        marks: &["'function_calls>"],
        also: "",
        frame: (
            "<｜DSML｜function_calls>\n",
            Some(""),
            "</｜DSML｜function_calls>",
        ),
        call: DSML,
    },
    Form {
        marks: &["'tool_calls>"],
        also: "",
        frame: ("<｜DSML｜tool_calls>\n", Some(""), "</｜DSML｜tool_calls>"),
        call: DSML,
    },
    Form {
        marks: &["<function name=\""],
        also: "",
        frame: (
            "<function name=\"",
            Some("</function><function name=\""),
            "</function>",
        ),
        call: PARAMS,
    },
    // The id is the server's to give.
    Form {
        marks: &["<|tool_call:begin|>"],
        also: "",
        frame: ("<|tool_calls|>", Some(""), "<|calls|>"),
        call: json(
            "<|tool_call:begin|>0<|tool_call:name|>",
            "<|tool_call:args|>",
            "<|tool_call:end|>",
        ),
    },
    Form {
        marks: &["<|tools_prefix|>"],
        also: "",
        frame: ("<|tools_prefix|>[", Some(", "), "]<|tools_suffix|>"),
        call: json("{\"", "\": ", "}"),
    },
    Form {
        marks: &["<tool_calls>"],
        also: "<tool_calls>[",
        frame: ("<tool_calls>[", Some(", "), "]</tool_calls>"),
        call: NAMED,
    },
    Form {
        marks: &["<tool_calls>"],
        also: "",
        frame: ("<tool_calls>\n", Some("\n"), "\n</tool_calls>"),
        call: NAMED,
    },
    Form {
        marks: &["'role': 'function call'"],
        also: "",
        frame: ("<|message_sep|>\n\nfunction call<|role_sep|>\n", None, ""),
        call: NAMED,
    },
    Form {
        marks: &["<|function_call|>"],
        also: "",
        frame: ("<|function_call|>", None, ""),
        call: NAMED,
    },
    Form {
        marks: &["followed by a json-formatted list of actions"],
        also: "",
        frame: ("Action:\n```json\n[", Some(","), "\n]```"),
        call: json(
            "\n    {\n        \"tool_name\": \"",
            "\",\n        \"parameters\": ",
            "\n    }",
        ),
    },
    Form {
        marks: &["functools["],
        also: "",
        frame: ("functools[", Some(", "), "]"),
        call: NAMED,
    },
    Form {
        marks: &["<|tool_call|>"],
        also: "",
        frame: ("<|tool_call|>[", Some(", "), "]"),
        call: NAMED,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::parser::FORMATS;

    #[test]
    fn every_format_has_a_form_and_every_form_a_format() {
        for format in &FORMATS {
            form_of(format, format.mark);
        }
        for mark in FORMS.iter().flat_map(|form| form.marks) {
            assert!(FORMATS.iter().any(|f| f.mark == *mark), "{mark}");
        }
    }
}
