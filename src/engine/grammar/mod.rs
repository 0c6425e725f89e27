//! Structured output: a JSON Schema or a grammar as a mask over the vocabulary.
//!
//! The automaton and the masks are those of the `llguidance` crate. A request's [`Grammar`] is
//! compiled before it is submitted; the model's thread asks it for the allowed tokens of each
//! step before the device's answer is there, and tells it the token that was chosen.

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod inferred_tests;
mod schema;
#[cfg(test)]
mod suite_tests;
#[cfg(test)]
mod tests;

pub use schema::prepared as prepared_schema;

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use llguidance::api::{GrammarWithLexer, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{Matcher, ParserFactory};
use serde_json::Value;

use super::{Error, Vocabulary};

/// Bytes of a grammar's source.
const MAX_SOURCE_BYTES: usize = 1 << 20;
/// Time for compiling one grammar. The crate's own budgets end before, but for odd regexes.
const MAX_COMPILE_TIME: Duration = Duration::from_secs(2);
/// The crate recurses over schemas and expressions, whose depth is bounded.
const STACK_BYTES: usize = 64 << 20;

/// What an answer must look like.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Any JSON object.
    Json,
    /// A JSON Schema.
    Schema(Value),
    /// A Lark grammar, or `/regex/`, as `llguidance` reads them.
    Grammar(String),
}

/// Reasoning that may come before the text that is constrained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reasoning {
    /// The tag that begins it; none where the prompt has begun it.
    pub open: Option<String>,
    /// The tag that ends it.
    pub close: String,
    /// What then begins the answer, with reasoning before it or without; may be empty.
    pub answer: String,
}

/// Ids of control tokens by their text.
type ControlTokens = dyn Fn(&str) -> Option<u32> + Send + Sync;

/// Compiles grammars for one vocabulary.
pub struct Grammars {
    factory: Arc<ParserFactory>,
    control: Box<ControlTokens>,
}

impl Grammars {
    /// `vocab_size` is the number of logits, which may exceed the number of tokens. `control` gives
    /// the id of a control token by its text.
    ///
    /// # Errors
    /// For a vocabulary without a token that ends a generation.
    pub fn new(
        vocabulary: &dyn Vocabulary,
        vocab_size: usize,
        control: impl Fn(&str) -> Option<u32> + Send + Sync + 'static,
    ) -> Result<Grammars, Error> {
        let ids = 0..vocab_size as u32;
        let word = |id: u32| match vocabulary.is_control(id) {
            true => [&[TokTrie::SPECIAL_TOKEN_MARKER], vocabulary.token_bytes(id)].concat(),
            false => vocabulary.token_bytes(id).to_vec(),
        };
        let words: Vec<Vec<u8>> = ids.clone().map(word).collect();
        let ends: Vec<u32> = ids
            .filter(|&id| vocabulary.is_end_of_generation(id))
            .collect();
        let first = *ends.first().ok_or_else(|| {
            Error::Grammar("the vocabulary has no token that ends an answer".into())
        })?;
        let trie = TokTrie::from(&TokRxInfo::new(vocab_size as u32, first), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie.with_eos_tokens(&ends)));
        let mut factory = ParserFactory::new_simple(&env).map_err(refused)?;
        factory.quiet();
        factory.limits_mut().verbose_errors = false;
        Ok(Grammars {
            factory: Arc::new(factory),
            control: Box::new(control),
        })
    }

    /// Compiles a constraint, with reasoning before it where a model thinks first.
    ///
    /// # Errors
    /// [`Error::Grammar`] names what cannot be compiled, or is too large.
    pub fn compile(
        &self,
        constraint: &Constraint,
        reasoning: Option<&Reasoning>,
    ) -> Result<Grammar, Error> {
        let answer = answer(constraint)?;
        let source = match reasoning {
            None => TopLevelGrammar::from_grammar(answer),
            Some(reasoning) => TopLevelGrammar::from_lark(self.reasoned(answer, reasoning)),
        };
        let factory = Arc::clone(&self.factory);
        let name = format!("{constraint:?}");
        let matcher = within_limits(move || {
            let matcher = Matcher::new(factory.create_parser(source));
            match matcher.get_error() {
                Some(error) => Err(Error::Grammar(in_short(&error))),
                None => Ok(matcher),
            }
        })?;
        Ok(Grammar {
            source: name.into(),
            matcher,
            allowed: None,
        })
    }

    /// The constraint behind reasoning, as a Lark grammar. Control tokens in tags are those tokens and
    /// no text.
    fn reasoned(&self, answer: GrammarWithLexer, reasoning: &Reasoning) -> String {
        let mut lark = String::from("start: ");
        if let Some(open) = &reasoning.open {
            lark += &format!("(BLANKS {} reasoning)?", self.terminals(open));
        } else {
            lark += "reasoning";
        }
        lark += &format!(" {} answer\n", self.terminals(&reasoning.answer));
        let close = self.terminals(&reasoning.close);
        match close.starts_with('<') {
            true => lark += &format!("reasoning: TEXT {close} BLANKS\nTEXT: /(?s:.*)/\n"),
            false => {
                lark += "reasoning: closed BLANKS\n";
                lark += &format!("closed[suffix={}]: /(?s:.*)/\n", quoted(&reasoning.close));
            }
        }
        lark += "BLANKS: /[ \\n]{0,4}/\n";
        match (answer.json_schema, answer.lark_grammar) {
            (Some(schema), _) => lark += &format!("answer: %json {schema}\n"),
            (None, grammar) => {
                lark += &format!("answer: %lark {{\n{}\n}}\n", grammar.unwrap_or_default());
            }
        }
        lark
    }

    /// A text as Lark's terminals: `<[ID]>` for a control token, strings for what is between.
    fn terminals(&self, text: &str) -> String {
        let mut terminals = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let token = rest.match_indices(['<', '[']).find_map(|(at, _)| {
                let end = at + rest[at..].find(['>', ']'])? + 1;
                let id = (self.control)(&rest[at..end])?;
                Some((at, end, format!("<[{id}]>")))
            });
            let (at, end, token) = token.unwrap_or((rest.len(), rest.len(), String::new()));
            if at > 0 {
                terminals.push(quoted(&rest[..at]));
            }
            terminals.extend(Some(token).filter(|token| !token.is_empty()));
            rest = &rest[end..];
        }
        terminals.join(" ")
    }
}

