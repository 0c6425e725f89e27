//! Tokens of a Go template to its tree.

use super::{
    Error, Templates,
    ast::{Branch, Expr, Node, Pipe},
    functions,
    lexer::{Lexeme, Token, error, lex},
};

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 128;
/// The name of the template that is executed.
pub const ROOT: &str = "";

/// Parses a source into its templates: the root, and those that it defines.
pub fn parse(source: &str) -> Result<Templates, Error> {
    let lexed = lex(source);
    let mut parser = Parser {
        tokens: lexed.lexemes,
        last_line: lexed.last_line,
        at: 0,
        depth: 0,
        n_ranges: 0,
        variables: vec!["$".into()],
        templates: Templates::new(),
    };
    let parsed = parser.root();
    // The source's first error counts: a token that cannot be read comes after those that can.
    match lexed.error {
        Some(error) if parsed.is_ok() || parser.at >= parser.tokens.len() => Err(error),
        _ => parsed.map(|()| parser.templates),
    }
}

fn check_names(templates: &Templates) -> Result<(), Error> {
    fn check(nodes: &[Node], templates: &Templates) -> bool {
        nodes.iter().all(|node| {
            let is_defined = match node {
                Node::Template(name, _) => templates.contains_key(name),
                _ => true,
            };
            is_defined && node.bodies().iter().all(|body| check(body, templates))
        })
    }
    match templates.values().all(|nodes| check(nodes, templates)) {
        true => Ok(()),
        false => Err(Error::Parse("undefined template specified".into())),
    }
}

/// What ended a list of nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    Source,
    End,
    /// `{{else}}`; the parser stands behind the word.
    Else,
}

