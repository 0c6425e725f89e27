//! One shader of several: launches that need nothing of each other share a dispatch, each with workgroups of its own.
//!
//! The text of every member goes in whole, its names at module scope told apart by a suffix; what the members bind is
//! numbered anew. It reads the WGSL of `shaders/` and not all there is: declarations begin lines, and a kernel takes an
//! `Invocation` or built-in values.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::launch::{Binding, Extent, Launch};
use super::shader::Shader;

/// Which of a workgroup's three numbers a member has from the axes along which it has a fixed number of workgroups, and
/// which from the one along which it has its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Axes {
    /// Workgroups along the two axes that are fixed, the first one first.
    fixed: [usize; 2],
    /// The axis of rows.
    rows: usize,
}

impl Axes {
    /// Those of a grid with one axis of rows, if it is such a grid.
    pub fn of(grid: &[Extent; 3]) -> Option<Axes> {
        let mut fixed = Vec::new();
        let mut rows = None;
        for (axis, extent) in grid.iter().enumerate() {
            match extent {
                Extent::Fixed(n) => fixed.push(*n),
                Extent::Rows(..) if rows.is_none() => rows = Some(axis),
                _ => return None,
            }
        }
        Some(Axes {
            fixed: fixed.try_into().ok()?,
            rows: rows?,
        })
    }

    /// Workgroups for a row.
    pub fn n_groups(self) -> usize {
        self.fixed[0] * self.fixed[1]
    }

    /// The workgroup's numbers as the member knows them, from `index` among its own and the shader's `group.z`.
    fn group(self, index: &str) -> String {
        let mut numbers = vec![
            format!("{index} % {}u", self.fixed[0]),
            format!("{index} / {}u", self.fixed[0]),
        ];
        numbers.insert(self.rows, "group.z".into());
        format!("vec3<u32>({})", numbers.join(", "))
    }
}

/// Shaders that were joined, since all layers of a kind want the same ones.
#[derive(Default)]
pub(super) struct Joiner {
    known: HashMap<Key, Joined>,
}

/// What decides about the text.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    sources: Vec<String>,
    axes: Vec<Axes>,
    /// Of all members' bindings the first ones that are the same.
    same: Vec<usize>,
}

/// A shader, and which of all members' bindings it has.
#[derive(Clone)]
struct Joined {
    shader: Shader,
    bindings: Vec<usize>,
}

impl Joiner {
    /// The shader that does what these launches do, each on workgroups of its own along the first axis, and what it
    /// binds. All have workgroups of `workgroup` invocations.
    pub fn join(
        &mut self,
        members: &[(&Launch, Axes)],
        workgroup: usize,
    ) -> (Shader, Vec<Binding>) {
        let all: Vec<Binding> = members
            .iter()
            .flat_map(|(l, _)| l.bindings.clone())
            .collect();
        let first = |binding| all.iter().position(|other| other == binding);
        let key = Key {
            sources: members.iter().map(|(l, _)| l.shader.source()).collect(),
            axes: members.iter().map(|(_, axes)| *axes).collect(),
            same: all.iter().filter_map(first).collect(),
        };
        let joined = match self.known.get(&key) {
            Some(known) => known.clone(),
            None => {
                let new = Joined::new(&key, members, &all, workgroup);
                self.known.entry(key).or_insert(new).clone()
            }
        };
        let bindings = joined.bindings.iter().map(|&i| all[i]).collect();
        (joined.shader, bindings)
    }
}

impl Joined {
    fn new(key: &Key, members: &[(&Launch, Axes)], all: &[Binding], workgroup: usize) -> Joined {
        let mut bindings = Bindings::default();
        let mut first = 0;
        let mut parsed = Vec::new();
        for (i, (source, (launch, _))) in key.sources.iter().zip(members).enumerate() {
            let own = &key.same[first..first + launch.bindings.len()];
            parsed.push(Member::read(source, i, own, &mut bindings));
            first += launch.bindings.len();
        }
        let mut text = String::new();
        if members
            .iter()
            .any(|(launch, _)| launch.shader.has_half_floats())
        {
            text.push_str("enable f16;\n");
        }
        for (i, (binding, type_text)) in bindings.all.iter().enumerate() {
            let access = if all[*binding].writes {
                "read_write"
            } else {
                "read"
            };
            let _ = writeln!(
                text,
                "@group(0) @binding({i}) var<storage, {access}> bound_{i}: {type_text};"
            );
        }
        for member in &parsed {
            text.push_str(&member.text);
        }
        text.push_str(&entry_point(&parsed, &key.axes, workgroup));
        Joined {
            shader: Shader::joined(text),
            bindings: bindings
                .all
                .into_iter()
                .map(|(binding, _)| binding)
                .collect(),
        }
    }
}

/// What members bind, each thing once.
#[derive(Default)]
struct Bindings {
    /// By its place among all members' bindings, with the type that the shader gives it.
    all: Vec<(usize, String)>,
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
struct Member {
    text: String,
    /// The parameter of its `main`: fields of `Invocation`, or built-in values, by the name of the built-in.
    builtins: Vec<(String, String)>,
    /// What the parameter is made by, where it is a struct.
    structure: Option<String>,
}

/// `main`, which hands each workgroup to its member.
fn entry_point(parsed: &[Member], axes: &[Axes], workgroup: usize) -> String {
    let mut wanted = BTreeMap::from([
        ("workgroup_id", "vec3<u32>"),
        ("local_invocation_index", "u32"),
    ]);
    let all = parsed.iter().flat_map(|member| &member.builtins);
    wanted.extend(all.map(|(builtin, type_text)| (builtin.as_str(), type_text.as_str())));
    wanted.remove("global_invocation_id");
    let parameters: Vec<String> = wanted
        .iter()
        .map(|(builtin, type_text)| {
            format!("@builtin({builtin}) {}: {type_text}", parameter(builtin))
        })
        .collect();
    let mut text = format!(
        "@compute @workgroup_size({workgroup})\nfn main({}) {{\n",
        parameters.join(", ")
    );
    let mut first = 0;
    for (i, (member, axes)) in parsed.iter().zip(axes).enumerate() {
        let end = first + axes.n_groups();
        let arguments: Vec<String> = member
            .builtins
            .iter()
            .map(|(builtin, _)| match builtin.as_str() {
                "workgroup_id" => "own".to_owned(),
                "global_invocation_id" => {
                    format!("vec3<u32>(own.x * {workgroup}u + index, own.y, own.z)")
                }
                builtin => parameter(builtin).to_owned(),
            })
            .collect();
        let arguments = match &member.structure {
            Some(name) => format!("{name}({})", arguments.join(", ")),
            None => arguments.join(", "),
        };
        let _ = writeln!(
            text,
            "    if (group.x >= {first}u && group.x < {end}u) {{\n        let i = group.x - {first}u;\n        \
             let own = {};\n        main_{i}({arguments});\n    }}",
            axes.group("i")
        );
        first = end;
    }
    text.push_str("}\n");
    text
}

/// What the entry point calls a built-in value.
fn parameter(builtin: &str) -> &str {
    match builtin {
        "workgroup_id" => "group",
        "local_invocation_index" => "index",
        builtin => builtin,
    }
}

impl Member {
    /// Reads member `i`'s text and counts what it binds: its bindings by their places among all.
    fn read(source: &str, i: usize, places: &[usize], bindings: &mut Bindings) -> Member {
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
