//! How one call is written, by format.

use super::Body;
use super::members::{Style, Texts};
use std::borrow::Cow;

/// Where a JSON call keeps its parts.
pub const fn json(open: &'static str, middle: &'static str, close: &'static str) -> Body {
    Body::Json {
        open: Cow::Borrowed(open),
        middle: Cow::Borrowed(middle),
        close: Cow::Borrowed(close),
    }
}

/// `{"name": "f", "arguments": {...}}`.
pub const NAMED: Body = json("{\"name\": \"", "\", \"arguments\": ", "}");

pub const PYTHON: Body = Body::Members {
    open: Cow::Borrowed(""),
    middle: Cow::Borrowed("("),
    style: Style {
        open: Cow::Borrowed(""),
        middle: Cow::Borrowed("="),
        close: Cow::Borrowed(""),
        between: Cow::Borrowed(", "),
        texts: Texts::Json,
    },
    close: Cow::Borrowed(")"),
};

/// Qwen3-Coder's.
pub const XML: Body = Body::Members {
    open: Cow::Borrowed("<function="),
    middle: Cow::Borrowed(">\n"),
    style: Style {
        open: Cow::Borrowed("<parameter="),
        middle: Cow::Borrowed(">\n"),
        close: Cow::Borrowed("\n</parameter>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed("</function>"),
};

/// GLM's.
pub const PAIRS: Body = Body::Members {
    open: Cow::Borrowed(""),
    middle: Cow::Borrowed("\n"),
    style: Style {
        open: Cow::Borrowed("<arg_key>"),
        middle: Cow::Borrowed("</arg_key>\n<arg_value>"),
        close: Cow::Borrowed("</arg_value>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed(""),
};

/// FunctionGemma's.
pub const ESCAPED: Body = braced("<escape>");

/// Gemma 4's.
pub const QUOTED: Body = braced("<|\"|>");

/// `call:NAME{key:value,key:value}`, with texts between marks.
const fn braced(mark: &'static str) -> Body {
    Body::Members {
        open: Cow::Borrowed("call:"),
        middle: Cow::Borrowed("{"),
        style: Style {
            open: Cow::Borrowed(""),
            middle: Cow::Borrowed(":"),
            close: Cow::Borrowed(""),
            between: Cow::Borrowed(","),
            texts: Texts::Between(Cow::Borrowed(mark)),
        },
        close: Cow::Borrowed("}"),
    }
}

/// MiniMax's.
pub const INVOCATION: Body = Body::Members {
    open: Cow::Borrowed("<invoke name=\""),
    middle: Cow::Borrowed("\">\n"),
    style: Style {
        open: Cow::Borrowed("<parameter name=\""),
        middle: Cow::Borrowed("\">"),
        close: Cow::Borrowed("</parameter>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed("</invoke>\n"),
};

/// DeepSeek's since V3.2.
pub const DSML: Body = Body::Members {
    open: Cow::Borrowed("<｜DSML｜invoke name=\""),
    middle: Cow::Borrowed("\">\n"),
    style: Style {
        open: Cow::Borrowed("<｜DSML｜parameter name=\""),
        middle: Cow::Borrowed("\" string=\"false\">"),
        close: Cow::Borrowed("</｜DSML｜parameter>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::BareAfter(Cow::Borrowed("\" string=\"true\">")),
    },
    close: Cow::Borrowed("</｜DSML｜invoke>\n"),
};

/// Glimmer's.
pub const ATEM: Body = Body::Members {
    open: Cow::Borrowed(""),
    middle: Cow::Borrowed("<|message|><atem:function_calls>\n<atem:invoke name=\"\u{2}\">\n"),
    style: Style {
        open: Cow::Borrowed("<atem:parameter name=\""),
        middle: Cow::Borrowed("\">"),
        close: Cow::Borrowed("</atem:parameter>\n"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed("</atem:invoke>\n</atem:function_calls>"),
};

/// MiniCPM's.
pub const PARAMS: Body = Body::Members {
    open: Cow::Borrowed(""),
    middle: Cow::Borrowed("\">"),
    style: Style {
        open: Cow::Borrowed("<param name=\""),
        middle: Cow::Borrowed("\">"),
        close: Cow::Borrowed("</param>"),
        between: Cow::Borrowed(""),
        texts: Texts::Bare,
    },
    close: Cow::Borrowed(""),
};
