//! What a caller asks of a loaded model, and what it gets back.

use std::time::Duration;

use super::{Error, Grammar};

/// How the next token is chosen. The defaults are Ollama's.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingParams {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Keep this many tokens; 0 or less keeps all.
    pub top_k: i64,
    /// Keep the likeliest tokens that together reach this probability; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this likely, relative to the likeliest; 0 keeps all.
    pub min_p: f32,
    /// Keep the tokens of most typical surprise that reach this probability; 1 keeps all.
    pub typical_p: f32,
    /// How many of the last tokens the penalties look at; 0 none, negative the whole context.
    pub repeat_last_n: i64,
    /// Divides (negative logits: multiplies) the logit of a seen token; 1 is off.
    pub repeat_penalty: f32,
    /// Taken from the logit of a seen token.
    pub presence_penalty: f32,
    /// Taken from the logit of a seen token for each time it was seen.
    pub frequency_penalty: f32,
    /// Tokens, each once, and what is added to their logits before any other step.
    pub logit_bias: Vec<(u32, f32)>,
    /// The same seed gives the same tokens; none draws a new one.
    pub seed: Option<u64>,
}

impl Default for SamplingParams {
    fn default() -> SamplingParams {
        SamplingParams {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.9,
            min_p: 0.0,
            typical_p: 1.0,
            repeat_last_n: 64,
            repeat_penalty: 1.0,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            logit_bias: Vec::new(),
            seed: None,
        }
    }
}

/// One prompt to continue.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The prompt. At least one token, fewer than the context has places.
    pub tokens: Vec<u32>,
    pub params: SamplingParams,
    /// Most tokens to generate; none, or more than ten contexts, means ten contexts.
    pub n_predict: Option<usize>,
    /// Texts that end the generation and are not returned. Empty ones are ignored.
    pub stop: Vec<String>,
    /// Prompt tokens that a context shift keeps; negative keeps the whole prompt. A leading BOS
    /// is kept besides.
    pub n_keep: i64,
    /// When the context is full: drop half of what is not kept and go on, instead of ending.
    pub shift: bool,
    /// Log-probabilities of each token and of this many best ones; none for no report.
    pub logprobs: Option<usize>,
    /// End when more than this many successive pieces are equal.
    pub max_repeats: Option<usize>,
    /// Control tokens whose text is to be returned, such as tool-call marks.
    pub visible_tokens: Vec<u32>,
    /// What the answer must look like.
    pub grammar: Option<Grammar>,
    /// Most tokens that a step may guess and check besides the next one.
    pub n_draft: usize,
}

impl Request {
    /// A request with Ollama's defaults.
    pub fn new(tokens: Vec<u32>) -> Request {
        Request {
            tokens,
            params: SamplingParams::default(),
            n_predict: None,
            stop: Vec::new(),
            n_keep: 4,
            shift: true,
            logprobs: None,
            max_repeats: Some(30),
            visible_tokens: Vec::new(),
            grammar: None,
            n_draft: 0,
        }
    }
}

/// What a request's receiver gets: any number of pieces, then `Done` or `Failed`.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// More text. It is whole UTF-8 and never part of a stop string; it is empty only where
    /// tokens without text end the generation.
    Piece {
        text: String,
        /// The tokens behind the text, in order; end-of-generation tokens are left out.
        tokens: Vec<u32>,
        /// One entry per token, where asked for.
        logprobs: Vec<TokenLogprob>,
        /// See [`Usage::cached_tokens`].
        cached_tokens: usize,
    },
    Done {
        reason: FinishReason,
        usage: Usage,
    },
    Failed(Error),
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// End-of-generation token, stop string, or endless repetition.
    Stop,
    /// Token budget used, context full without shift, or endless repetition of an answer with a grammar.
    Length,
}

/// Counts and times of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were found in the cache.
    pub cached_tokens: usize,
    /// From the first work on the prompt to the first token.
    pub prompt_duration: Duration,
    /// Generated tokens, an end-of-generation token included.
    pub eval_tokens: usize,
    /// From the first token to the last.
    pub eval_duration: Duration,
    /// Which of the request's stop strings ended the text, by its place among them.
    pub matched_stop: Option<usize>,
    /// Tokens that were guessed, and those of them that were right.
    pub drafted_tokens: usize,
    pub accepted_tokens: usize,
}

/// A token and its probability before any sampling step, with the best alternatives.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenLogprob {
    /// The token that was generated.
    pub chosen: Logprob,
    /// By falling probability; as many as asked for.
    pub top: Vec<Logprob>,
}

/// A token's text and the natural logarithm of its probability.
#[derive(Debug, Clone, PartialEq)]
pub struct Logprob {
    pub token: u32,
    /// The token's bytes; not always whole UTF-8.
    pub bytes: Vec<u8>,
    pub logprob: f32,
}
