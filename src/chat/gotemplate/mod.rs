//! Go's text templates, as far as Ollama's models use them: our own engine, since what a template
//! says about its model has to be read from its tree.

mod ast;
mod exec;
mod functions;
mod infer;
mod lexer;
mod parser;
mod printf;
pub mod value;

use super::Error;
use ast::{Expr, Node, Pipe};
use chrono::NaiveDateTime;
use std::collections::{BTreeMap, BTreeSet};
use value::Value;

/// Bodies by name.
type Templates = BTreeMap<String, Vec<Node>>;

/// A parsed Go template.
#[derive(Debug)]
pub struct GoTemplate {
    source: String,
    templates: Templates,
}

impl GoTemplate {
    /// Parses a source. Errors have Go's form, `template: :LINE: what`.
    pub fn parse(source: &str) -> Result<GoTemplate, Error> {
        Ok(GoTemplate {
            source: source.to_string(),
            templates: parser::parse(source)?,
        })
    }

    /// The source.
    pub fn text(&self) -> &str {
        &self.source
    }

    /// Adds `{{ .Response }}` at the end.
    pub fn append_response(&mut self) {
        let pipe = Pipe {
            line: 1,
            variables: Vec::new(),
            assigns: false,
            commands: vec![vec![Expr::Field(vec!["Response".into()])]],
        };
        self.templates
            .entry(parser::ROOT.into())
            .or_default()
            .push(Node::Action(pipe));
    }

    /// Names of the fields in use, in lower case.
    pub fn identifiers(&self) -> BTreeSet<String> {
        infer::identifiers(self)
    }

    /// The text that comes before a tool call, `{` if the template does not tell.
    pub fn tool_tag(&self) -> String {
        infer::tool_tag(self)
    }

    /// The tags around reasoning, if the template tells.
    pub fn thinking_tags(&self) -> Option<(String, String)> {
        infer::thinking_tags(self)
    }

    /// Runs the template on `data` within `max_steps`.
    pub fn run(&self, data: &Value, now: NaiveDateTime, max_steps: usize) -> Result<String, Error> {
        exec::run(&self.templates, self.root(), data, now, max_steps)
    }

    /// Runs the template up to its first `{{ .Response }}`.
    pub fn run_to_response(
        &self,
        data: &Value,
        now: NaiveDateTime,
        max_steps: usize,
    ) -> Result<String, Error> {
        let (nodes, _) = infer::cut_after_response(self.root());
        exec::run(&self.templates, &nodes, data, now, max_steps)
    }

    fn root(&self) -> &[Node] {
        self.templates.get(parser::ROOT).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests;
