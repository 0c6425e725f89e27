//! Tokens with a role, and the chat template: `tokenizer_config.json`, `generation_config.json` and their kin.

use super::super::checkpoint::Checkpoint;
use super::super::config::Config;
use super::super::limits::Few;
use super::super::{Error, bad};
use super::{Kind, Vocabulary};
use crate::gguf::Header;
use serde::Deserialize;

const CONFIG: &str = "tokenizer_config.json";
const MAP: &str = "special_tokens_map.json";
const GENERATION: &str = "generation_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const TEMPLATE_JSON: &str = "chat_template.json";
const MAX_BYTES: u64 = 64 << 20;
const MAX_TEMPLATE_BYTES: u64 = 1 << 20;

/// Roles as checkpoints call them, and as GGUF does.
const ROLES: [(&str, &str); 7] = [
    ("bos", "bos"),
    ("eos", "eos"),
    ("unk", "unknown"),
    ("sep", "seperator"),
    ("pad", "padding"),
    ("cls", "cls"),
    ("mask", "mask"),
];

/// A token by its text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Added { content: String },
}

#[derive(Deserialize, Default)]
struct Tokens {
    bos_token: Option<Token>,
    eos_token: Option<Token>,
    unk_token: Option<Token>,
    sep_token: Option<Token>,
    pad_token: Option<Token>,
    cls_token: Option<Token>,
    mask_token: Option<Token>,
    add_bos_token: Option<bool>,
    add_eos_token: Option<bool>,
    chat_template: Option<Template>,
}

impl Tokens {
    fn text(&self, role: &str) -> Option<&str> {
        let token = match role {
            "bos" => &self.bos_token,
            "eos" => &self.eos_token,
            "unk" => &self.unk_token,
            "sep" => &self.sep_token,
            "pad" => &self.pad_token,
            "cls" => &self.cls_token,
            _ => &self.mask_token,
        };
        token.as_ref().map(|token| match token {
            Token::Text(text) => text.as_str(),
            Token::Added { content } => content,
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Template {
    Text(String),
    Named(Few<NamedTemplate, 64>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

/// What is written behind the entries.
pub struct Special {
    /// Roles by GGUF's names.
    ids: Vec<(&'static str, u32)>,
    /// All tokens that end an answer, where there are several.
    ends: Vec<u32>,
    adds_bos: Option<bool>,
    adds_eos: Option<bool>,
    template: Option<String>,
}

impl Special {
    /// Finds the roles; tokens that have one are markup.
    pub fn read(
        checkpoint: &Checkpoint,
        config: &Config,
        vocabulary: &mut Vocabulary,
    ) -> Result<Special, Error> {
        let tokens: Tokens = checkpoint.json(CONFIG, MAX_BYTES)?.unwrap_or_default();
        let map: Tokens = checkpoint.json(MAP, MAX_BYTES)?.unwrap_or_default();
        let generation = Config::of(checkpoint, GENERATION)?;
        let is_words = vocabulary.model == "bert";
        let named_ids = |role: &str| -> Vec<u32> {
            let key = format!("{role}_token_id");
            let ids = generation
                .as_ref()
                .map(|generation| generation.token_ids(&key));
            ids.filter(|ids| !ids.is_empty())
                .unwrap_or_else(|| config.token_ids(&key))
        };
        let is_entry = |id: &u32| vocabulary.kind(*id).is_some();
        let mut ids = Vec::new();
        for (role, key) in ROLES {
            // What the tokenizer itself uses comes first.
            let own = match role {
                "bos" => vocabulary.first.as_deref(),
                "cls" if is_words => vocabulary.first.as_deref(),
                "eos" => vocabulary.last.as_deref(),
                "sep" if is_words => vocabulary.last.as_deref(),
                "unk" => vocabulary.unknown.as_deref(),
                _ => None,
            };
            let text = own.or_else(|| tokens.text(role)).or_else(|| map.text(role));
            let id = match text.and_then(|text| vocabulary.id(text)) {
                Some(id) => Some(id),
                None => named_ids(role).into_iter().find(is_entry),
            };
            ids.extend(id.map(|id| (key, id)));
        }
        let of = |key: &str| ids.iter().find(|(own, _)| *own == key).map(|(_, id)| *id);
        let mut ends: Vec<u32> = of("eos").into_iter().collect();
        let named = tokens.text("eos").and_then(|text| vocabulary.id(text));
        for id in named.into_iter().chain(named_ids("eos")).filter(is_entry) {
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
        // Both are always there in WordPiece; other files of SentencePiece begin texts with a token.
        let has_file = vocabulary.first.is_some() || checkpoint.has(super::file::NAME);
        let adds_bos = tokens
            .add_bos_token
            .unwrap_or(vocabulary.first.is_some() || !has_file);
        let adds_eos = tokens.add_eos_token.unwrap_or(vocabulary.last.is_some());
        for (adds, key, role) in [
            (adds_bos, "bos", "add_bos_token"),
            (adds_eos, "eos", "add_eos_token"),
        ] {
            if adds && of(key).is_none() {
                return Err(bad(
                    CONFIG,
                    format!("{role} is wanted, and no {key}_token is named"),
                ));
            }
        }
        for &(key, id) in &ids {
            if vocabulary.kind(id) != Some(Kind::Unknown) && key != "unknown" {
                vocabulary.set_kind(id, Kind::Control);
            }
        }
        Ok(Special {
            ids,
            ends,
            adds_bos: (!is_words).then_some(adds_bos),
            adds_eos: (!is_words).then_some(adds_eos),
            template: template(checkpoint, tokens.chat_template)?.filter(|_| !is_words),
        })
    }

    pub fn write(&self, header: &mut Header) {
        for (role, id) in &self.ids {
            header.u32(&format!("tokenizer.ggml.{role}_token_id"), *id);
        }
        if self.ends.len() > 1 {
            let ends: Vec<i32> = self.ends.iter().map(|&id| id as i32).collect();
            header.i32s("tokenizer.ggml.eos_token_ids", &ends);
        }
        for (key, value) in [
            ("tokenizer.ggml.add_bos_token", self.adds_bos),
            ("tokenizer.ggml.add_eos_token", self.adds_eos),
        ] {
            if let Some(value) = value {
                header.bool(key, value);
            }
        }
        if let Some(template) = &self.template {
            header.string("tokenizer.chat_template", template);
        }
    }
}

/// The chat template: a file of its own, or a member of the settings, of which the one called `default` counts.
fn template(checkpoint: &Checkpoint, own: Option<Template>) -> Result<Option<String>, Error> {
    if let Some(text) = checkpoint.text(TEMPLATE, MAX_TEMPLATE_BYTES)? {
        return Ok(Some(text));
    }
    let other = || -> Result<Option<Template>, Error> {
        let tokens: Option<Tokens> = checkpoint.json(TEMPLATE_JSON, MAX_BYTES)?;
        Ok(tokens.and_then(|tokens| tokens.chat_template))
    };
    match own.map_or_else(other, |own| Ok(Some(own)))? {
        None => Ok(None),
        Some(Template::Text(text)) => Ok(Some(text)),
        Some(Template::Named(named)) => {
            let default = named.0.into_iter().find(|one| one.name == "default");
            Ok(default.map(|one| one.template))
        }
    }
}
