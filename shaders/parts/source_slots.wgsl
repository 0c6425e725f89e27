// Four columns of the input of slot `i` of all rows. Needs: N_USED, slot_quad (parts/slot_*).
fn source_quad(i: u32, quad: u32) -> vec4<f32> {
    return slot_quad(i / N_USED, i % N_USED, quad);
}
