//! Files mapped into memory, which live through another program cutting them.
//!
//! A read beyond the end of a file that has become shorter is a bus error, which by itself ends the process. Here the lost
//! pages become zeros instead and the file is marked: whoever computed with it asks [`MappedFile::is_whole`] afterwards
//! and throws the result away. Windows does not let a mapped file be cut.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};

use memmap2::Mmap;

/// The bytes of a file, read-only.
#[derive(Debug)]
pub struct MappedFile {
    // Before the map, so that nobody looks after pages that are no longer the map's.
    #[cfg(unix)]
    guard: Option<guard::Guard>,
    map: Mmap,
    file: File,
}

impl MappedFile {
    /// Maps all of a file.
    ///
    /// # Errors
    /// The system's.
    pub fn new(file: File) -> io::Result<MappedFile> {
        // SAFETY: the map is read-only, and pages that the file loses are looked after. Other changes of its bytes would
        // be seen here; model files are content-addressed blobs that are replaced, never rewritten.
        let map = unsafe { Mmap::map(&file) }?;
        Ok(MappedFile {
            #[cfg(unix)]
            guard: guard::Guard::new(&map),
            map,
            file,
        })
    }

    /// Whether the file still has all its bytes; if not, zeros may have been read in place of some.
    pub fn is_whole(&self) -> bool {
        #[cfg(unix)]
        if self.guard.as_ref().is_some_and(guard::Guard::is_cut) {
            return false;
        }
        // Within the last page that is left there are zeros without an error.
        let length = self.file.metadata().map(|metadata| metadata.len());
        length.is_ok_and(|length| length >= self.map.len() as u64)
    }

    /// Lets go of the pages of some bytes: they no longer count as the process's own. The system
    /// keeps them as long as it has room, and reading brings them back.
    ///
    /// # Errors
    /// The system's, or that the bytes are not of this file; the pages are then kept.
    pub fn release_pages(&self, bytes: Range<usize>) -> io::Result<()> {
        if self.map.get(bytes.clone()).is_none() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: the map is of a file and read-only, so that its pages come back as they were.
        #[cfg(unix)]
        unsafe {
            self.map.unchecked_advise_range(
                memmap2::UncheckedAdvice::DontNeed,
                bytes.start,
                bytes.len(),
            )?;
        }
        Ok(())
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[cfg(unix)]
mod guard {
    //! The handler of bus errors. All that it does is read atomics, map pages and restore the former handler: nothing
    //! that takes a lock or memory.

    use std::mem::MaybeUninit;
    use std::ptr;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use libc::{c_int, c_void, sigaction, siginfo_t};

    /// Most maps at a time; files beyond them are as safe as their owner keeps them.
    const MAX_MAPS: usize = 1024;
    /// The start of a range that is being entered; no map begins there.
    const ENTERING: usize = 1;

    /// A range of addresses that may lose its pages.
    struct Slot {
        /// 0 where the slot is free.
        start: AtomicUsize,
        end: AtomicUsize,
        is_cut: AtomicBool,
    }

    static SLOTS: [Slot; MAX_MAPS] = [const {
        Slot {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            is_cut: AtomicBool::new(false),
        }
    }; MAX_MAPS];

    /// What the process did at a bus error before, and the bytes of a page; none where it cannot be handled.
    static FORMER: OnceLock<Option<(sigaction, usize)>> = OnceLock::new();

    /// Looks after a map while it lives.
    #[derive(Debug)]
    pub struct Guard(usize);

    impl Guard {
        /// `None` where there is no place or no handler.
        pub fn new(map: &[u8]) -> Option<Guard> {
            FORMER.get_or_init(install).as_ref()?;
            let take = |slot: &Slot| {
                let free = Ordering::Relaxed;
                let taken = slot
                    .start
                    .compare_exchange(0, ENTERING, Ordering::Acquire, free);
                taken.is_ok()
            };
            let place = SLOTS.iter().position(take)?;
            let slot = &SLOTS[place];
            let start = map.as_ptr() as usize;
            slot.is_cut.store(false, Ordering::Relaxed);
            slot.end.store(start + map.len(), Ordering::Release);
            slot.start.store(start, Ordering::Release);
            Some(Guard(place))
        }

        pub fn is_cut(&self) -> bool {
            SLOTS[self.0].is_cut.load(Ordering::Acquire)
        }
    }

    impl Drop for Guard {
        fn drop(&mut self) {
            SLOTS[self.0].start.store(0, Ordering::Release);
        }
    }

    fn install() -> Option<(sigaction, usize)> {
        // SAFETY: all pointers are to variables of this function; a zeroed action is one without flags or mask. The
        // standard library's own handler, which finds full stacks, is kept and called for every other fault. The
        // handler runs on the stack that the library gives each thread for that.
        unsafe {
            let page = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)).ok()?;
            let mut former = MaybeUninit::<sigaction>::zeroed().assume_init();
            let mut ours = former;
            ours.sa_sigaction = on_bus_error as *const () as usize;
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            let is_there = libc::sigaction(libc::SIGBUS, &ours, &mut former) == 0;
            is_there.then_some((former, page))
        }
    }

