// What attention of single tokens needs, from products: norms of heads or of whole rows, rope, and the token's keys and
// values into the cache. A workgroup has all query heads of a key head, so that one alone writes what it then reads.
// A norm behind rope has the sum of squares from before it: what turns keeps its length.
// Needs: SCALE, Q_STRIDE, Q_OFFSET, K_STRIDE, K_OFFSET, V_STRIDE, V_OFFSET, Q_GROUP, K_GROUP and V_GROUP (columns that a
// norm takes together; 0: none), Q_HAS_SCALES, K_HAS_SCALES, Q_EPS, K_EPS, V_EPS, NORM_LAST, NORM_LANES, Q_TURNS,
// K_TURNS, Q_TABLE, K_TABLE, NO_SLOT, HAS_KEYS, cached_from (kv/f32, kv/f16), parts/turned, parts/attention, parts/batch.
// Twin: cpu rms_norm, rope and kv_write.
@group(0) @binding(4) var<storage, read> q: array<f32>;
@group(0) @binding(5) var<storage, read_write> keys: array<Cached>;
@group(0) @binding(6) var<storage, read_write> values: array<Cached>;
@group(0) @binding(7) var<storage, read> k: array<f32>;
@group(0) @binding(8) var<storage, read> v: array<f32>;
@group(0) @binding(9) var<storage, read> q_scales: array<f32>;
@group(0) @binding(10) var<storage, read> k_scales: array<f32>;

// Norms of the queries' heads, or of their row in the first place; then the key's and the value's.
const NORMS: u32 = Q_ROWS + 2u;

var<workgroup> squares: array<f32, NORMS * NORM_LANES>;
// What a norm multiplies by.
var<workgroup> norms: array<f32, NORMS>;

fn query_at(row: u32, column: u32) -> f32 {
    return q[row * Q_STRIDE + Q_OFFSET + column];
}

fn key_at(row: u32, column: u32) -> f32 {
    return k[row * K_STRIDE + K_OFFSET + column];
}

fn value_at(row: u32, column: u32) -> f32 {
    return v[row * V_STRIDE + V_OFFSET + column];
}

// The lane's part of the squares of norm `i`.
fn part_of_squares(row: u32, first_head: u32, kv_head: u32, i: u32, lane: u32) -> f32 {
    var sum = 0.0;
    if (i < Q_ROWS) {
        if (Q_GROUP == HEAD_DIM || i == 0u && Q_GROUP > 0u) {
            let first = select(0u, (first_head + i) * HEAD_DIM, Q_GROUP == HEAD_DIM);
            for (var c = lane; c < Q_GROUP; c += NORM_LANES) {
                let x = query_at(row, first + c);
                sum = fma(x, x, sum);
            }
        }
    } else if (i == Q_ROWS) {
        let first = select(0u, kv_head * HEAD_DIM, K_GROUP == HEAD_DIM);
        for (var c = lane; c < K_GROUP; c += NORM_LANES) {
            let x = key_at(row, first + c);
            sum = fma(x, x, sum);
        }
    } else {
        for (var c = lane; c < V_GROUP; c += NORM_LANES) {
            let x = value_at(row, kv_head * VALUE_DIM + c);
            sum = fma(x, x, sum);
        }
    }
    return sum;
}

fn find_norms(index: u32, row: u32, first_head: u32, kv_head: u32) {
    for (var i = index; i < NORMS * NORM_LANES; i += WG) {
        squares[i] = part_of_squares(row, first_head, kv_head, i / NORM_LANES, i % NORM_LANES);
    }
    workgroupBarrier();
    for (var i = index; i < NORMS; i += WG) {
        var sum = 0.0;
        for (var lane = 0u; lane < NORM_LANES; lane++) {
            sum += squares[i * NORM_LANES + lane];
        }
        var group = Q_GROUP;
        var eps = Q_EPS;
        if (i == Q_ROWS) {
            group = K_GROUP;
            eps = K_EPS;
        } else if (i > Q_ROWS) {
            group = V_GROUP;
            eps = V_EPS;
        }
        norms[i] = 1.0;
        if (group > 0u) {
            norms[i] = 1.0 / sqrt(sum / f32(group) + eps);
        }
    }
    workgroupBarrier();
}

// The factor of the norm on a column of the row.
fn query_factor(r: u32, column: u32) -> f32 {
    var factor = norms[select(0u, r, Q_GROUP == HEAD_DIM)];
    if (Q_HAS_SCALES) {
        factor *= q_scales[column % max(Q_GROUP, 1u)];
    }
    return factor;
}

fn key_factor(column: u32) -> f32 {
    var factor = norms[Q_ROWS];
    if (K_HAS_SCALES) {
        factor *= k_scales[column % max(K_GROUP, 1u)];
    }
    return factor;
}

fn query_column(row: u32, r: u32, head: u32, c: u32) -> f32 {
    let at = head * HEAD_DIM + c;
    let factor = query_factor(r, at);
    if (!Q_TURNS) {
        return query_at(row, at) * factor;
    }
    let other = head * HEAD_DIM + partner(c);
    if (NORM_LAST) {
        return turned(row, Q_TABLE, c, query_at(row, at), query_at(row, other)) * factor;
    }
    return turned(row, Q_TABLE, c, query_at(row, at) * factor, query_at(row, other) * query_factor(r, other));
}

fn key_column(row: u32, kv_head: u32, c: u32) -> f32 {
    let at = kv_head * HEAD_DIM + c;
    let factor = key_factor(at);
    if (!K_TURNS) {
        return key_at(row, at) * factor;
    }
    let other = kv_head * HEAD_DIM + partner(c);
    if (NORM_LAST) {
        return turned(row, K_TABLE, c, key_at(row, at), key_at(row, other)) * factor;
    }
    return turned(row, K_TABLE, c, key_at(row, at) * factor, key_at(row, other) * key_factor(other));
}

fn keep(index: u32, row: u32, kv_head: u32) {
    let slot = batch_slot(row);
    if (slot == NO_SLOT) {
        return;
    }
    for (var quad = index; quad < HEAD_QUADS; quad += WG) {
        var four: vec4<f32>;
        for (var i = 0u; i < 4u; i++) {
            four[i] = key_column(row, kv_head, 4u * quad + i);
        }
        keys[slot * (KEYS / 4u) + kv_head * HEAD_QUADS + quad] = cached_from(four);
    }
    for (var quad = index; quad < VALUE_QUADS; quad += WG) {
        var four: vec4<f32>;
        for (var i = 0u; i < 4u; i++) {
            four[i] = value_at(row, kv_head * VALUE_DIM + 4u * quad + i) * norms[Q_ROWS + 1u];
        }
        values[slot * (VALUES / 4u) + kv_head * VALUE_QUADS + quad] = cached_from(four);
    }
}

// Fills `queries`; the workgroup that `writes` keeps the token's key and value, which it alone sees.
fn make_ready(index: u32, row: u32, first_head: u32, kv_head: u32, writes: bool) {
    find_norms(index, row, first_head, kv_head);
    for (var i = index; i < Q_ROWS * HEAD_QUADS; i += WG) {
        let r = i / HEAD_QUADS;
        var four: vec4<f32>;
        for (var j = 0u; j < 4u; j++) {
            four[j] = query_column(row, r, first_head + r, 4u * (i % HEAD_QUADS) + j);
        }
        queries[i] = SCALE * four;
    }
    if (HAS_KEYS && writes) {
        keep(index, row, kv_head);
    }
    storageBarrier();
}
