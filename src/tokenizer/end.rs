//! Which tokens end a generation, by llama.cpp's rules: ids the file names, and well-known texts.

use std::collections::BTreeSet;

use super::vocab::{Kind, Vocab};
use crate::gguf::Gguf;

/// Texts that end an answer wherever they occur in a vocabulary.
const END_TEXTS: &[&str] = &[
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<|calls|>",
    "<|flush|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "</s>",
    "<|eom_id|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
    "<|end_of_text|>",
    "<end_of_utterance>",
    "<eos>",
    "<turn|>",
    "<|tool_response>",
    "<｜end▁of▁sentence｜>",
    "[e~[",
];

/// Ids that end an answer besides the end-of-sequence token, as Ollama's converter writes them.
const ENDS: &str = "tokenizer.ggml.eos_token_ids";

/// A role of a token: the keys that may name it and, where they do not, the texts it is known by.
struct Role {
    keys: &'static [&'static str],
    texts: &'static [&'static str],
    ends: bool,
}

const ROLES: &[Role] = &[
    Role {
        keys: &["tokenizer.ggml.eot_token_id"],
        texts: &[],
        ends: true,
    },
    Role {
        keys: &["tokenizer.ggml.eom_token_id"],
        texts: &[],
        ends: true,
    },
    Role {
        keys: &[
            "tokenizer.ggml.fim_pre_token_id",
            "tokenizer.ggml.prefix_token_id",
        ],
        texts: &[
            "<|fim_prefix|>",
            "<fim-prefix>",
            "<fim_prefix>",
            "<｜fim▁begin｜>",
            "<PRE>",
            "▁<PRE>",
            "<|code_prefix|>",
            "<|prefix|>",
        ],
        ends: false,
    },
    Role {
        keys: &[
            "tokenizer.ggml.fim_suf_token_id",
            "tokenizer.ggml.suffix_token_id",
        ],
        texts: &[
            "<|fim_suffix|>",
            "<fim-suffix>",
            "<fim_suffix>",
            "<｜fim▁hole｜>",
            "<SUF>",
            "▁<SUF>",
            "<|code_suffix|>",
            "<|suffix|>",
        ],
        ends: false,
    },
    Role {
        keys: &[
            "tokenizer.ggml.fim_mid_token_id",
            "tokenizer.ggml.middle_token_id",
        ],
        texts: &[
            "<|fim_middle|>",
            "<fim-middle>",
            "<fim_middle>",
            "<｜fim▁end｜>",
            "<MID>",
            "▁<MID>",
            "<|code_middle|>",
            "<|middle|>",
        ],
        ends: false,
    },
    Role {
        keys: &["tokenizer.ggml.fim_pad_token_id"],
        texts: &["<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"],
        ends: true,
    },
    Role {
        keys: &["tokenizer.ggml.fim_rep_token_id"],
        texts: &[
            "<|fim_repo|>",
            "<|repo_name|>",
            "<fim-repo>",
            "<REPO>",
            "<reponame>",
        ],
        ends: true,
    },
    Role {
        keys: &["tokenizer.ggml.fim_sep_token_id"],
        texts: &["<|file_sep|>"],
        ends: true,
    },
];

/// gpt-oss's channel markup, which a client must see although the file types it as control.
const VISIBLE: &[&str] = &["<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"];

/// The tokens that end a generation. Entries that are known as markup by their text become control
/// tokens, whatever type the file gives them.
pub(super) fn tokens(gguf: &Gguf, vocab: &mut Vocab, eos: Option<u32>) -> BTreeSet<u32> {
    let mut ends: BTreeSet<u32> = eos.into_iter().collect();
    let named = gguf.u32s(ENDS).unwrap_or_default();
    ends.extend(named.into_iter().filter(|&id| (id as usize) < vocab.len()));
    for role in ROLES {
        let id = role_token(gguf, vocab, role);
        ends.extend(id.filter(|_| role.ends));
    }
    for text in END_TEXTS {
        if let Some(id) = vocab.find(text.as_bytes()) {
            vocab.set_kind(id, Kind::Control);
            ends.insert(id);
        }
    }
    for text in VISIBLE {
        if let Some(id) = vocab.find(text.as_bytes()) {
            vocab.set_kind(id, Kind::UserDefined);
        }
    }
    except_inner_ends(vocab, &mut ends);
    ends
}

fn role_token(gguf: &Gguf, vocab: &mut Vocab, role: &Role) -> Option<u32> {
    let named = role
        .keys
        .iter()
        .find_map(|key| vocab.named(gguf, key, None));
    named.or_else(|| {
        let id = role.texts.iter().find_map(|t| vocab.find(t.as_bytes()))?;
        vocab.set_kind(id, Kind::Control);
        Some(id)
    })
}

/// Where a vocabulary has a stronger end, a text that ends answers elsewhere is only an inner mark:
/// `<|end|>` closes a channel of gpt-oss, `</s>` is plain text to gemma 4.
fn except_inner_ends(vocab: &mut Vocab, ends: &mut BTreeSet<u32>) {
    let find = |text: &str| vocab.find(text.as_bytes()).filter(|id| ends.contains(id));
    let call = find("<|call|>").or_else(|| find("<|calls|>"));
    let outer = find("<|return|>").or_else(|| find("<|flush|>"));
    let end = find("<|end|>").filter(|_| call.is_some() && outer.is_some());
    let closing = find("</s>").filter(|_| find("<|tool_response>").is_some());
    for (id, kind) in [(end, Kind::UserDefined), (closing, Kind::Normal)] {
        if let Some(id) = id {
            ends.remove(&id);
            vocab.set_kind(id, kind);
        }
    }
}
