//! Texts of several shaders as one.

use super::*;
use crate::gpu::launch::{Slot, reads, writes};

const SOURCE: &str = "enable f16;
const WG: u32 = 64u;
// A comment with var<private> names.
@group(0) @binding(0) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
struct Pair {
    x: f32,
    y: f32,
}
var<workgroup> sums: array<f32, WG>;
fn first(pair: Pair) -> f32 {
    return pair.x;
}
@compute @workgroup_size(WG)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    out[id.x] = first(Pair(x[id.x].x, 0.0));
}
";

#[test]
fn names_are_told_apart_and_fields_are_not() {
    let mut bindings = Bindings::default();
    let member = Member::read(SOURCE, 1, &[5, 6], &mut bindings);
    let text: String = member.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "const WG_1: u32 = 64u; struct Pair_1 { x: f32, y: f32, } \
            var<workgroup> sums_1: array<f32, WG_1>; \
            fn first_1(pair: Pair_1) -> f32 { return pair.x; } \
            fn main_1( id: vec3<u32>) { bound_1[id.x] = first_1(Pair_1(bound_0[id.x].x, 0.0)); }";
    assert_eq!(text, expected);
    let id = ("global_invocation_id".to_owned(), "vec3<u32>".to_owned());
    assert_eq!((member.builtins, member.structure), (vec![id], None));
    let bound = [
        (5, "array<vec4<f32>>".to_owned()),
        (6, "array<f32>".to_owned()),
    ];
    assert_eq!(bindings.all, bound);
    // A second member binds the same thing as the same type, and another type as something else.
    let again = SOURCE.replace("vec4<f32>>", "f32>");
    Member::read(&again, 2, &[5, 7], &mut bindings);
    let more = [(5, "array<f32>".to_owned()), (7, "array<f32>".to_owned())];
    assert_eq!(bindings.all[2..], more);
}

#[test]
fn workgroups_know_their_place_along_every_axis() {
    let rows = Extent::Rows(crate::backend::Rows::Tokens, 1);
    let fixed = Extent::Fixed;
    let group = |grid| Axes::of(&grid).map(|axes| axes.group("i"));
    let last = group([fixed(7), fixed(2), rows]);
    assert_eq!(last.as_deref(), Some("vec3<u32>(i % 7u, i / 7u, group.z)"));
    let second = group([fixed(7), rows, fixed(1)]);
    assert_eq!(
        second.as_deref(),
        Some("vec3<u32>(i % 7u, group.z, i / 7u)")
    );
    assert_eq!(group([fixed(7), fixed(2), fixed(1)]), None);
    assert_eq!(group([fixed(7), rows, Extent::Splits(0)]), None);
}

/// Layers that do the same on other buffers have one shader.
#[test]
fn a_shader_is_written_once() {
    let shader = Shader::new("kernels/add").number("WG", 64);
    let launch = |a, b, out| Launch {
        shader: shader.clone(),
        bindings: vec![
            reads(Slot::Storage(a)),
            reads(Slot::Storage(b)),
            reads(Slot::Batch),
            writes(Slot::Storage(out)),
        ],
        grid: [
            Extent::Fixed(3),
            Extent::Rows(crate::backend::Rows::Tokens, 1),
            Extent::Fixed(1),
        ],
    };
    let mut joiner = Joiner::default();
    let bound = |joiner: &mut Joiner, a: Launch, b: Launch| {
        let axes = |launch: &Launch| Axes::of(&launch.grid).expect("an axis of rows");
        let (_, bindings) = joiner.join(&[(&a, axes(&a)), (&b, axes(&b))], 64);
        bindings.iter().map(|b| b.slot).collect::<Vec<_>>()
    };
    let slots = |numbers: [usize; 5]| {
        let [a, b, out, c, second] = numbers.map(Slot::Storage);
        vec![a, b, Slot::Batch, out, c, second]
    };
    assert_eq!(
        bound(&mut joiner, launch(0, 1, 2), launch(0, 3, 4)),
        slots([0, 1, 2, 3, 4])
    );
    assert_eq!(
        bound(&mut joiner, launch(5, 6, 7), launch(5, 8, 9)),
        slots([5, 6, 7, 8, 9])
    );
    assert_eq!(joiner.known.len(), 1);
    bound(&mut joiner, launch(5, 6, 7), launch(4, 8, 9));
    assert_eq!(joiner.known.len(), 2);
}
