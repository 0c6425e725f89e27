//! Launches side by side: those that need nothing of each other share a dispatch, since what a step of single tokens
//! costs beside its weights is the number of its dispatches.

use super::Program;
use crate::backend::Rows;
use crate::gpu::joined::{Axes, Joiner};
use crate::gpu::launch::{Extent, Launch, Slot};

/// Bytes of workgroup memory that every adapter has.
const WORKGROUP_BYTES: usize = 16 << 10;
/// Workgroups along an axis that every adapter takes.
const MAX_GROUPS: usize = 65535;
/// Dispatches that a launch may overtake.
const LOOK_BACK: usize = 8;

/// What one dispatch does: launches of the program, and the launch that stands for them.
#[derive(Debug, Clone)]
pub(in crate::gpu) struct Joint {
    pub launch: Launch,
    pub members: Vec<usize>,
}

/// A dispatch to be, with what its members have in common.
struct Group {
    members: Vec<usize>,
    /// None where it cannot have more members.
    shape: Option<Shape>,
}

/// What decides whether launches fit beside each other.
struct Shape {
    rows: Rows,
    invocations: usize,
    workgroup_bytes: usize,
    n_groups: usize,
}

impl Shape {
    fn of(launch: &Launch) -> Option<Shape> {
        let (workgroup_bytes, invocations) = launch.shader.as_joinable()?;
        let rows = launch.grid.iter().find_map(|extent| match extent {
            Extent::Rows(rows, _) => Some(*rows),
            _ => None,
        });
        Some(Shape {
            rows: rows?,
            invocations,
            workgroup_bytes,
            n_groups: Axes::of(&launch.grid)?.n_groups(),
        })
    }

    fn beside(&self, other: &Shape) -> Option<Shape> {
        let sum = Shape {
            workgroup_bytes: self.workgroup_bytes + other.workgroup_bytes,
            n_groups: self.n_groups + other.n_groups,
            ..*self
        };
        let fits = (self.rows, self.invocations) == (other.rows, other.invocations)
            && sum.workgroup_bytes <= WORKGROUP_BYTES
            && sum.n_groups <= MAX_GROUPS;
        fits.then_some(sum)
    }
}

/// The dispatches of a program whose launches may bind `most_bindings` buffers. A launch goes beside the earliest ones
/// that it fits beside and does not depend on, nor on anything after them.
pub(super) fn joints(program: &Program, most_bindings: usize) -> Vec<Joint> {
    let launches = &program.launches;
    let mut groups: Vec<Group> = Vec::new();
    for (i, launch) in launches.iter().enumerate() {
        let shape = Shape::of(launch);
        let mut home = None;
        for (g, group) in groups.iter().enumerate().rev().take(LOOK_BACK) {
            if group
                .members
                .iter()
                .any(|&m| conflict(&launches[m], launch))
            {
                break;
            }
            let (Some(own), Some(theirs)) = (&shape, &group.shape) else {
                continue;
            };
            if let Some(sum) = theirs.beside(own)
                && n_bindings(group.members.iter().chain([&i]).map(|&m| &launches[m]))
                    <= most_bindings
            {
                home = Some((g, sum));
            }
        }
        match home {
            Some((g, sum)) => {
                groups[g].members.push(i);
                groups[g].shape = Some(sum);
            }
            None => groups.push(Group {
                members: vec![i],
                shape,
            }),
        }
    }
    let mut joiner = Joiner::default();
    let joints = groups.into_iter();
    joints
        .map(|group| group.joint(launches, &mut joiner))
        .collect()
}

/// Bindings of launches side by side, at most: what the same kernels bind at the same places is one, but for the first,
/// whose type their parts decide.
fn n_bindings<'a>(launches: impl Iterator<Item = &'a Launch>) -> usize {
    let mut seen = Vec::new();
    for launch in launches {
        for (place, binding) in launch.bindings.iter().enumerate() {
            let key = (binding, launch.shader.name(), place);
            if place == 0 || !seen.contains(&key) {
                seen.push(key);
            }
        }
    }
    seen.len()
}

/// Whether one writes what the other reads or writes.
fn conflict(a: &Launch, b: &Launch) -> bool {
    let shared = |slot: Slot| b.bindings.iter().filter(move |other| other.slot == slot);
    a.bindings
        .iter()
        .any(|own| shared(own.slot).any(|other| own.writes || other.writes))
}

impl Group {
    fn joint(self, launches: &[Launch], joiner: &mut Joiner) -> Joint {
        let launch = match (&self.members[..], &self.shape) {
            ([alone], _) => launches[*alone].clone(),
            (members, shape) => {
                let shape = shape.as_ref().expect("members that fit beside each other");
                let members: Vec<(&Launch, Axes)> = members
                    .iter()
                    .map(|&m| (&launches[m], Axes::of(&launches[m].grid).expect("as above")))
                    .collect();
                let (shader, bindings) = joiner.join(&members, shape.invocations);
                // Members with several rows to a workgroup leave those past their last.
                let per = members.iter().flat_map(|(launch, _)| launch.grid);
                let per = per.filter_map(|extent| match extent {
                    Extent::Rows(_, per) => Some(per),
                    _ => None,
                });
                Launch {
                    shader,
                    bindings,
                    grid: [
                        Extent::Fixed(shape.n_groups),
                        Extent::Fixed(1),
                        Extent::Rows(shape.rows, per.min().unwrap_or(1)),
                    ],
                }
            }
        };
        Joint {
            launch,
            members: self.members,
        }
    }
}