/// A literal of Lark's, which reads strings as JSON does.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// The grammar of what follows any reasoning.
fn answer(constraint: &Constraint) -> Result<GrammarWithLexer, Error> {
    match constraint {
        Constraint::Json => Ok(GrammarWithLexer::from_json_schema(schema::any_object())),
        Constraint::Schema(source) => {
            let schema = schema::prepared(source).map_err(Error::Grammar)?;
            Ok(GrammarWithLexer::from_json_schema(schema))
        }
        Constraint::Grammar(source) if source.len() > MAX_SOURCE_BYTES => Err(Error::Grammar(
            format!("a grammar of more than {MAX_SOURCE_BYTES} bytes"),
        )),
        Constraint::Grammar(source) => {
            let regex = source.strip_prefix('/').and_then(|s| s.strip_suffix('/'));
            Ok(match regex {
                Some(regex) => GrammarWithLexer::from_regex(regex),
                None => GrammarWithLexer::from_lark(source.clone()),
            })
        }
    }
}

/// Runs on a thread with a stack for deep sources. A source that takes too long is given up; the
/// crate's budgets end that thread soon after.
fn within_limits<T: Send + 'static>(
    compile: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::Builder::new()
        .name("grammar".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // The caller may have given up.
            let _ = sender.send(compile());
        });
    thread.map_err(|e| Error::Grammar(format!("no thread to compile it: {e}")))?;
    match receiver.recv_timeout(MAX_COMPILE_TIME) {
        Ok(result) => result,
        Err(RecvTimeoutError::Timeout) => Err(Error::Grammar(format!(
            "it takes more than {} s to compile",
            MAX_COMPILE_TIME.as_secs()
        ))),
        Err(RecvTimeoutError::Disconnected) => Err(Error::Grammar("it cannot be compiled".into())),
    }
}

fn refused(error: impl fmt::Display) -> Error {
    Error::Grammar(in_short(&error.to_string()))
}

/// The crate's message on one line, in words that say something to those who wrote the schema.
fn in_short(text: &str) -> String {
    let mut lines = text.lines();
    let first = match lines.next().unwrap_or_default() {
        "NoExtensionBias" => "no text satisfies it",
        first => first,
    };
    // Of a regex that cannot be parsed, the pattern comes between the two.
    match lines.find_map(|line| line.strip_prefix("error: ")) {
        Some(reason) => format!("{first} {reason}"),
        None => first.to_string(),
    }
}

/// The tokens that may come next.
pub type Allowed = SimpleVob;

/// One answer's automaton.
#[derive(Clone)]
pub struct Grammar {
    source: Arc<str>,
    matcher: Matcher,
    /// Of the next token, once computed.
    allowed: Option<Result<Allowed, Error>>,
}

impl Grammar {
    /// Computes the tokens that may come next, once for each token.
    pub fn prepare(&mut self) {
        if self.allowed.is_none() {
            self.allowed = Some(self.matcher.compute_mask_or_eos().map_err(refused));
        }
    }

    /// The tokens that may come next; the end of the answer is among them where it may end.
    ///
    /// # Errors
    /// [`Error::Grammar`] where a step exceeds its budget, or was not prepared.
    pub fn allowed(&self) -> Result<&Allowed, Error> {
        match &self.allowed {
            Some(allowed) => allowed.as_ref().map_err(Error::clone),
            None => Err(Error::Grammar("a step was not prepared".into())),
        }
    }

    /// Takes the token that was chosen.
    ///
    /// # Errors
    /// [`Error::Grammar`] for a token that is not allowed.
    pub fn accept(&mut self, token: u32) -> Result<(), Error> {
        self.allowed = None;
        self.matcher.consume_token(token).map_err(refused)
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Grammar({})", self.source)
    }
}

/// Two grammars are equal that were compiled from one source; how far each has come is not
/// compared.
impl PartialEq for Grammar {
    fn eq(&self, other: &Grammar) -> bool {
        self.source == other.source
    }
}
