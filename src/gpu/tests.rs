//! Every shader that `dispatch` can ask for, without a device: naga validates it, writes it for
//! Vulkan, Metal and DX12, and its bindings are those that the launch sends.

mod experts;
mod inlining;
mod plans;

use std::collections::BTreeMap;

use naga::back::{hlsl, msl, spv};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::arithmetic::Arithmetic;
use super::buffer::WeightShape;
use super::device::{Reduction, Tuning};
use super::dispatch::{self, Dispatch};
use super::launch::Launch;
use crate::backend::{
    BatchShape, BufferId, CacheSpec, KV_BLOCK, KvDims, KvType, Op, Phase, Plan, RopeOrder,
    StateSpec,
};
use crate::quant::QuantType;
use plans::{
    COLS, DELTA_HEADS, ROWS, attended, beside_plan, norm_rope_kv_plan, other_plans, rope_kv_plan,
    view, weight, weight_plans,
};

const TUNINGS: [Tuning; 5] = [
    tuning(Reduction::Memory, false, (false, false)),
    tuning(Reduction::Subgroups, false, (true, true)),
    tuning(Reduction::MadeSubgroups(128), false, (false, true)),
    tuning(Reduction::Subgroups, true, (false, false)),
    tuning(Reduction::Memory, true, (true, false)),
];

const fn tuning(reduction: Reduction, software: bool, used: (bool, bool)) -> Tuning {
    let (integers, halves) = used;
    Tuning {
        reduction,
        software,
        arithmetic: Arithmetic { integers, halves },
        max_bindings: 16,
    }
}

/// The launches of every plan above, by their text.
fn all_launches() -> BTreeMap<String, Launch> {
    let mut launches = BTreeMap::new();
    let mut add = |plan: &Plan, weights: &[WeightShape], cache: &CacheSpec| {
        for tuning in TUNINGS {
            let dispatch = Dispatch {
                plan,
                weights,
                cache: Some(cache),
                tuning,
            };
            let program = dispatch::program(&dispatch).expect("a valid plan");
            let joints = program.joints.into_iter().map(|joint| joint.launch);
            let all = program.launches.into_iter().chain(joints);
            launches.extend(all.map(|l| (l.shader.source(), l)));
        }
    };
    let shapes = [(Phase::Decode, 1), (Phase::Decode, 5), (Phase::Prefill, 64)];
    for (phase, n) in shapes {
        let shape = BatchShape {
            phase,
            n_tokens: n,
            n_outputs: n,
        };
        for kv_type in KvType::ALL {
            let whole = |kv: &KvDims| kv.keys.is_multiple_of(KV_BLOCK) || !kv_type.is_quantised();
            let plans = other_plans(shape).into_iter();
            for (plan, weights, kv) in plans.filter(|(_, _, kv)| whole(kv)) {
                let cache = CacheSpec {
                    kv_type,
                    n_pages: 4,
                    layers: vec![kv],
                    n_sequences: 5,
                    states: [3 * 512, DELTA_HEADS.state_size()]
                        .map(|size| StateSpec { layer: 0, size })
                        .to_vec(),
                };
                add(&plan, &weights, &cache);
            }
        }
        let cache = CacheSpec {
            kv_type: KvType::F16,
            n_pages: 1,
            layers: vec![],
            ..CacheSpec::default()
        };
        for quant in QuantType::all() {
            for (plan, weights) in weight_plans(shape, quant) {
                add(&plan, &weights, &cache);
            }
        }
    }
    launches
}

/// What is wrong with a shader, if anything.
fn problem(source: &str, launch: &Launch) -> Option<String> {
    let module = match naga::front::wgsl::parse_str(source) {
        Ok(module) => module,
        Err(e) => return Some(e.emit_to_string(source)),
    };
    // Where there is no such type, half floats are unpacked by a function of the core language.
    let mut capabilities = Capabilities::SUBGROUP | Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    capabilities.set(
        Capabilities::SHADER_FLOAT16,
        source.starts_with("enable f16;"),
    );
    let mut validator = Validator::new(ValidationFlags::all(), capabilities);
    validator
        .subgroup_stages(naga::valid::ShaderStages::COMPUTE)
        .subgroup_operations(naga::valid::SubgroupOperationSet::all());
    let info = match validator.validate(&module) {
        Ok(info) => info,
        Err(e) => return Some(e.emit_to_string(source)),
    };
    bindings_problem(&module, launch)
        .or_else(|| memory_problem(&module))
        .or_else(|| inlining::problem(&module))
        .or_else(|| translation_problem(&module, &info))
}

