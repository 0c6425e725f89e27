// Which expert a slot of a row goes through: the one that `route` names, or the one of the
// slot's number. The kernel declares `route`. Needs: ROUTED, ROUTE_STRIDE, ROUTE_OFFSET.
fn expert_of(row: u32, slot: u32) -> u32 {
    if (!ROUTED) {
        return slot;
    }
    return min(u32(route[row * ROUTE_STRIDE + ROUTE_OFFSET + slot]), N_EXPERTS - 1u);
}
