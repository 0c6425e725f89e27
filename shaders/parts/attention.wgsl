// Flash attention of Q_ROWS queries over a run of one sequence's cache: keys and values pass in
// tiles of TILE tokens, with a running maximum and sum per query (Dao et al. 2022,
// <https://arxiv.org/abs/2205.14135>). Tiles begin at multiples of TILE and a masked token adds
// exactly nothing, so that a query's result does not depend on the queries beside it.
// Needs: WG, Q_ROWS, SCORE_ROWS (a divisor), TILE (a multiple of PAGE), PAGE, HEAD_DIM (of keys),
// VALUE_DIM (of values), KEYS and VALUES (columns of all heads in the cache),
// SOFT_CAP (0: none), cached_key and cached_value (kv/*), parts/fma4, parts/pages,
// parts/soft_cap, `biased` (parts/unbiased, parts/alibi).

const HEAD_QUADS: u32 = HEAD_DIM / 4u;
const VALUE_QUADS: u32 = VALUE_DIM / 4u;
// Invocations in a run that share out the columns of a value; runs share out the queries.
const SLICES: u32 = WG / VALUE_QUADS;
const SLICE_ROWS: u32 = (Q_ROWS + SLICES - 1u) / SLICES;
// Invocations that reduce the scores of one query.
const REDUCERS: u32 = min(16u, WG / Q_ROWS);
// A masked score. Infinities are avoided since compilers may assume that there are none.
const MASKED: f32 = -1e30;

var<workgroup> queries: array<vec4<f32>, Q_ROWS * HEAD_QUADS>;
var<workgroup> first_visible: array<u32, Q_ROWS>;
var<workgroup> end_visible: array<u32, Q_ROWS>;
var<workgroup> scores: array<f32, Q_ROWS * TILE>;
var<workgroup> partials: array<f32, Q_ROWS * REDUCERS>;
var<workgroup> maxima: array<f32, Q_ROWS>;
var<workgroup> sums: array<f32, Q_ROWS>;
var<workgroup> factors: array<f32, Q_ROWS>;

// Weighted values of queries slice, slice + SLICES, ... at the invocation's four columns.
var<private> weighted: array<vec4<f32>, SLICE_ROWS>;

fn score_tile(index: u32, table: u32, kv_head: u32, tile: u32, end: u32) {
    for (var i = index; i < TILE * (Q_ROWS / SCORE_ROWS); i += WG) {
        let token = tile + i % TILE;
        let first = i / TILE * SCORE_ROWS;
        var score: array<f32, SCORE_ROWS>;
        if (token < end) {
            let slot = page_slot(table, token / PAGE) + token % PAGE;
            for (var d = 0u; d < HEAD_QUADS; d++) {
                let k = cached_key(slot, kv_head * HEAD_QUADS + d);
                for (var r = 0u; r < SCORE_ROWS; r++) {
                    score[r] = fma4(queries[(first + r) * HEAD_QUADS + d], k, score[r]);
                }
            }
        }
        for (var r = 0u; r < SCORE_ROWS; r++) {
            let row = first + r;
            var s = score[r];
            if (SOFT_CAP > 0.0) {
                s = soft_cap(s, SOFT_CAP);
            }
            s = biased(s, row, token);
            let visible = token >= first_visible[row] && token < end_visible[row];
            scores[row * TILE + i % TILE] = select(MASKED, s, visible);
        }
    }
}

fn reduce_tile(index: u32) {
    let row = index / REDUCERS;
    let part = index % REDUCERS;
    if (row < Q_ROWS) {
        var largest = MASKED;
        for (var i = part; i < TILE; i += REDUCERS) {
            largest = max(largest, scores[row * TILE + i]);
        }
        partials[index] = largest;
    }
    workgroupBarrier();
    if (index < Q_ROWS) {
        let before = maxima[index];
        var largest = before;
        for (var i = 0u; i < REDUCERS; i++) {
            largest = max(largest, partials[index * REDUCERS + i]);
        }
        maxima[index] = largest;
        factors[index] = exp(before - largest);
    }
    workgroupBarrier();
    if (row < Q_ROWS) {
        var sum = 0.0;
        for (var i = part; i < TILE; i += REDUCERS) {
            let s = scores[row * TILE + i];
            let weight = select(exp(s - maxima[row]), 0.0, s <= MASKED);
            scores[row * TILE + i] = weight;
            sum += weight;
        }
        partials[index] = sum;
    }
    workgroupBarrier();
    if (index < Q_ROWS) {
        var sum = sums[index] * factors[index];
        for (var i = 0u; i < REDUCERS; i++) {
            sum += partials[index * REDUCERS + i];
        }
        sums[index] = sum;
    }
}

fn weigh_tile(index: u32, table: u32, kv_head: u32, tile: u32, end: u32) {
    let column = index % VALUE_QUADS;
    let slice = index / VALUE_QUADS;
    if (slice >= SLICES) {
        return;
    }
    for (var k = 0u; k < SLICE_ROWS; k++) {
        weighted[k] *= factors[min(slice + k * SLICES, Q_ROWS - 1u)];
    }
    let tile_end = min(tile + TILE, end);
    for (var page = tile; page < tile_end; page += PAGE) {
        let slot = page_slot(table, page / PAGE);
        let n = min(PAGE, tile_end - page);
        for (var i = 0u; i < n; i++) {
            let v = cached_value(slot + i, kv_head * VALUE_QUADS + column);
            for (var k = 0u; k < SLICE_ROWS; k++) {
                let row = min(slice + k * SLICES, Q_ROWS - 1u);
                weighted[k] = fma(vec4<f32>(scores[row * TILE + page - tile + i]), v, weighted[k]);
            }
        }
    }
}

// Attends to tokens begin..end, `begin` being a multiple of TILE. The kernel has filled `queries`
// (scaled), `first_visible` and `end_visible`; afterwards `weighted`, `maxima` and `sums` hold the
// unnormalised result.
fn attend(index: u32, table: u32, kv_head: u32, begin: u32, end: u32) {
    if (index < Q_ROWS) {
        maxima[index] = MASKED;
        sums[index] = 0.0;
    }
    workgroupBarrier();
    for (var tile = begin; tile < end; tile += TILE) {
        score_tile(index, table, kv_head, tile, end);
        workgroupBarrier();
        reduce_tile(index);
        weigh_tile(index, table, kv_head, tile, end);
        workgroupBarrier();
    }
}
