//! See `lib.rs` for this layer's place.
