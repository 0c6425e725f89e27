//! The text of one shader, made ready to stand beside others. It reads the WGSL of `shaders/` and not all there is: a kernel
//! takes an `Invocation` or built-in values, and what it binds has a declaration of its own.

use std::collections::BTreeMap;

/// What members bind, each thing once.
#[derive(Default)]
pub(super) struct Bindings {
    /// By its place among all members' bindings, with the type that the shader gives it.
    pub all: Vec<(usize, String)>,
}

impl Bindings {
    /// The number of a binding, new or not.
    fn number(&mut self, binding: usize, type_text: String) -> usize {
        let binding = (binding, type_text);
        self.all
            .iter()
            .position(|b| *b == binding)
            .unwrap_or_else(|| {
                self.all.push(binding);
                self.all.len() - 1
            })
    }
}

/// A member's text, ready to stand beside others.
pub(super) struct Member {
    pub text: String,
    /// The parameter of its `main`: fields of `Invocation`, or built-in values, by the name of the built-in.
    pub builtins: Vec<(String, String)>,
    /// What the parameter is made by, where it is a struct.
    pub structure: Option<String>,
}

impl Member {
    /// Reads member `i`'s text and counts what it binds: its bindings by their places among all.
    pub fn read(source: &str, i: usize, places: &[usize], bindings: &mut Bindings) -> Member {
        let tokens = tokens(source);
        let mut names: BTreeMap<&str, String> = declared(&tokens)
            .into_iter()
            .map(|name| (name, format!("{name}_{i}")))
            .collect();
        let mut text = String::new();
        let mut builtins = Vec::new();
        let mut structure = None;
        let mut at = 0;
        // Bindings go first: what they are called decides about the rest.
        let mut kept = Vec::new();
        while at < tokens.len() {
            let end = declaration_end(&tokens, at);
            let part = &tokens[at..end];
            at = end;
            let words = words(part);
            match words[..] {
                ["enable", ..] | [] => {}
                [
                    "@",
                    "group",
                    "(",
                    _,
                    ")",
                    "@",
                    "binding",
                    "(",
                    number,
                    ")",
                    "var",
                    "<",
                    ..,
                ] => {
                    let number: usize = number.parse().expect("bindings have numbers");
                    let colon = words
                        .iter()
                        .position(|w| *w == ":")
                        .expect("bindings have a type");
                    let type_words = &words[colon + 1..words.len() - 1];
                    let type_text: String = type_words.iter().map(|w| renamed(&names, w)).collect();
                    let joined = bindings.number(places[number], type_text);
                    names.insert(words[colon - 1], format!("bound_{joined}"));
                }
                _ => kept.push((part, words)),
            }
        }
        for (part, words) in &kept {
            match words[..] {
                ["struct", "Invocation", ..] => {
                    builtins = builtin_values(words);
                    structure = Some(format!("Invocation_{i}"));
                    write_part(&mut text, part, &names);
                }
                ["@", "compute", ..] => {
                    let own = builtin_values(words);
                    if !own.is_empty() {
                        (builtins, structure) = (own, None);
                    }
                    let from = part
                        .iter()
                        .position(|t| *t == "fn")
                        .expect("an entry point");
                    write_part(&mut text, &part[from..], &names);
                }
                _ => write_part(&mut text, part, &names),
            }
        }
        Member {
            text,
            builtins,
            structure,
        }
    }
}

fn renamed<'a>(names: &'a BTreeMap<&str, String>, word: &'a str) -> &'a str {
    names.get(word).map_or(word, String::as_str)
}

/// Writes a declaration with its names changed. What `main` is told loses its attributes: others call it.
fn write_part(text: &mut String, part: &[&str], names: &BTreeMap<&str, String>) {
    let is_struct = part.contains(&"struct");
    let mut at = 0;
    let mut before = "";
    let mut depth = 0;
    while at < part.len() {
        let token = part[at];
        if token == "@" && !is_struct {
            // `@`, the attribute, and its argument in brackets.
            at += 1 + part[at..]
                .iter()
                .position(|t| *t == ")")
                .expect("an attribute's end");
            continue;
        }
        match token {
            "{" | "(" => depth += 1,
            "}" | ")" => depth -= 1,
            _ => {}
        }
        let next = part[at + 1..].iter().find(|t| !t.trim().is_empty());
        let is_member = before == "." || is_struct && depth == 1 && next == Some(&":");
        text.push_str(if is_member {
            token
        } else {
            renamed(names, token)
        });
        if !token.trim().is_empty() {
            before = token;
        }
        at += 1;
    }
    text.push('\n');
}

/// The built-in values among fields or parameters, with their types, in order.
fn builtin_values(words: &[&str]) -> Vec<(String, String)> {
    let mut values = Vec::new();
    for at in 0..words.len() {
        if let ["@", "builtin", "(", builtin, ")", _, ":", ..] = words[at..] {
            let rest = &words[at + 7..];
            let mut depth = 0;
            let end = rest.iter().position(|word| {
                depth += i32::from(*word == "<") - i32::from(*word == ">");
                depth == 0 && matches!(*word, "," | ")" | "}") || depth < 0
            });
            let type_text = rest[..end.unwrap_or(rest.len())].concat();
            values.push((builtin.to_owned(), type_text));
        }
    }
    values
}

/// The end of the declaration that begins at token `at`: behind its `;`, or its last `}`.
fn declaration_end(tokens: &[&str], at: usize) -> usize {
    let mut depth = 0;
    for (i, token) in tokens.iter().enumerate().skip(at) {
        match *token {
            "{" | "(" => depth += 1,
            "}" | ")" => depth -= 1,
            _ => {}
        }
        if depth == 0 && matches!(*token, ";" | "}") {
            return i + 1;
        }
    }
    tokens.len()
}

/// The names that a text declares at module scope.
fn declared<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let end = declaration_end(tokens, at);
        let declaration = words(&tokens[at..end]);
        let keyword = |word: &&str| matches!(*word, "fn" | "var" | "const" | "struct" | "alias");
        if let Some(keyword) = declaration.iter().position(keyword) {
            let behind = &declaration[keyword + 1..];
            // `var<workgroup> name`: the space of addresses stands between.
            let space = behind.iter().position(|word| *word == ">");
            let space = space.filter(|_| behind.first() == Some(&"<"));
            names.extend(behind.get(space.map_or(0, |space| space + 1)));
        }
        at = end;
    }
    names
}

/// Tokens that are no white space.
fn words<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    let all = tokens.iter().copied();
    all.filter(|token| !token.trim().is_empty()).collect()
}

/// Names, numbers, white space and single signs, without comments.
fn tokens(source: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let lines = source
        .lines()
        .map(|line| line.split("//").next().unwrap_or(line));
    let mut tokens = Vec::new();
    for mut rest in lines {
        while let Some(first) = rest.chars().next() {
            let same = |c: char| match (is_word(first), first.is_whitespace()) {
                (true, _) => is_word(c),
                (_, true) => c.is_whitespace(),
                _ => false,
            };
            let end = rest.char_indices().skip(1).find(|(_, c)| !same(*c));
            let (token, behind) = rest.split_at(end.map_or(rest.len(), |(i, _)| i));
            tokens.push(token);
            rest = behind;
        }
        tokens.push(" ");
    }
    tokens
}
