//! What a Go template's text means: a tree of nodes.

/// A part of a template's body.
#[derive(Debug, Clone, PartialEq)]
pub enum Node {
    Text(String),
    /// `{{ pipeline }}`: printed unless it declares or assigns.
    Action(Pipe),
    If(Branch),
    With(Branch),
    Range(Branch),
    /// `{{ template "name" pipeline }}`.
    Template(String, Option<Pipe>),
    Break,
    Continue,
}

/// A condition or a collection with its two bodies.
#[derive(Debug, Clone, PartialEq)]
pub struct Branch {
    pub pipe: Pipe,
    pub body: Vec<Node>,
    pub otherwise: Vec<Node>,
}

/// Commands, each one given the value of the one before as its last argument.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipe {
    pub line: usize,
    /// Variables set to the value: one, or two in a range.
    pub variables: Vec<String>,
    /// Whether they exist already (`=` instead of `:=`).
    pub assigns: bool,
    pub commands: Vec<Vec<Expr>>,
}

/// An operand.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    Dot,
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(String),
    /// `.A.B`.
    Field(Vec<String>),
    /// `$x.A.B`; the name includes the dollar sign.
    Variable(String, Vec<String>),
    Function(String),
    Pipe(Box<Pipe>),
    /// Fields of a parenthesised pipeline.
    Chain(Box<Expr>, Vec<String>),
}

impl Node {
    /// The lists of nodes inside this one.
    pub fn bodies(&self) -> Vec<&[Node]> {
        match self {
            Node::If(b) | Node::With(b) | Node::Range(b) => vec![&b.body, &b.otherwise],
            _ => Vec::new(),
        }
    }

    /// The pipeline that this node evaluates.
    pub fn pipe(&self) -> Option<&Pipe> {
        match self {
            Node::Action(pipe) => Some(pipe),
            Node::If(b) | Node::With(b) | Node::Range(b) => Some(&b.pipe),
            Node::Template(_, pipe) => pipe.as_ref(),
            _ => None,
        }
    }
}

impl Pipe {
    /// All operands, those of parenthesised pipelines too.
    pub fn operands(&self) -> Vec<&Expr> {
        let mut out = Vec::new();
        for expr in self.commands.iter().flatten() {
            out.push(expr);
            match expr {
                Expr::Pipe(inner) => out.extend(inner.operands()),
                Expr::Chain(inner, _) => {
                    if let Expr::Pipe(inner) = &**inner {
                        out.extend(inner.operands());
                    }
                }
                _ => {}
            }
        }
        out
    }

    /// Plain fields that stand directly in a command.
    pub fn direct_fields(&self) -> impl Iterator<Item = &[String]> {
        self.commands
            .iter()
            .flatten()
            .filter_map(|expr| match expr {
                Expr::Field(path) => Some(path.as_slice()),
                _ => None,
            })
    }
}
