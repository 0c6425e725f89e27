//! Templates that come with the server, for models whose chat template is a known one.

/// A Go template and the stop strings that belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shipped {
    pub name: &'static str,
    pub template: &'static str,
    pub stop: &'static [&'static str],
}

const CHATML: Shipped = Shipped {
    name: "chatml",
    template: include_str!("../../assets/templates/chatml.gotmpl"),
    stop: &["<|im_start|>", "<|im_end|>"],
};

/// The ChatML template: what a chat uses when a model brings no template at all.
pub fn chatml() -> Shipped {
    CHATML
}
