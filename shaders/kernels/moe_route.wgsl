// The experts of each row: out = numbers of the N_USED chosen ones as floats, then their weights.
// scores [rows, N_EXPERTS], out [rows, 2 * N_USED]. A workgroup takes one row. An expert's place
// is the number of those that come before it: larger keys, equal ones by rising number.
// Needs: WG, N_EXPERTS, N_USED, N_GROUPS, N_GROUPS_USED, GATING (0: softmax, 1: sigmoid,
// 2: softmax of the chosen), NORMALISE, MIN_SUM, SCALE, HAS_BIAS, HAS_FACTORS, X_STRIDE, X_OFFSET, OUT_STRIDE,
// workgroup_sum and workgroup_max (parts/reduce_*), parts/batch. Twin: cpu route.
@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read> factors: array<f32>;
@group(0) @binding(3) var<storage, read> batch: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

const GROUP_SIZE: u32 = N_EXPERTS / N_GROUPS;
// What takes an expert out of the choice. Infinities are avoided since compilers may assume that
// there are none.
const LEFT_OUT: f32 = -1e30;

var<workgroup> weights: array<f32, N_EXPERTS>;
var<workgroup> keys: array<f32, N_EXPERTS>;
var<workgroup> group_sums: array<f32, N_GROUPS>;
var<workgroup> chosen: array<u32, N_USED>;

fn gate(invocation: Invocation) {
    let at = invocation.group.x * X_STRIDE + X_OFFSET;
    var largest = LEFT_OUT;
    for (var e = invocation.index; e < N_EXPERTS; e += WG) {
        largest = max(largest, x[at + e]);
    }
    largest = workgroup_max(invocation, largest);
    var sum = 0.0;
    for (var e = invocation.index; e < N_EXPERTS; e += WG) {
        let score = x[at + e];
        var weight = score;
        if (GATING == 0u) {
            weight = exp(score - largest);
            sum += weight;
        } else if (GATING == 1u) {
            // Past 80 the logistic function is 0 in 32 bits; the bound keeps exp from overflowing.
            weight = 1.0 / (1.0 + exp(min(-score, 80.0)));
        }
        weights[e] = weight;
    }
    sum = workgroup_sum(invocation, sum);
    for (var e = invocation.index; e < N_EXPERTS; e += WG) {
        if (GATING == 0u) {
            weights[e] /= sum;
        }
        keys[e] = weights[e];
        if (HAS_BIAS) {
            keys[e] += bias[e];
        }
    }
    workgroupBarrier();
}

// Leaves the best groups: those with the largest sums of their two largest keys.
fn leave_groups(index: u32) {
    for (var g = index; g < N_GROUPS; g += WG) {
        var first = LEFT_OUT;
        var second = LEFT_OUT;
        for (var e = g * GROUP_SIZE; e < (g + 1u) * GROUP_SIZE; e++) {
            let key = keys[e];
            if (key > first) {
                second = first;
                first = key;
            } else {
                second = max(second, key);
            }
        }
        group_sums[g] = first + select(second, 0.0, GROUP_SIZE == 1u);
    }
    workgroupBarrier();
    for (var g = index; g < N_GROUPS; g += WG) {
        var place = 0u;
        for (var h = 0u; h < N_GROUPS; h++) {
            let other = group_sums[h];
            if (other > group_sums[g] || (other == group_sums[g] && h < g)) {
                place++;
            }
        }
        if (place >= N_GROUPS_USED) {
            for (var e = g * GROUP_SIZE; e < (g + 1u) * GROUP_SIZE; e++) {
                keys[e] = LEFT_OUT;
            }
        }
    }
    workgroupBarrier();
}

fn choose(index: u32) {
    // Where keys are not numbers some places stay as they are here: every place names an expert.
    for (var u = index; u < N_USED; u += WG) {
        chosen[u] = u;
    }
    workgroupBarrier();
    for (var e = index; e < N_EXPERTS; e += WG) {
        var place = 0u;
        for (var other = 0u; other < N_EXPERTS; other++) {
            if (keys[other] > keys[e] || (keys[other] == keys[e] && other < e)) {
                place++;
            }
        }
        if (place < N_USED) {
            chosen[place] = e;
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WG)
fn main(invocation: Invocation) {
    let row = invocation.group.x;
    if (row >= n_rows()) {
        return;
    }
    gate(invocation);
    if (N_GROUPS > 1u) {
        leave_groups(invocation.index);
    }
    choose(invocation.index);
    var factor = SCALE;
    var largest = 0.0;
    if (GATING == 2u) {
        largest = weights[chosen[0]];
        var sum = 0.0;
        for (var u = 0u; u < N_USED; u++) {
            sum += exp(weights[chosen[u]] - largest);
        }
        factor /= sum;
    } else if (NORMALISE) {
        var sum = 0.0;
        for (var u = 0u; u < N_USED; u++) {
            sum += weights[chosen[u]];
        }
        factor /= max(sum, MIN_SUM);
    }
    for (var u = invocation.index; u < N_USED; u += WG) {
        let expert = chosen[u];
        var weight = weights[expert];
        if (GATING == 2u) {
            weight = exp(weight - largest);
        }
        if (HAS_FACTORS) {
            weight *= factors[expert];
        }
        let at = row * OUT_STRIDE + u;
        out[at] = f32(expert);
        out[at + N_USED] = weight * factor;
    }
}
