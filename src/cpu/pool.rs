//! Threads that share the chunks of one operation: a fork and a join in a microsecond or two.
//!
//! Workers wait for the next operation awake for a moment, then asleep. A worker that comes late
//! finds the operation closed and is not waited for, so that a core lent to another process costs
//! its share of the work and no more.

use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::buffer::Buffer;
use super::simd::Lanes;

/// How long an idle worker stays awake.
const AWAKE: Duration = Duration::from_micros(50);

/// Work of one chunk, with the thread's scratch memory.
pub type Task<'a> = dyn Fn(usize, &mut [Lanes]) + Sync + 'a;

/// Why an operation did not finish.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PoolError {
    #[error("no memory for {0} bytes of scratch")]
    OutOfMemory(u64),
    #[error("a worker panicked: {0}")]
    Panicked(String),
}

/// The operation in progress. Its lifetime is that of [`Pool::run`].
#[derive(Clone, Copy)]
struct Job {
    task: *const Task<'static>,
    n_chunks: usize,
}

/// `state` is `epoch << 32 | OPEN? | workers inside`. A worker enters by adding one while the
/// operation is open; the caller closes it and waits until nobody is inside.
struct Shared {
    state: AtomicU64,
    job: UnsafeCell<Option<Job>>,
    next_chunk: AtomicUsize,
    stop: AtomicBool,
    n_asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    panic: Mutex<Option<String>>,
}

const OPEN: u64 = 1 << 31;
const INSIDE: u64 = OPEN - 1;

// SAFETY: `job` is written by the caller alone while nobody is inside, and read by workers alone
// while they are: `state` orders the two. The task it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointer is only followed between a fork and its join.
unsafe impl Send for Shared {}

/// A fixed set of threads; the caller of [`Pool::run`] is one of them.
pub struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    /// Scratch of the caller, then of each worker.
    scratch: Arc<Vec<Mutex<Buffer>>>,
}

impl Pool {
    /// A pool of `n_threads`, at least one. Threads that the system refuses are done without.
    pub fn new(n_threads: usize) -> Pool {
        let shared = Arc::new(Shared {
            state: AtomicU64::new(0),
            job: UnsafeCell::new(None),
            next_chunk: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            n_asleep: AtomicUsize::new(0),
            sleep: Mutex::new(()),
            wake: Condvar::new(),
            panic: Mutex::new(None),
        });
        let scratch: Vec<_> = (0..n_threads.max(1)).map(|_| Mutex::default()).collect();
        let scratch: Arc<Vec<Mutex<Buffer>>> = Arc::new(scratch);
        let workers = (1..n_threads).map_while(|i| {
            let (shared, scratch) = (Arc::clone(&shared), Arc::clone(&scratch));
            let thread = std::thread::Builder::new().name(format!("cpu-{i}"));
            let work = move || shared.work(&scratch[i]);
            let spawned = thread.spawn(work);
            spawned
                .inspect_err(|e| tracing::warn!("cannot start worker {i}: {e}"))
                .ok()
        });
        Pool {
            workers: workers.collect(),
            shared,
            scratch,
        }
    }

    /// Threads, the caller's included.
    pub fn n_threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Calls `task` once for every chunk below `n_chunks`, each on some thread, with `n_scratch`
    /// vectors of scratch memory whose contents are arbitrary. Returns when all are done.
    ///
    /// # Errors
    /// [`PoolError`]; after a panic some chunks were not worked on.
    pub fn run(
        &mut self,
        n_chunks: usize,
        n_scratch: usize,
        task: &Task<'_>,
    ) -> Result<(), PoolError> {
        let shared = &*self.shared;
        for scratch in self.scratch.iter() {
            let mut scratch = lock(scratch);
            let grown = scratch.grow(n_scratch);
            grown.map_err(|_| PoolError::OutOfMemory((n_scratch * size_of::<Lanes>()) as u64))?;
        }
        // SAFETY: only the lifetime changes. The pointer is followed by workers that are inside,
        // and this function returns after the last of them has left.
        let task: *const Task<'static> = unsafe { std::mem::transmute(task) };
        shared.next_chunk.store(0, Ordering::Relaxed);
        let job = Job { task, n_chunks };
        let forked = n_chunks > 1 && !self.workers.is_empty();
        if forked {
            // SAFETY: the last operation was closed and everybody left it.
            unsafe { *shared.job.get() = Some(job) };
            shared.open();
        }
        shared.work_on(job, &self.scratch[0]);
        if forked {
            shared.close();
        }
        match lock(&shared.panic).take() {
            Some(message) => Err(PoolError::Panicked(message)),
            None => Ok(()),
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        drop(lock(&self.shared.sleep));
        self.shared.wake.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch panics, so there is nothing to learn from the result.
            let _ = worker.join();
        }
    }
}

impl Shared {
    /// Lets workers into a new operation.
    fn open(&self) {
        let epoch = (self.state.load(Ordering::Relaxed) >> 32) + 1;
        self.state.store(epoch << 32 | OPEN, Ordering::SeqCst);
        // A worker counts itself asleep before its last look at `state`: one of the two sees
        // the other, in the single order of these accesses.
        if self.n_asleep.load(Ordering::SeqCst) > 0 {
            drop(lock(&self.sleep));
            self.wake.notify_all();
        }
    }

