//! What the allocator keeps of freed memory.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;

/// After the last answer for now: a client that asks again at once needs the memory again.
const IDLE: Duration = Duration::from_secs(5);

/// [`give_back`] after a moment, at most once in [`IDLE`]: a long prompt or a large schema is not kept as long as the model is.
pub fn give_back_soon(runtime: &Handle) {
    static IS_DUE: AtomicBool = AtomicBool::new(false);
    if IS_DUE.swap(true, Ordering::Relaxed) {
        return;
    }
    runtime.spawn(async {
        tokio::time::sleep(IDLE).await;
        IS_DUE.store(false, Ordering::Relaxed);
        tokio::task::spawn_blocking(give_back);
    });
}

/// Has all threads share one heap. glibc would make one for each few, and gives the end of those, up to 64 MiB each, back only when
/// it is freed in one piece. To be called before there are other threads.
pub fn share_one_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function takes no pointer; the setting is one that glibc knows.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free pages back to the system. glibc keeps those of blocks below 32 MiB, which the layers of a cache are: without this,
/// a server that has unloaded its model stays as large as with it.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: the function takes no pointer, and touches no page that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