    extern "C" fn on_bus_error(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
        // The first map comes after the installation; until then no fault is ours.
        let former = FORMER.get().and_then(Option::as_ref);
        // SAFETY: the system passes a valid description of the fault.
        let address = unsafe { (*info).si_addr() } as usize;
        if former.is_some_and(|(_, page)| replace(address, *page)) {
            return;
        }
        // SAFETY: what was there before is called as it was registered; where nothing was, the same fault comes again
        // and ends the process, as it would have.
        unsafe {
            match former {
                Some((former, _)) if former.sa_sigaction > libc::SIG_IGN => {
                    if former.sa_flags & libc::SA_SIGINFO != 0 {
                        let call: extern "C" fn(c_int, *mut siginfo_t, *mut c_void) =
                            std::mem::transmute(former.sa_sigaction);
                        call(signal, info, context);
                    } else {
                        let call: extern "C" fn(c_int) = std::mem::transmute(former.sa_sigaction);
                        call(signal);
                    }
                }
                _ => {
                    libc::signal(libc::SIGBUS, libc::SIG_DFL);
                }
            }
        }
    }

    /// Puts zeros in place of what a file has lost from `address` on; whether it is one that is looked after.
    fn replace(address: usize, page: usize) -> bool {
        let is_inside = |slot: &&Slot| {
            let start = slot.start.load(Ordering::Acquire);
            let end = slot.end.load(Ordering::Acquire);
            // Another map may just have taken the slot, with another end.
            start > ENTERING
                && (start..end).contains(&address)
                && slot.start.load(Ordering::Acquire) == start
        };
        let Some(slot) = SLOTS.iter().find(is_inside) else {
            return false;
        };
        // Before there are zeros that somebody could read.
        slot.is_cut.store(true, Ordering::Release);
        let first = address & !(page - 1);
        let length = slot.end.load(Ordering::Acquire).next_multiple_of(page) - first;
        let flags = libc::MAP_FIXED | libc::MAP_PRIVATE | libc::MAP_ANON | libc::MAP_NORESERVE;
        // SAFETY: the pages from the fault to the end of the map belong to it, since the thread that faulted reads it;
        // they stay readable and go away with it. On no system does the call take a lock of the process.
        let zeros = unsafe {
            libc::mmap(
                ptr::without_provenance_mut(first),
                length,
                libc::PROT_READ,
                flags,
                -1,
                0,
            )
        };
        zeros != libc::MAP_FAILED
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::Command;

    fn mapped(bytes: &[u8]) -> (tempfile::NamedTempFile, MappedFile) {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let map = MappedFile::new(file.reopen().unwrap()).unwrap();
        (file, map)
    }

    #[test]
    fn what_a_file_loses_reads_as_zeros_and_is_told() {
        const BYTES: usize = 1 << 20;
        let (file, map) = mapped(&vec![7; BYTES]);
        let (_other, untouched) = mapped(&[9; 100]);
        assert!(map.is_whole());
        file.as_file().set_len(100_000).unwrap();
        // Several threads meet the loss at once.
        std::thread::scope(|scope| {
            for i in 0..8 {
                let map = &map;
                scope.spawn(move || {
                    let sum: usize = map[i..].iter().map(|&b| usize::from(b)).sum();
                    assert_eq!(sum, 7 * (100_000 - i));
                });
            }
        });
        assert!(!map.is_whole());
        map.release_pages(0..map.len()).unwrap();
        assert_eq!(map[BYTES - 1], 0);
        // Growing again brings nothing back.
        file.as_file().set_len(BYTES as u64).unwrap();
        assert!(!map.is_whole());
        assert!(untouched.is_whole());
        assert_eq!(untouched[99], 9);
        drop(map);
        let (_again, again) = mapped(&[5; 5000]);
        assert!(again.is_whole(), "a slot is as new");
    }

    /// Bytes that are lost within a page raise no signal.
    #[test]
    fn a_cut_within_a_page_is_told() {
        let (file, map) = mapped(&[7; 5000]);
        file.as_file().set_len(4999).unwrap();
        assert_eq!(map[4999], 0);
        assert!(!map.is_whole());
    }

    const FAULT: &str = "OLLAMA_WGPU_OTHER_FAULT";

    /// Not a test of its own: [`other_faults_still_end_the_process`] runs it in a process.
    #[test]
    #[ignore = "run by other_faults_still_end_the_process"]
    fn other_fault() {
        if std::env::var_os(FAULT).is_none() {
            return;
        }
        // The files have lost their names before the fault: nobody is left to remove them after it.
        let (file, map) = mapped(&[7; 5000]);
        drop(file);
        assert!(map.is_whole());
        let (file, _) = mapped(&[7; 50_000]);
        let file = file.into_file();
        // SAFETY: none; it is to fault.
        let plain = unsafe { Mmap::map(&file) }.unwrap();
        file.set_len(0).unwrap();
        println!("{}", plain[40_000]);
    }

    #[test]
    fn other_faults_still_end_the_process() {
        use std::os::unix::process::ExitStatusExt as _;
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "gguf::map::tests::other_fault", "--ignored"]);
        let status = child.env(FAULT, "1").output().unwrap().status;
        assert_eq!(status.signal(), Some(libc::SIGBUS));
    }
}