impl std::fmt::Display for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str(match self {
            Stop::Source => "EOF",
            Stop::End => "{{end}}",
            Stop::Else => "{{else}}",
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Control {
    If,
    With,
    Range,
}

impl Control {
    fn word(self) -> &'static str {
        match self {
            Control::If => "if",
            Control::With => "with",
            Control::Range => "range",
        }
    }

    fn node(self, branch: Branch) -> Node {
        match self {
            Control::If => Node::If(branch),
            Control::With => Node::With(branch),
            Control::Range => Node::Range(branch),
        }
    }
}

struct Parser {
    tokens: Vec<Lexeme>,
    last_line: usize,
    at: usize,
    depth: usize,
    n_ranges: usize,
    /// Names in scope.
    variables: Vec<String>,
    templates: Templates,
}

impl Parser {
    fn root(&mut self) -> Result<(), Error> {
        let (nodes, stop) = self.list()?;
        if stop != Stop::Source {
            return Err(self.error(format!("unexpected {stop}")));
        }
        self.templates.insert(ROOT.into(), nodes);
        check_names(&self.templates)
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|lexeme| &lexeme.token)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.peek().cloned();
        self.at += 1;
        token
    }

    fn line(&self) -> usize {
        self.tokens
            .get(self.at)
            .map_or(self.last_line, |lexeme| lexeme.line)
    }

    fn error(&self, message: impl std::fmt::Display) -> Error {
        error(self.line(), message)
    }

    fn unexpected(&self, context: &str) -> Error {
        match self.peek() {
            None => self.error("unexpected EOF"),
            Some(token) => self.error(format!("unexpected {} in {context}", describe(token))),
        }
    }

    fn deeper<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == MAX_DEPTH {
            return Err(Error::Limit {
                what: "nested template blocks",
                limit: MAX_DEPTH,
            });
        }
        self.depth += 1;
        let result = parse(self);
        self.depth -= 1;
        result
    }

    fn expect(&mut self, token: Token, context: &str) -> Result<(), Error> {
        if self.peek() != Some(&token) {
            return Err(self.unexpected(context));
        }
        self.at += 1;
        Ok(())
    }

    /// Nodes up to what ends them; of `{{end}}` and the source's end nothing is left.
    fn list(&mut self) -> Result<(Vec<Node>, Stop), Error> {
        let mut nodes = Vec::new();
        loop {
            match self.next() {
                None => return Ok((nodes, Stop::Source)),
                Some(Token::Text(text)) => nodes.push(Node::Text(text)),
                Some(_) => match self.peek() {
                    Some(Token::Word(word)) if word == "end" => {
                        self.at += 1;
                        self.expect(Token::Close, "end")?;
                        return Ok((nodes, Stop::End));
                    }
                    Some(Token::Word(word)) if word == "else" => {
                        self.at += 1;
                        return Ok((nodes, Stop::Else));
                    }
                    _ => nodes.extend(self.action()?),
                },
            }
        }
    }

    /// What stands between `{{` and `}}`, with the body of a block.
    fn action(&mut self) -> Result<Option<Node>, Error> {
        let word = match self.peek() {
            Some(Token::Word(word)) => word.clone(),
            _ => String::new(),
        };
        self.at += 1;
        match word.as_str() {
            "if" => self.control(Control::If).map(Some),
            "with" => self.control(Control::With).map(Some),
            "range" => self.control(Control::Range).map(Some),
            "define" => self.define().map(|()| None),
            "block" => self.block().map(Some),
            "template" => self.template().map(Some),
            "break" | "continue" if self.peek() == Some(&Token::Close) => {
                self.jump(&word).map(Some)
            }
            _ => {
                self.at -= 1;
                Ok(Some(Node::Action(self.pipeline("command")?)))
            }
        }
    }

    fn jump(&mut self, word: &str) -> Result<Node, Error> {
        if self.n_ranges == 0 {
            return Err(self.error(format!("{{{{{word}}}}} outside {{{{range}}}}")));
        }
        self.expect(Token::Close, word)?;
        Ok(if word == "break" {
            Node::Break
        } else {
            Node::Continue
        })
    }

    fn control(&mut self, control: Control) -> Result<Node, Error> {
        self.deeper(|parser| {
            let n_variables = parser.variables.len();
            let branch = parser.branch(control)?;
            parser.variables.truncate(n_variables);
            Ok(control.node(branch))
        })
    }

    fn branch(&mut self, control: Control) -> Result<Branch, Error> {
        let pipe = self.pipeline(control.word())?;
        let is_range = control == Control::Range;
        self.n_ranges += usize::from(is_range);
        let (body, end) = self.list()?;
        self.n_ranges -= usize::from(is_range);
        let otherwise = match end {
            Stop::End => Vec::new(),
            Stop::Else => self.otherwise(control)?,
            Stop::Source => return Err(self.error("unexpected EOF")),
        };
        Ok(Branch {
            pipe,
            body,
            otherwise,
        })
    }

    /// What follows `else`: another condition, or a body.
    fn otherwise(&mut self, control: Control) -> Result<Vec<Node>, Error> {
        let again = matches!(self.peek(), Some(Token::Word(word)) if word == control.word());
        if again && control != Control::Range {
            self.at += 1;
            return Ok(vec![self.control(control)?]);
        }
        self.expect(Token::Close, "else")?;
        match self.list()? {
            (nodes, Stop::End) => Ok(nodes),
            (_, Stop::Source) => Err(self.error("unexpected EOF")),
            (_, Stop::Else) => Err(self.error("expected end; found {{else}}")),
        }
    }

    fn name(&mut self, context: &str) -> Result<String, Error> {
        match self.next() {
            Some(Token::Str(name)) => Ok(name),
            _ => {
                self.at -= 1;
                Err(self.unexpected(context))
            }
        }
    }

    fn define(&mut self) -> Result<(), Error> {
        let name = self.name("define clause")?;
        self.expect(Token::Close, "define clause")?;
        self.definition(name)
    }

    /// The body of a `define` or `block`, which sees no variables from outside.
    fn definition(&mut self, name: String) -> Result<(), Error> {
        let variables = std::mem::replace(&mut self.variables, vec!["$".into()]);
        let n_ranges = std::mem::take(&mut self.n_ranges);
        let (nodes, end) = self.deeper(Parser::list)?;
        if end != Stop::End {
            return Err(self.error(format!("unexpected {end} in define clause")));
        }
        self.variables = variables;
        self.n_ranges = n_ranges;
        self.templates.insert(name, nodes);
        Ok(())
    }

    fn block(&mut self) -> Result<Node, Error> {
        let name = self.name("block clause")?;
        let pipe = self.pipeline("block clause")?;
        self.definition(name.clone())?;
        Ok(Node::Template(name, Some(pipe)))
    }

    fn template(&mut self) -> Result<Node, Error> {
        let name = self.name("template clause")?;
        if self.peek() == Some(&Token::Close) {
            self.at += 1;
            return Ok(Node::Template(name, None));
        }
        Ok(Node::Template(
            name,
            Some(self.pipeline("template clause")?),
        ))
    }

    /// A pipeline and the `}}` after it.
    fn pipeline(&mut self, context: &str) -> Result<Pipe, Error> {
        let pipe = self.pipe(context)?;
        self.expect(Token::Close, context)?;
        Ok(pipe)
    }

    fn pipe(&mut self, context: &str) -> Result<Pipe, Error> {
        let line = self.line();
        let (variables, assigns) = self.declarations(context)?;
        let mut commands = Vec::new();
        loop {
            let command = self.command()?;
            if command.is_empty() {
                break;
            }
            if !commands.is_empty() && is_constant(&command[0]) {
                let place = commands.len() + 1;
                let message = format!("non executable command in pipeline stage {place}");
                return Err(self.error(message));
            }
            commands.push(command);
            if self.peek() != Some(&Token::Punct('|')) {
                break;
            }
            self.at += 1;
        }
        if commands.is_empty() {
            return Err(match self.peek() {
                Some(Token::Close | Token::Punct(')')) => {
                    self.error(format!("missing value for {context}"))
                }
                _ => self.unexpected(context),
            });
        }
        if !assigns {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipe {
            line,
            variables,
            assigns,
            commands,
        })
    }

    /// `$x :=`, `$x =`, or in a range `$i, $x :=`.
    fn declarations(&mut self, context: &str) -> Result<(Vec<String>, bool), Error> {
        let start = self.at;
        let mut names = Vec::new();
        while let Some(Token::Variable(name)) = self.peek().cloned() {
            names.push(name);
            self.at += 1;
            match self.peek() {
                Some(Token::Declare | Token::Assign) => {
                    let assigns = self.next() == Some(Token::Assign);
                    self.check_declared(&names, assigns, context)?;
                    return Ok((names, assigns));
                }
                Some(Token::Punct(',')) if context == "range" && names.len() == 1 => self.at += 1,
                _ => break,
            }
        }
        self.at = start;
        Ok((Vec::new(), false))
    }

    fn check_declared(&self, names: &[String], assigns: bool, context: &str) -> Result<(), Error> {
        if names.len() > 1 && context != "range" {
            return Err(self.error(format!("too many declarations in {context}")));
        }
        match names
            .iter()
            .find(|name| assigns && !self.variables.contains(name))
        {
            Some(name) => Err(self.error(format!("undefined variable \"{name}\""))),
            None => Ok(()),
        }
    }

    /// Operands up to the end of a command.
    fn command(&mut self) -> Result<Vec<Expr>, Error> {
        let mut operands = Vec::new();
        while let Some(operand) = self.operand()? {
            operands.push(operand);
        }
        Ok(operands)
    }

    fn operand(&mut self) -> Result<Option<Expr>, Error> {
        let Some(token) = self.peek().cloned() else {
            return Ok(None);
        };
        self.at += 1;
        let expr = match token {
            Token::Dot => Expr::Dot,
            Token::Int(n) => Expr::Int(n),
            Token::Float(n) => Expr::Float(n),
            Token::Str(text) => Expr::Str(text),
            Token::Field(name) => Expr::Field(vec![name]),
            Token::Variable(name) => self.variable(name)?,
            Token::Word(word) => self.word(word)?,
            Token::Punct('(') => self.parenthesis()?,
            _ => {
                self.at -= 1;
                return Ok(None);
            }
        };
        self.fields_after(expr).map(Some)
    }

    fn variable(&mut self, name: String) -> Result<Expr, Error> {
        if !self.variables.contains(&name) {
            return Err(self.error(format!("undefined variable \"{name}\"")));
        }
        Ok(Expr::Variable(name, Vec::new()))
    }

    fn word(&mut self, word: String) -> Result<Expr, Error> {
        match word.as_str() {
            "true" => Ok(Expr::Bool(true)),
            "false" => Ok(Expr::Bool(false)),
            "nil" => Ok(Expr::Nil),
            name if functions::exists(name) => Ok(Expr::Function(word)),
            _ => Err(self.error(format!("function \"{word}\" not defined"))),
        }
    }

    fn parenthesis(&mut self) -> Result<Expr, Error> {
        let pipe = self.deeper(|parser| parser.pipe("parenthesized pipeline"))?;
        self.expect(Token::Punct(')'), "parenthesized pipeline")?;
        Ok(Expr::Pipe(Box::new(pipe)))
    }

    /// Fields written without a blank after an operand belong to it.
    fn fields_after(&mut self, expr: Expr) -> Result<Expr, Error> {
        let mut names = Vec::new();
        while let Some(Lexeme {
            token: Token::Field(name),
            is_spaced: false,
            ..
        }) = self.tokens.get(self.at)
        {
            names.push(name.clone());
            self.at += 1;
        }
        if names.is_empty() {
            return Ok(expr);
        }
        match expr {
            Expr::Field(mut path) => {
                path.extend(names);
                Ok(Expr::Field(path))
            }
            Expr::Variable(name, _) => Ok(Expr::Variable(name, names)),
            Expr::Dot => Ok(Expr::Field(names)),
            Expr::Pipe(_) | Expr::Function(_) => Ok(Expr::Chain(Box::new(expr), names)),
            _ => Err(self.error(format!("unexpected . after term {:?}", names[0]))),
        }
    }
}

fn is_constant(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Bool(_) | Expr::Dot | Expr::Nil | Expr::Int(_) | Expr::Float(_) | Expr::Str(_)
    )
}

fn describe(token: &Token) -> String {
    match token {
        Token::Text(text) => format!("{text:?}"),
        Token::Open => "{{".into(),
        Token::Close => "}}".into(),
        Token::Word(word) => format!("<{word}>"),
        Token::Field(name) => format!("<.{name}>"),
        Token::Variable(name) => format!("{name:?}"),
        Token::Dot => "<.>".into(),
        Token::Int(n) => format!("\"{n}\""),
        Token::Float(n) => format!("\"{n}\""),
        Token::Str(text) => format!("{text:?}"),
        Token::Punct(c) => format!("{:?}", c.to_string()),
        Token::Declare => "\":=\"".into(),
        Token::Assign => "\"=\"".into(),
    }
}