/// Bindings must be numbered as the launch sends them, and written where it says so.
fn bindings_problem(module: &naga::Module, launch: &Launch) -> Option<String> {
    let mut declared = BTreeMap::new();
    for (_, variable) in module.global_variables.iter() {
        let (Some(binding), naga::AddressSpace::Storage { access }) =
            (variable.binding, variable.space)
        else {
            continue;
        };
        let writes = access.contains(naga::StorageAccess::STORE);
        declared.insert(binding.binding, writes);
    }
    let sent = launch.bindings.iter().enumerate();
    let sent: BTreeMap<u32, bool> = sent.map(|(i, b)| (i as u32, b.writes)).collect();
    (declared != sent).then(|| format!("declares {declared:?}, is sent {sent:?}"))
}

/// Workgroups must fit the limits that every adapter has.
fn memory_problem(module: &naga::Module) -> Option<String> {
    let mut layouter = naga::proc::Layouter::default();
    if let Err(e) = layouter.update(module.to_ctx()) {
        return Some(e.to_string());
    }
    let variables = module.global_variables.iter();
    let bytes: u32 = variables
        .filter(|(_, v)| v.space == naga::AddressSpace::WorkGroup)
        .map(|(_, v)| layouter[v.ty].size)
        .sum();
    let [x, y, z] = module.entry_points[0].workgroup_size;
    let too_large = bytes > 16 << 10 || x * y * z > 256;
    too_large.then(|| format!("{bytes} bytes of workgroup memory, {x} x {y} x {z} invocations"))
}

