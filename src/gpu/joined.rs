//! One shader of several: launches that need nothing of each other share a dispatch, each with workgroups of its own.
//!
//! The text of every member goes in whole, its names at module scope told apart by a suffix; what the members bind is
//! numbered anew.

mod member;

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

use super::launch::{Binding, Extent, Launch};
use super::shader::Shader;
use member::{Bindings, Member};

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

#[cfg(test)]
mod tests;
