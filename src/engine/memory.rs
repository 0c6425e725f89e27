//! What the allocator keeps of freed memory.

/// Gives free pages back to the system. glibc keeps those of blocks below 32 MiB, which the layers of a cache are: without this,
/// a server that has unloaded its model stays as large as with it.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function takes no pointer, and touches no page that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