    /// Keeps late workers out and waits for those inside.
    fn close(&self) {
        self.state.fetch_and(!OPEN, Ordering::AcqRel);
        let mut n_looks = 0u32;
        while self.state.load(Ordering::Acquire) & INSIDE != 0 {
            n_looks += 1;
            match n_looks {
                0..1000 => std::hint::spin_loop(),
                _ => std::thread::yield_now(),
            }
        }
    }

    /// A worker's life.
    fn work(&self, scratch: &Mutex<Buffer>) {
        let mut seen = 0;
        while let Some(state) = self.wait(seen) {
            seen = state >> 32;
            let enter = |s: u64| (s >> 32 == seen && s & OPEN != 0).then_some(s + 1);
            let entered = self
                .state
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, enter);
            if entered.is_ok() {
                // SAFETY: this worker is inside, so the caller does not write.
                let job = unsafe { *self.job.get() };
                if let Some(job) = job {
                    self.work_on(job, scratch);
                }
                self.state.fetch_sub(1, Ordering::Release);
            }
        }
    }

    /// Waits for an operation after number `seen`; `None` when the pool is dropped.
    fn wait(&self, seen: u64) -> Option<u64> {
        let news = || {
            let state = self.state.load(Ordering::SeqCst);
            let stop = self.stop.load(Ordering::SeqCst);
            (stop || state >> 32 != seen).then_some((state, stop))
        };
        let awake_until = Instant::now() + AWAKE;
        let mut found = news();
        while found.is_none() && Instant::now() < awake_until {
            for _ in 0..16 {
                std::hint::spin_loop();
            }
            found = news();
        }
        let (state, stop) = found.unwrap_or_else(|| self.sleep_until(news));
        (!stop).then_some(state)
    }

    fn sleep_until<T>(&self, news: impl Fn() -> Option<T>) -> T {
        let mut guard = lock(&self.sleep);
        self.n_asleep.fetch_add(1, Ordering::SeqCst);
        let found = loop {
            if let Some(found) = news() {
                break found;
            }
            guard = self
                .wake
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        };
        self.n_asleep.fetch_sub(1, Ordering::SeqCst);
        found
    }

    /// Takes chunks until none is left. After a panic the rest is given up.
    fn work_on(&self, job: Job, scratch: &Mutex<Buffer>) {
        let mut scratch = lock(scratch);
        let chunks = AssertUnwindSafe(|| {
            // SAFETY: the caller of `run` holds the task until everybody has left.
            let task = unsafe { &*job.task };
            loop {
                let chunk = self.next_chunk.fetch_add(1, Ordering::Relaxed);
                if chunk >= job.n_chunks {
                    break;
                }
                task(chunk, scratch.vectors_mut());
            }
        });
        if let Err(payload) = catch_unwind(chunks) {
            self.next_chunk.store(job.n_chunks, Ordering::Relaxed);
            *lock(&self.panic) = Some(message_of(&*payload));
        }
    }
}

/// Locks, also after a panic: the data is scratch or a message.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn message_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|s| (*s).to_owned());
    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
    text.unwrap_or_else(|| "no message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_worked_on_once() {
        let mut pool = Pool::new(4);
        for n_chunks in [0, 1, 2, 3, 100, 1000] {
            let counts: Vec<AtomicUsize> = (0..n_chunks).map(|_| AtomicUsize::new(0)).collect();
            let task = |chunk: usize, _: &mut [Lanes]| {
                counts[chunk].fetch_add(1, Ordering::Relaxed);
            };
            pool.run(n_chunks, 0, &task).expect("no panic");
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn operations_follow_each_other_without_mixing() {
        let mut pool = Pool::new(3);
        for round in 0..20_000 {
            let sum = AtomicUsize::new(0);
            let task = |chunk: usize, _: &mut [Lanes]| {
                sum.fetch_add(round * 5 + chunk, Ordering::Relaxed);
            };
            pool.run(5, 0, &task).expect("no panic");
            assert_eq!(sum.into_inner(), 25 * round + 10);
        }
    }

    #[test]
    fn sleepers_wake() {
        let mut pool = Pool::new(2);
        while pool.shared.n_asleep.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Each of two chunks waits for the other: only two threads can finish.
        let barrier = std::sync::Barrier::new(2);
        let task = |_: usize, _: &mut [Lanes]| {
            barrier.wait();
        };
        pool.run(2, 0, &task).expect("no panic");
    }

    #[test]
    fn a_panic_is_an_error_and_the_pool_lives_on() {
        let mut pool = Pool::new(2);
        for bad in 0..8 {
            let task = |chunk: usize, _: &mut [Lanes]| assert_ne!(chunk, bad, "chunk {bad}");
            let error = pool.run(8, 0, &task).expect_err("one chunk panics");
            assert!(error.to_string().contains(&format!("chunk {bad}")));
            pool.run(8, 0, &|_, _| ()).expect("works again");
        }
    }

    #[test]
    fn scratch_is_large_enough_or_refused() {
        let mut pool = Pool::new(2);
        let task = |_: usize, scratch: &mut [Lanes]| assert!(scratch.len() >= 100);
        pool.run(10, 100, &task).expect("enough");
        let error = pool.run(1, usize::MAX / 128, &task);
        assert!(matches!(error, Err(PoolError::OutOfMemory(_))));
    }

    #[test]
    fn no_thread_outlives_the_pool() {
        let pool = Pool::new(3);
        let shared = Arc::downgrade(&pool.shared);
        drop(pool);
        assert!(shared.upgrade().is_none());
    }
}
