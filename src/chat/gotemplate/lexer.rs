//! A Go template's text cut into plain text and the tokens of its actions.

use super::Error;

/// One piece of a template.
#[derive(Debug, Clone, PartialEq)]
pub enum Token {
    /// Text between actions, trim markers applied.
    Text(String),
    /// `{{` and `}}`.
    Open,
    Close,
    /// A keyword, function name or `true`, `false`, `nil`.
    Word(String),
    /// `.Name`, without its dot.
    Field(String),
    /// `$` or `$name`.
    Variable(String),
    Dot,
    Int(i64),
    Float(f64),
    Str(String),
    /// `|`, `(`, `)` or `,`.
    Punct(char),
    /// `:=`.
    Declare,
    /// `=`.
    Assign,
}

/// A token, its line from 1, and whether blanks come before it: `a.b` is one operand, `a .b` two.
#[derive(Debug, Clone, PartialEq)]
pub struct Lexeme {
    pub token: Token,
    pub line: usize,
    pub is_spaced: bool,
}

/// The characters that trim markers remove.
const BLANKS: [char; 4] = [' ', '\t', '\r', '\n'];

/// What a source was cut into.
#[derive(Debug)]
pub struct Lexed {
    pub lexemes: Vec<Lexeme>,
    /// The line at which cutting ended.
    pub last_line: usize,
    /// Why it ended before the source did. What comes before may be wrong in another way.
    pub error: Option<Error>,
}

/// Cuts a template's source into tokens.
pub fn lex(source: &str) -> Lexed {
    let mut lexer = Lexer {
        rest: source,
        line: 1,
        out: Vec::new(),
    };
    let mut trims = false;
    let mut error = None;
    while !lexer.rest.is_empty() && error.is_none() {
        match lexer.text_and_action(trims) {
            Ok(trims_next) => trims = trims_next,
            Err(found) => error = Some(found),
        }
    }
    Lexed {
        lexemes: lexer.out,
        last_line: lexer.line,
        error,
    }
}

/// `template: :LINE: message`, Go's form for a template without a name.
pub fn error(line: usize, message: impl std::fmt::Display) -> Error {
    Error::Parse(format!("template: :{line}: {message}"))
}

struct Lexer<'s> {
    rest: &'s str,
    line: usize,
    out: Vec<Lexeme>,
}

impl<'s> Lexer<'s> {
    /// Takes the text up to the next action and that action. `trims`: the action before ended in
    /// a trim marker. Returns whether this one does.
    fn text_and_action(&mut self, trims: bool) -> Result<bool, Error> {
        let end = self.rest.find("{{").unwrap_or(self.rest.len());
        let (text, action) = self.rest.split_at(end);
        let mut shown = if trims {
            text.trim_start_matches(BLANKS)
        } else {
            text
        };
        let marked = action
            .strip_prefix("{{-")
            .filter(|inner| inner.starts_with(BLANKS));
        if marked.is_some() {
            shown = shown.trim_end_matches(BLANKS);
        }
        if !shown.is_empty() {
            self.push(Token::Text(shown.to_string()), false);
        }
        self.advance(end);
        if action.is_empty() {
            return Ok(false);
        }
        self.advance(if marked.is_some() { 3 } else { 2 });
        match self.rest.trim_start_matches(BLANKS).starts_with("/*") {
            true => self.comment(),
            false => self.action(),
        }
    }

    fn push(&mut self, token: Token, is_spaced: bool) {
        self.out.push(Lexeme {
            token,
            line: self.line,
            is_spaced,
        });
    }

