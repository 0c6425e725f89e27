// Attention of a prompt: out[t] = softmax(SCALE q k^T) v over each token's sequence, as far as
// `visible` says. q is [tokens, n_heads * HEAD_DIM], out [tokens, n_heads * VALUE_DIM].
// A workgroup takes one head and a tile of up to Q_ROWS tokens of one sequence.
// Needs: GROUP_HEADS (query heads per key head), SCALE, WINDOW (0: none), Q_STRIDE, Q_OFFSET,
// OUT_STRIDE, HAS_SINKS, parts/attention, parts/sinks, parts/splits, parts/batch, `visible`
// (parts/causal, parts/both_ways). Twin: cpu attention.
@group(0) @binding(0) var<storage, read> q: array<f32>;
@group(0) @binding(1) var<storage, read> keys: array<Cached>;
@group(0) @binding(2) var<storage, read> values: array<Cached>;
@group(0) @binding(3) var<storage, read> sinks: array<f32>;
@group(0) @binding(4) var<storage, read> batch: array<u32>;
@group(0) @binding(5) var<storage, read_write> out: array<f32>;

fn query(row: u32, head: u32, quad: u32) -> vec4<f32> {
    let at = row * Q_STRIDE + Q_OFFSET + head * HEAD_DIM + 4u * quad;
    return SCALE * vec4<f32>(q[at], q[at + 1u], q[at + 2u], q[at + 3u]);
}

var<private> head: u32;
var<workgroup> positions: array<u32, Q_ROWS>;

fn row_head(row: u32) -> u32 {
    return head;
}

fn row_position(row: u32) -> u32 {
    return positions[row];
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    head = group.x;
    let tile = batch_tile(group.y);
    let n = tile.y;
    for (var i = index; i < Q_ROWS * HEAD_QUADS; i += WG) {
        // Rows past the tile repeat its last one, and are not stored.
        let row = tile.x + min(i / HEAD_QUADS, n - 1u);
        queries[i] = query(row, head, i % HEAD_QUADS);
    }
    if (index < Q_ROWS) {
        let position = batch_position(tile.x + min(index, n - 1u));
        let seen = visible(position, tile.z);
        positions[index] = position;
        first_visible[index] = seen.x;
        end_visible[index] = seen.y;
    }
    let begin = visible(batch_position(tile.x), tile.z).x / TILE * TILE;
    let end = visible(batch_position(tile.x + n - 1u), tile.z).y;
    attend(index, batch_table(tile.x), head / GROUP_HEADS, begin, end);
    let column = index % VALUE_QUADS;
    let slice = index / VALUE_QUADS;
    for (var k = 0u; k < SLICE_ROWS; k++) {
        let r = slice + k * SLICES;
        if (slice < SLICES && r < n) {
            let at = (tile.x + r) * OUT_STRIDE + head * VALUE_DIM + 4u * column;
            let sum = sums[r] + sink_weight(head, maxima[r]);
            for (var i = 0u; i < 4u; i++) {
                out[at + i] = weighted[k][i] / sum;
            }
        }
    }
}
