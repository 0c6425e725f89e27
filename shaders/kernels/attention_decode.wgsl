// Attention of single tokens: out[t] = softmax(SCALE q k^T) v over the token's sequence. q is
// [tokens, N_HEADS * HEAD_DIM], out [tokens, N_HEADS * VALUE_DIM].
// A workgroup takes Q_ROWS query heads that share a key head, over one split of the sequence. Where
// there is more than one split it leaves, per head and split, VALUE_DIM sums, the maximum and the
// sum of weights in `splits`, for attention_merge.
// Needs: GROUP_HEADS (query heads per key head), N_HEADS, WINDOW (0: none), OUT_STRIDE, HAS_SINKS, q, keys, values and
// make_ready (parts/attention_given, parts/attention_turned), parts/attention, parts/sinks, parts/splits, parts/batch.
// Twin: cpu attention.
@group(0) @binding(0) var<storage, read> sinks: array<f32>;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> splits: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<private> first_head: u32;
var<private> position: u32;

fn row_head(row: u32) -> u32 {
    return first_head + row;
}

fn row_position(row: u32) -> u32 {
    return position;
}

fn store_split(index: u32, row: u32, split: u32) {
    let column = index % VALUE_QUADS;
    let slice = index / VALUE_QUADS;
    for (var k = 0u; k < SLICE_ROWS; k++) {
        let r = slice + k * SLICES;
        if (slice < SLICES && r < Q_ROWS) {
            let at = ((row * N_HEADS + first_head + r) * MAX_SPLITS + split) * (VALUE_DIM + 2u);
            for (var i = 0u; i < 4u; i++) {
                splits[at + 4u * column + i] = weighted[k][i];
            }
            if (column == 0u) {
                splits[at + VALUE_DIM] = maxima[r];
                splits[at + VALUE_DIM + 1u] = sums[r];
            }
        }
    }
}

fn store(index: u32, row: u32) {
    let column = index % VALUE_QUADS;
    let slice = index / VALUE_QUADS;
    for (var k = 0u; k < SLICE_ROWS; k++) {
        let r = slice + k * SLICES;
        if (slice < SLICES && r < Q_ROWS) {
            let at = row * OUT_STRIDE + (first_head + r) * VALUE_DIM + 4u * column;
            let sum = sums[r] + sink_weight(first_head + r, maxima[r]);
            for (var i = 0u; i < 4u; i++) {
                out[at + i] = weighted[k][i] / sum;
            }
        }
    }
}

@compute @workgroup_size(WG)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) index: u32,
) {
    first_head = group.x * Q_ROWS;
    let kv_head = first_head / GROUP_HEADS;
    let split = group.y;
    let row = group.z;
    if (row >= n_rows()) {
        return;
    }
    position = batch_position(row);
    let splits_of_row = n_splits(position);
    if (split >= splits_of_row) {
        return;
    }
    let start = first_tile(position);
    let tokens = split_tokens(position + 1u - start);
    let begin = start + split * tokens;
    make_ready(index, row, first_head, kv_head, split + 1u == splits_of_row);
    if (index < Q_ROWS) {
        first_visible[index] = window_start(position);
        end_visible[index] = position + 1u;
    }
    attend(index, batch_table(row), kv_head, begin, min(begin + tokens, position + 1u));
    if (splits_of_row == 1u) {
        store(index, row);
    } else {
        store_split(index, row, split);
    }
}
