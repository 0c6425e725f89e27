//! Runs a Go template's tree on its data.

use super::{
    Error, Templates,
    ast::{Branch, Expr, Node, Pipe},
    functions,
    value::Value,
};
use chrono::NaiveDateTime;

/// Deepest nesting of templates that call templates.
const MAX_CALLS: usize = 64;
/// Bytes of text that one step pays for.
const BYTES_PER_STEP: usize = 64;

/// Runs the nodes on `data`, within `max_steps`: one for each operand, one for each 64 bytes made.
pub fn run(
    templates: &Templates,
    nodes: &[Node],
    data: &Value,
    now: NaiveDateTime,
    max_steps: usize,
) -> Result<String, Error> {
    let mut executor = Executor {
        templates,
        out: String::new(),
        variables: vec![("$".into(), data.clone())],
        n_steps: 0,
        max_steps,
        n_calls: 0,
        line: 1,
        now,
    };
    executor.list(data, nodes)?;
    Ok(executor.out)
}

/// How a list of nodes ended.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flow {
    Normal,
    Break,
    Continue,
}

struct Executor<'t> {
    templates: &'t Templates,
    out: String,
    /// Innermost last; `$` is the first of a template's own.
    variables: Vec<(String, Value)>,
    n_steps: usize,
    max_steps: usize,
    n_calls: usize,
    line: usize,
    now: NaiveDateTime,
}

