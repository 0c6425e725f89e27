//! The context of a model where neither the request nor the model nor the settings name one: by the memory of its GPU,
//! in Ollama's steps.

/// GiB of a GPU's memory from which on a context is this long: a little less than cards of 48 and 24 have.
const STEPS: [(u64, usize); 2] = [(47, 262_144), (23, 32_768)];

/// On a GPU with less memory, or where that is not known, and on the CPU.
const LEAST: usize = 4096;

/// The longest automatic context.
pub const MOST_CTX: usize = STEPS[0].1;

/// The longest one of a model that embeds: its steps take whole texts, and their buffers grow with the context.
pub const MOST_CTX_TO_EMBED: usize = STEPS[1].1;

/// Tokens of context on a device with so much memory of its own, of which `overhead_bytes` are to stay free.
pub fn automatic_ctx(memory_bytes: Option<u64>, overhead_bytes: u64) -> usize {
    let bytes = memory_bytes.unwrap_or(0).saturating_sub(overhead_bytes);
    let step = STEPS.iter().find(|(gib, _)| bytes >= gib << 30);
    step.map_or(LEAST, |&(_, n_ctx)| n_ctx)
}

/// The longest automatic context that is shorter than this one, if there is any.
pub fn smaller_ctx(n_ctx: usize) -> Option<usize> {
    let lengths = STEPS.iter().map(|&(_, n_ctx)| n_ctx).chain([LEAST]);
    lengths.into_iter().find(|&shorter| shorter < n_ctx)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_decides_the_length() {
        let gib = |n: u64| Some(n << 30);
        for (memory, overhead, n_ctx) in [
            (None, 0, 4096),
            (gib(8), 0, 4096),
            (gib(23).map(|n| n - 1), 0, 4096),
            (gib(23), 0, 32_768),
            (gib(24), 2 << 30, 4096),
            (gib(47).map(|n| n - 1), 0, 32_768),
            (gib(47), 0, 262_144),
            (gib(80), 0, 262_144),
            (gib(80), u64::MAX, 4096),
        ] {
            assert_eq!(
                automatic_ctx(memory, overhead),
                n_ctx,
                "{memory:?} {overhead}"
            );
        }
    }

    #[test]
    fn lengths_fall_by_steps() {
        let fallen = [262_144, 131_072, 32_768, 8192, 4096, 100].map(smaller_ctx);
        let steps = [
            Some(32_768),
            Some(32_768),
            Some(4096),
            Some(4096),
            None,
            None,
        ];
        assert_eq!(fallen, steps);
    }
}