fn translation_problem(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Option<String> {
    let spirv = spv::Options {
        lang_version: (1, 3),
        ..Default::default()
    };
    if let Err(e) = spv::write_vec(module, info, &spirv, None) {
        return Some(format!("SPIR-V: {e}"));
    }
    let metal = msl::Options {
        lang_version: (2, 4),
        fake_missing_bindings: true,
        ..Default::default()
    };
    if let Err(e) = msl::write_string(module, info, &metal, &msl::PipelineOptions::default()) {
        return Some(format!("MSL: {e}"));
    }
    let direct = hlsl::Options {
        shader_model: hlsl::ShaderModel::V6_2,
        fake_missing_bindings: true,
        ..Default::default()
    };
    let mut text = String::new();
    let options = hlsl::PipelineOptions::default();
    let mut writer = hlsl::Writer::new(&mut text, &direct, &options);
    writer
        .write(module, info, None)
        .err()
        .map(|e| format!("HLSL: {e}"))
}

#[test]
fn every_shader_is_valid_on_every_api() {
    let launches = all_launches();
    let problems: Vec<String> = launches
        .iter()
        .filter_map(|(source, launch)| {
            problem(source, launch).map(|p| format!("{}: {p}", launch.shader.name()))
        })
        .collect();
    let shown: Vec<_> = problems.iter().take(10).map(String::as_str).collect();
    assert!(
        problems.is_empty(),
        "{} of {} shaders:\n{}",
        problems.len(),
        launches.len(),
        shown.join("\n")
    );
    assert!(launches.len() > 300, "only {} shaders", launches.len());
}

/// Where a buffer between the ops is read afterwards, it must be written.
#[test]
fn a_run_of_ops_is_one_launch_unless_others_read_between() {
    let shape = BatchShape {
        phase: Phase::Decode,
        n_tokens: 1,
        n_outputs: 1,
    };
    let cache = CacheSpec {
        kv_type: KvType::F16,
        n_pages: 4,
        layers: vec![KvDims {
            keys: 128,
            values: 128,
        }],
        ..CacheSpec::default()
    };
    let scales = [weight(QuantType::F32, 64, 1, 1)];
    let names = |plan: &Plan| -> Vec<&str> {
        let program = dispatch::program(&Dispatch {
            plan,
            weights: &scales,
            cache: Some(&cache),
            tuning: TUNINGS[0],
        });
        let launches = program.expect("a valid plan").launches;
        launches.iter().map(|l| l.shader.name()).collect()
    };
    let mut plan = rope_kv_plan(shape, (64, 64), 2, RopeOrder::Norm);
    assert_eq!(names(&plan), ["rope_kv"]);
    plan.outputs = vec![BufferId(2)];
    assert_eq!(names(&plan), ["rope", "rope", "kv_write"]);
    plan.outputs = vec![];
    plan.ops.push(Op::SoftCap {
        input: view(2, 0, 128),
        cap: 1.0,
        out: BufferId(1),
    });
    assert_eq!(names(&plan), ["rope", "rope", "kv_write", "soft_cap"]);
    let mut plan = norm_rope_kv_plan(shape, (64, 64), 2, RopeOrder::Norm);
    assert_eq!(names(&plan), ["norm_rope_kv"]);
    plan.outputs = vec![BufferId(4)];
    let apart = ["rms_norm", "rope", "rms_norm", "rope", "kv_write"];
    assert_eq!(names(&plan), apart);
    // Attention itself begins with all that.
    let attend = ["attention_decode", "attention_merge"];
    let plan = norm_rope_kv_plan(shape, (64, 64), 2, RopeOrder::Norm);
    let mut plan = attended(plan, (64, 64), 2);
    assert_eq!(names(&plan), attend);
    plan.outputs = vec![BufferId(4)];
    assert_eq!(names(&plan), [&["rms_norm"][..], &attend].concat());
    // Two workgroups with heads of one key head would both write it.
    let dims = (64, 64);
    let plan = attended(rope_kv_plan(shape, dims, 22, RopeOrder::Norm), dims, 22);
    assert_eq!(names(&plan), [&["rope_kv"][..], &attend].concat());
}

/// What each dispatch does.
fn side_by_side(plan: &Plan, weights: &[WeightShape], tuning: Tuning) -> Vec<String> {
    let program = dispatch::program(&Dispatch {
        plan,
        weights,
        cache: None,
        tuning,
    });
    let program = program.expect("a valid plan");
    let name = |&i: &usize| program.launches[i].shader.name();
    let joints = program.joints.iter();
    joints
        .map(|joint| joint.members.iter().map(name).collect::<Vec<_>>().join("+"))
        .collect()
}

#[test]
fn launches_that_need_nothing_of_each_other_stand_side_by_side() {
    let decode = BatchShape {
        phase: Phase::Decode,
        n_tokens: 1,
        n_outputs: 1,
    };
    let prefill = BatchShape {
        phase: Phase::Prefill,
        ..decode
    };
    let quants = [
        (QuantType::Q4_K, ROWS),
        (QuantType::F32, 1),
        (QuantType::F32, 1),
        (QuantType::F32, ROWS),
    ];
    let weights = quants.map(|(quant, rows)| weight(quant, COLS, rows, rows));
    let plan = beside_plan(decode, COLS);
    let joined = ["matmul_vec+matmul_vec", "moe_route+soft_cap"];
    assert_eq!(side_by_side(&plan, &weights, TUNINGS[0]), joined);
    // Not where the adapter binds fewer buffers, nor where a result lies in what the other reads.
    let apart = ["matmul_vec", "matmul_vec", "moe_route", "soft_cap"];
    let few = Tuning {
        max_bindings: 7,
        ..TUNINGS[0]
    };
    assert_eq!(side_by_side(&plan, &weights, few), apart);
    let mut shared = plan.clone();
    shared.buffers[5].storage = shared.buffers[3].storage;
    let expected = ["matmul_vec+matmul_vec", "moe_route", "soft_cap"];
    assert_eq!(side_by_side(&shared, &weights, TUNINGS[0]), expected);
    // Prompts fill a device with one launch, and a CPU that plays a GPU has little of a launch.
    let kernels = side_by_side(&beside_plan(prefill, COLS), &weights, TUNINGS[0]);
    assert!(
        kernels.iter().all(|kernel| !kernel.contains('+')),
        "{kernels:?}"
    );
    let kernels = side_by_side(&plan, &weights, TUNINGS[4]);
    assert!(
        kernels.iter().all(|kernel| !kernel.contains('+')),
        "{kernels:?}"
    );
}

/// A forgotten part must show as an error that names the missing function.
#[test]
fn a_forgotten_part_is_noticed() {
    let mut launches = all_launches().into_values();
    let mut launch = launches
        .find(|l| l.shader.name() == "matmul_vec")
        .expect("a product");
    let source = launch.shader.source().replace("fn fma4(", "fn other(");
    let found = problem(&source, &launch).expect("an error");
    assert!(found.contains("fma4"), "{found}");
    launch.bindings.pop();
    let found = problem(&launch.shader.source(), &launch).expect("an error");
    assert!(found.contains("is sent"), "{found}");
}