impl Executor<'_> {
    fn charge(&mut self, n_bytes: usize) -> Result<(), Error> {
        self.n_steps += 1 + n_bytes / BYTES_PER_STEP;
        match self.n_steps > self.max_steps {
            true => Err(Error::Limit {
                what: "template steps",
                limit: self.max_steps,
            }),
            false => Ok(()),
        }
    }

    fn error(&self, message: impl std::fmt::Display) -> Error {
        Error::Render(format!("template: :{}: {message}", self.line))
    }

    fn list(&mut self, dot: &Value, nodes: &[Node]) -> Result<Flow, Error> {
        for node in nodes {
            match self.node(dot, node)? {
                Flow::Normal => {}
                flow => return Ok(flow),
            }
        }
        Ok(Flow::Normal)
    }

    fn node(&mut self, dot: &Value, node: &Node) -> Result<Flow, Error> {
        match node {
            Node::Text(text) => {
                self.charge(text.len())?;
                self.out.push_str(text);
            }
            Node::Action(pipe) => {
                let value = self.pipe(dot, pipe)?;
                if pipe.variables.is_empty() {
                    self.print(&value)?;
                }
            }
            Node::If(branch) => return self.scoped(|run| run.condition(dot, branch, false)),
            Node::With(branch) => return self.scoped(|run| run.condition(dot, branch, true)),
            Node::Range(branch) => return self.scoped(|run| run.range(dot, branch)),
            Node::Template(name, pipe) => self.template(dot, name, pipe.as_ref())?,
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Normal)
    }

    fn print(&mut self, value: &Value) -> Result<(), Error> {
        let before = self.out.len();
        value.print(&mut self.out);
        self.charge(self.out.len() - before)
    }

    /// Runs `body` and forgets the variables that it declares.
    fn scoped<T>(&mut self, body: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let n_variables = self.variables.len();
        let result = body(self);
        self.variables.truncate(n_variables);
        result
    }

    fn condition(&mut self, dot: &Value, branch: &Branch, sets_dot: bool) -> Result<Flow, Error> {
        let value = self.pipe(dot, &branch.pipe)?;
        match value.is_true() {
            true => self.list(if sets_dot { &value } else { dot }, &branch.body),
            false => self.list(dot, &branch.otherwise),
        }
    }

    fn range(&mut self, dot: &Value, branch: &Branch) -> Result<Flow, Error> {
        let collection = self.pipe(dot, &branch.pipe)?;
        // The pipeline declared its variables itself; each turn gets fresh ones.
        let n_declared = if branch.pipe.assigns {
            0
        } else {
            branch.pipe.variables.len()
        };
        self.variables.truncate(self.variables.len() - n_declared);
        match &collection {
            Value::Missing | Value::Nil => self.list(dot, &branch.otherwise),
            Value::List(list) if list.items.is_empty() => self.list(dot, &branch.otherwise),
            Value::Map(map) if map.entries.is_empty() => self.list(dot, &branch.otherwise),
            Value::Int(..=0) => self.list(dot, &branch.otherwise),
            Value::List(list) => {
                let turns = list.items.iter().enumerate();
                self.turns(
                    branch,
                    turns.map(|(i, item)| (Value::Int(i as i64), item.clone())),
                )
            }
            Value::Map(map) => {
                let turns = map.entries.iter();
                self.turns(
                    branch,
                    turns.map(|(key, value)| (key.as_str().into(), value.clone())),
                )
            }
            Value::Int(n) => self.turns(branch, (0..*n).map(|i| (Value::Int(i), Value::Int(i)))),
            other => {
                let mut text = String::new();
                other.print(&mut text);
                Err(self.error(format!("range can't iterate over {text}")))
            }
        }
    }

    fn turns(
        &mut self,
        branch: &Branch,
        turns: impl Iterator<Item = (Value, Value)>,
    ) -> Result<Flow, Error> {
        for (key, item) in turns {
            self.charge(0)?;
            let flow = self.scoped(|run| {
                match branch.pipe.variables.as_slice() {
                    [] => {}
                    [value] => run.set(value, item.clone(), branch.pipe.assigns),
                    [index, value, ..] => {
                        run.set(index, key, branch.pipe.assigns);
                        run.set(value, item.clone(), branch.pipe.assigns);
                    }
                }
                run.list(&item, &branch.body)
            })?;
            if flow == Flow::Break {
                break;
            }
        }
        Ok(Flow::Normal)
    }

    fn set(&mut self, name: &str, value: Value, assigns: bool) {
        match self
            .variables
            .iter_mut()
            .rev()
            .find(|(known, _)| assigns && known == name)
        {
            Some(variable) => variable.1 = value,
            None => self.variables.push((name.to_string(), value)),
        }
    }

    fn template(&mut self, dot: &Value, name: &str, pipe: Option<&Pipe>) -> Result<(), Error> {
        let data = match pipe {
            Some(pipe) => self.scoped(|run| run.pipe(dot, pipe))?,
            None => Value::Nil,
        };
        let templates = self.templates;
        let Some(nodes) = templates.get(name) else {
            return Err(self.error(format!("template {name:?} not defined")));
        };
        if self.n_calls == MAX_CALLS {
            return Err(Error::Limit {
                what: "nested template calls",
                limit: MAX_CALLS,
            });
        }
        self.n_calls += 1;
        let outer = std::mem::replace(&mut self.variables, vec![("$".into(), data.clone())]);
        self.list(&data, nodes)?;
        self.variables = outer;
        self.n_calls -= 1;
        Ok(())
    }

    fn pipe(&mut self, dot: &Value, pipe: &Pipe) -> Result<Value, Error> {
        self.line = pipe.line;
        let mut value = None;
        for command in &pipe.commands {
            value = Some(self.command(dot, command, value)?);
        }
        let value = value.unwrap_or(Value::Missing);
        for name in &pipe.variables {
            self.set(name, value.clone(), pipe.assigns);
        }
        Ok(value)
    }

    /// The value of a command; `last` is the value of the one before it in a pipeline.
    fn command(
        &mut self,
        dot: &Value,
        command: &[Expr],
        last: Option<Value>,
    ) -> Result<Value, Error> {
        let Some((first, args)) = command.split_first() else {
            return Ok(Value::Missing);
        };
        if let Expr::Function(name) = first {
            return self.function(dot, name, args, last);
        }
        if *first == Expr::Nil {
            return Err(self.error("nil is not a command"));
        }
        if !args.is_empty() || last.is_some() {
            return Err(self.error("can't give argument to non-function"));
        }
        self.operand(dot, first)
    }

    fn function(
        &mut self,
        dot: &Value,
        name: &str,
        args: &[Expr],
        last: Option<Value>,
    ) -> Result<Value, Error> {
        if matches!(name, "and" | "or") {
            return self.and_or(dot, name == "or", args, last);
        }
        let mut values = Vec::with_capacity(args.len() + 1);
        for arg in args {
            values.push(self.operand(dot, arg)?);
        }
        values.extend(last);
        let given = values.iter().map(cost).sum();
        self.charge(given)?;
        let value = functions::call(name, &values, self.now)
            .map_err(|message| self.error(format!("error calling {name}: {message}")))?;
        self.charge(cost(&value))?;
        Ok(value)
    }

    /// The first operand that decides, else the last; later ones are not evaluated.
    fn and_or(
        &mut self,
        dot: &Value,
        stop: bool,
        args: &[Expr],
        last: Option<Value>,
    ) -> Result<Value, Error> {
        let mut value = None;
        for arg in args {
            let operand = self.operand(dot, arg)?;
            if operand.is_true() == stop {
                return Ok(operand);
            }
            value = Some(operand);
        }
        let name = if stop { "or" } else { "and" };
        last.or(value).ok_or_else(|| {
            self.error(format!(
                "wrong number of args for {name}: want at least 1 got 0"
            ))
        })
    }

    fn operand(&mut self, dot: &Value, expr: &Expr) -> Result<Value, Error> {
        self.charge(0)?;
        match expr {
            Expr::Dot => Ok(dot.clone()),
            Expr::Nil => Ok(Value::Nil),
            Expr::Bool(b) => Ok(Value::Bool(*b)),
            Expr::Int(n) => Ok(Value::Int(*n)),
            Expr::Float(n) => Ok(Value::Float(*n)),
            Expr::Str(text) => Ok(text.as_str().into()),
            Expr::Field(path) => self.fields(dot, path),
            Expr::Variable(name, path) => {
                let found = self.variables.iter().rev().find(|(known, _)| known == name);
                let value = found.map_or(Value::Missing, |(_, value)| value.clone());
                self.fields(&value, path)
            }
            Expr::Function(name) => self.function(dot, name, &[], None),
            Expr::Pipe(pipe) => self.scoped(|run| run.pipe(dot, pipe)),
            Expr::Chain(inner, path) => {
                let value = self.operand(dot, inner)?;
                self.fields(&value, path)
            }
        }
    }

    fn fields(&self, value: &Value, path: &[String]) -> Result<Value, Error> {
        path.iter()
            .try_fold(value.clone(), |value, name| self.field(&value, name))
    }

    fn field(&self, value: &Value, name: &str) -> Result<Value, Error> {
        match value {
            Value::Map(map) => Ok(map.entries.get(name).cloned().unwrap_or(Value::Missing)),
            Value::Record(record) => record.get(name).cloned().ok_or_else(|| {
                self.error(format!(
                    "can't evaluate field {name} in type {}",
                    record.name
                ))
            }),
            Value::Missing => Ok(Value::Missing),
            Value::Nil => Err(self.error(format!("nil pointer evaluating interface {{}}.{name}"))),
            other => {
                let kind = other.type_name();
                Err(self.error(format!("can't evaluate field {name} in type {kind}")))
            }
        }
    }
}

/// Bytes that handling a value takes, roughly.
fn cost(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len(),
        Value::List(list) => list.items.len() * size_of::<Value>(),
        _ => 0,
    }
}