    fn advance(&mut self, n_bytes: usize) {
        let (taken, rest) = self.rest.split_at(n_bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
    }

    /// `/* ... */`, then nothing but the end of the action.
    fn comment(&mut self) -> Result<bool, Error> {
        let Some(end) = self.rest.find("*/") else {
            return Err(error(self.line, "unclosed comment"));
        };
        self.advance(end + 2);
        let after = self.rest;
        if let Some((n_bytes, trims)) = closing(after) {
            self.advance(n_bytes);
            return Ok(trims);
        }
        Err(error(self.line, "comment ends before closing delimiter"))
    }

    fn action(&mut self) -> Result<bool, Error> {
        self.push(Token::Open, false);
        let first_line = self.line;
        loop {
            if let Some((n_bytes, trims)) = closing(self.rest) {
                self.push(Token::Close, false);
                self.advance(n_bytes);
                return Ok(trims);
            }
            let blanks = self.rest.len() - self.rest.trim_start_matches(BLANKS).len();
            self.advance(blanks);
            if self.rest.is_empty() {
                return Err(error(self.line, unclosed(first_line, self.line)));
            }
            if closing(self.rest).is_none() {
                self.token(blanks > 0)?;
            }
        }
    }

    fn token(&mut self, is_spaced: bool) -> Result<(), Error> {
        let Some(first) = self.rest.chars().next() else {
            return Ok(());
        };
        let (token, n_bytes) = match first {
            '"' => self.quoted()?,
            '`' => self.raw()?,
            '\'' => self.character()?,
            '|' | '(' | ')' | ',' => (Token::Punct(first), 1),
            '=' => (Token::Assign, 1),
            ':' if self.rest.starts_with(":=") => (Token::Declare, 2),
            ':' => return Err(error(self.line, "expected :=")),
            '$' => {
                let name = &self.rest[..1 + word_length(&self.rest[1..])];
                (Token::Variable(name.to_string()), name.len())
            }
            '.' if !self.rest[1..].starts_with(|c: char| c.is_ascii_digit()) => {
                let name = &self.rest[1..1 + word_length(&self.rest[1..])];
                match name {
                    "" => (Token::Dot, 1),
                    name => (Token::Field(name.to_string()), 1 + name.len()),
                }
            }
            '+' | '-' | '.' | '0'..='9' => self.number()?,
            c if c.is_alphabetic() || c == '_' => {
                let word = &self.rest[..word_length(self.rest)];
                (Token::Word(word.to_string()), word.len())
            }
            c => {
                let message = format!("unexpected \"{c}\" in command");
                return Err(error(self.line, message));
            }
        };
        self.push(token, is_spaced);
        self.advance(n_bytes);
        Ok(())
    }

    fn raw(&self) -> Result<(Token, usize), Error> {
        match self.rest[1..].find('`') {
            Some(end) => Ok((Token::Str(self.rest[1..1 + end].replace('\r', "")), end + 2)),
            None => Err(error(self.line, "unterminated raw quoted string")),
        }
    }

    fn quoted(&self) -> Result<(Token, usize), Error> {
        let (text, n_bytes) = unquote(self.rest, '"')
            .ok_or_else(|| error(self.line, "unterminated quoted string"))?;
        Ok((Token::Str(text), n_bytes))
    }

    fn character(&self) -> Result<(Token, usize), Error> {
        let found = unquote(self.rest, '\'').and_then(|(text, n_bytes)| {
            let mut chars = text.chars();
            let first = chars.next()?;
            chars
                .next()
                .is_none()
                .then_some((Token::Int(i64::from(u32::from(first))), n_bytes))
        });
        found.ok_or_else(|| error(self.line, "unterminated character constant"))
    }

    fn number(&self) -> Result<(Token, usize), Error> {
        let is_part = |(i, c): (usize, char)| match c {
            '+' | '-' => i == 0 || self.rest[..i].ends_with(['e', 'E', 'p']),
            c => c.is_alphanumeric() || c == '.' || c == '_',
        };
        let end = self.rest.char_indices().find(|&part| !is_part(part));
        let n_bytes = end.map_or(self.rest.len(), |(i, _)| i);
        let text = &self.rest[..n_bytes];
        let token = integer(text).map(Token::Int).or_else(|| {
            let number = text.replace('_', "").parse::<f64>().ok();
            number.filter(|n| n.is_finite()).map(Token::Float)
        });
        let what = if text.len() == 1 { "illegal" } else { "bad" };
        let message = || error(self.line, format!("{what} number syntax: {text:?}"));
        let token = token.ok_or_else(message)?;
        Ok((token, n_bytes))
    }
}

/// An integer in Go's notation: decimal, or with a base prefix.
fn integer(text: &str) -> Option<i64> {
    let text = text.replace('_', "");
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", text.strip_prefix('+').unwrap_or(&text)),
    };
    let lower = digits.to_ascii_lowercase();
    let bases = [("0x", 16), ("0o", 8), ("0b", 2)];
    let (digits, base) = bases
        .iter()
        .find_map(|(prefix, base)| lower.strip_prefix(prefix).map(|digits| (digits, *base)))
        .unwrap_or((&lower, 10));
    i64::from_str_radix(&format!("{sign}{digits}"), base).ok()
}

