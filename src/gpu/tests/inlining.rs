//! What a driver that inlines every call makes of a shader. A return from inside a branch becomes a
//! loop of one round at every call; SwiftShader needs minutes and gigabytes for 32 of them.

use naga::{Block, Function, Handle, Module, Statement};

/// Inlined calls of one function that returns from inside a branch, at most.
const MOST_CALLS: usize = 16;

/// The function that is inlined too often for its way of returning, if there is one.
pub(super) fn problem(module: &Module) -> Option<String> {
    let main = &module.entry_points[0].function.body;
    let (handle, n) = module
        .functions
        .iter()
        .filter(|(_, function)| returns_early(&function.body, false))
        .map(|(handle, _)| (handle, n_calls(module, main, handle)))
        .find(|(_, n)| *n > MOST_CALLS)?;
    let name = module.functions[handle].name.as_deref().unwrap_or("?");
    Some(format!(
        "`{name}` returns inside a branch and is inlined {n} times"
    ))
}

/// Whether a block returns from inside a branch or a loop.
fn returns_early(block: &Block, nested: bool) -> bool {
    block.iter().any(|statement| match statement {
        Statement::Return { .. } => nested,
        statement => blocks(statement).iter().any(|block| match statement {
            Statement::Block(_) => returns_early(block, nested),
            _ => returns_early(block, true),
        }),
    })
}

/// How often a block calls a function, itself and through others.
fn n_calls(module: &Module, block: &Block, of: Handle<Function>) -> usize {
    let calls = block.iter().map(|statement| match statement {
        Statement::Call { function, .. } if *function == of => 1,
        Statement::Call { function, .. } => n_calls(module, &module.functions[*function].body, of),
        statement => blocks(statement)
            .iter()
            .map(|block| n_calls(module, block, of))
            .sum(),
    });
    calls.sum()
}

/// The blocks inside a statement.
fn blocks(statement: &Statement) -> Vec<&Block> {
    match statement {
        Statement::Block(block) => vec![block],
        Statement::If { accept, reject, .. } => vec![accept, reject],
        Statement::Switch { cases, .. } => cases.iter().map(|case| &case.body).collect(),
        Statement::Loop {
            body, continuing, ..
        } => vec![body, continuing],
        _ => vec![],
    }
}

#[test]
fn a_return_inside_a_branch_is_noticed_where_it_is_inlined_often() {
    let calls = |n: usize| {
        let early = "fn f(a: f32) -> f32 { if (a > 1.0) { return 0.0; } return a; }";
        let main = format!(
            "@compute @workgroup_size(1) fn main() {{ var s = 0.0; {} }}",
            "s += f(s);".repeat(n)
        );
        naga::front::wgsl::parse_str(&format!("{early} {main}")).expect("a valid shader")
    };
    assert_eq!(problem(&calls(MOST_CALLS)), None);
    let found = problem(&calls(MOST_CALLS + 1)).expect("one too many");
    assert_eq!(found, "`f` returns inside a branch and is inlined 17 times");
}
