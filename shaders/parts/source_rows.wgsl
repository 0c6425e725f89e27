// Four columns of a row of the input. Needs: x_quad (parts/x_*).
fn source_quad(row: u32, quad: u32) -> vec4<f32> {
    return x_quad(row, quad);
}