fn unclosed(first_line: usize, line: usize) -> String {
    match first_line == line {
        true => "unclosed action".into(),
        false => format!("unclosed action started at :{first_line}"),
    }
}

/// The end of an action, if it is next: its length in bytes, and whether it trims.
fn closing(rest: &str) -> Option<(usize, bool)> {
    if rest.starts_with("}}") {
        return Some((2, false));
    }
    let trimmed = rest.trim_start_matches(BLANKS);
    let n_blanks = rest.len() - trimmed.len();
    (n_blanks > 0 && trimmed.starts_with("-}}")).then_some((n_blanks + 3, true))
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_')
        .unwrap_or(text.len())
}

/// A quoted constant at the start of `text`: its value and its length with both quotes.
fn unquote(text: &str, quote: char) -> Option<(String, usize)> {
    let mut out = String::new();
    let mut chars = text.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            c if c == quote => return Some((out, at + 1)),
            '\n' => return None,
            '\\' => out.push(escape(&mut chars.by_ref().map(|(_, c)| c))?),
            c => out.push(c),
        }
    }
    None
}

/// The character that an escape after its backslash stands for.
fn escape(chars: &mut dyn Iterator<Item = char>) -> Option<char> {
    let n_digits = match chars.next()? {
        'n' => return Some('\n'),
        't' => return Some('\t'),
        'r' => return Some('\r'),
        'a' => return Some('\x07'),
        'b' => return Some('\x08'),
        'f' => return Some('\x0c'),
        'v' => return Some('\x0b'),
        '0' => return Some('\0'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        c @ ('\\' | '"' | '\'') => return Some(c),
        _ => return None,
    };
    let digits = chars.take(n_digits).collect::<String>();
    u32::from_str_radix(&digits, 16)
        .ok()
        .and_then(char::from_u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(source: &str) -> Vec<Token> {
        lex(source)
            .lexemes
            .into_iter()
            .map(|lexeme| lexeme.token)
            .collect()
    }

    #[test]
    fn trim_markers_take_all_blanks() {
        use Token::*;
        let text = |t: &str| Text(t.to_string());
        assert_eq!(
            tokens("a \n {{- .}} b"),
            [text("a"), Open, Dot, Close, text(" b")]
        );
        assert_eq!(
            tokens("a {{. -}}\n\n b"),
            [text("a "), Open, Dot, Close, text("b")]
        );
        assert_eq!(tokens("é {{-\t/* x */ -}} b"), [text("é"), text("b")]);
        assert_eq!(tokens("{{-3}}"), [Open, Int(-3), Close]);
    }

    #[test]
    fn operands_are_read() {
        use Token::*;
        let source = "{{ $x := printf \"%d\\n\\u00e9\" 0x1F 1.5 'a' `raw\\n` (.A.B) }}";
        let expected = [
            Open,
            Variable("$x".into()),
            Declare,
            Word("printf".into()),
            Str("%d\né".into()),
            Int(31),
            Float(1.5),
            Int(97),
            Str("raw\\n".into()),
            Punct('('),
            Field("A".into()),
            Field("B".into()),
            Punct(')'),
            Close,
        ];
        assert_eq!(tokens(source), expected);
    }

    #[test]
    fn errors_have_gos_words_and_the_line() {
        let message = |source| lex(source).error.unwrap().to_string();
        assert_eq!(message("{{ .Foo"), "template: :1: unclosed action");
        assert_eq!(
            message("{{ .Foo\n"),
            "template: :2: unclosed action started at :1"
        );
        assert_eq!(
            message("a\n{{ \"x }}"),
            "template: :2: unterminated quoted string"
        );
        assert_eq!(message("{{/* x }}"), "template: :1: unclosed comment");
    }
}
