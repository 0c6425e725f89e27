//! How much memory the process may still take.
//!
//! Linux promises more memory than there is and kills later, so a cache is checked before it is
//! asked for.

use std::path::Path;

/// Bytes that the machine and the process's control group have left, where the system says.
pub fn available_bytes() -> Option<u64> {
    let machine = meminfo(&std::fs::read_to_string("/proc/meminfo").ok()?)?;
    Some(machine.min(group_bytes(Path::new("/sys/fs/cgroup")).unwrap_or(u64::MAX)))
}

/// `MemAvailable` and free swap of Linux's `/proc/meminfo`.
fn meminfo(text: &str) -> Option<u64> {
    let kib = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    Some((kib("MemAvailable:")? + kib("SwapFree:").unwrap_or(0)) * 1024)
}

/// What the limit of a version 2 control group leaves. Pages of files count as used there but
/// are given back on demand.
fn group_bytes(group: &Path) -> Option<u64> {
    let read = |name: &str| std::fs::read_to_string(group.join(name)).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let used: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat")?;
    let file = stat.lines().find_map(|line| line.strip_prefix("file "));
    let file: u64 = file.and_then(|n| n.parse().ok()).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_understood() {
        let text = "MemTotal: 9 kB\nMemAvailable:  2048 kB\nSwapFree: 1 kB\n";
        assert_eq!(meminfo(text), Some(2049 * 1024));
        assert_eq!(meminfo("nonsense"), None);
    }

    #[test]
    fn a_group_gives_back_file_pages() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text);
        write("memory.max", "1000\n").expect("write");
        write("memory.current", "900\n").expect("write");
        write("memory.stat", "anon 400\nfile 500\n").expect("write");
        assert_eq!(group_bytes(folder.path()), Some(600));
        write("memory.max", "max\n").expect("write");
        assert_eq!(group_bytes(folder.path()), None);
    }
}
