//! What the machine allows this process: processors, memory, open files.
//!
//! Everything here is read once at start. Where the system does not say (another operating system, a file that is
//! not there) the answer is the cautious one, never an error.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files that are assumed open-able when the limit cannot be read.
const OPEN_FILES_UNKNOWN: u64 = 1024;

/// What "no limit" counts as: more descriptors than one process can use.
const OPEN_FILES_UNLIMITED: u64 = 1 << 24;

/// A cgroup v1 limit at or above this many bytes means "none": the kernel writes the largest page-aligned number.
const MEMORY_UNLIMITED: u64 = 1 << 60;

/// Processors this process may use: its affinity mask and its cgroup quota, rounded down, at least one.
pub fn processors() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Raises the soft limit of open files to the hard one and returns the limit that holds then.
pub fn raise_open_files() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    if before.current != before.maximum && setrlimit(Resource::Nofile, raised).is_err() {
        return before.current.unwrap_or(OPEN_FILES_UNKNOWN);
    }
    before.maximum.unwrap_or(OPEN_FILES_UNLIMITED)
}

/// Bytes of memory this process may use: the smallest cgroup limit above it, else the machine's memory.
///
/// `None` when neither can be read.
pub fn memory_bytes() -> Option<u64> {
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|text| machine_memory(&text));
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = memory_limit_files(&groups)
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .filter_map(|text| text.trim().parse::<u64>().ok())
        .filter(|bytes| *bytes < MEMORY_UNLIMITED)
        .min();
    machine.into_iter().chain(group).min()
}

/// The `MemTotal` line of `/proc/meminfo`, in bytes.
fn machine_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Every file that may hold a memory limit for the groups of `/proc/self/cgroup`, from the inside out.
///
/// The lines are `hierarchy:controllers:path`; version 2 has the one line `0::path`. Inside a container the path may
/// be relative to another root than the mounted one, so the mount's own root is always among the candidates.
fn memory_limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        let (mount, name) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max")
        } else if controllers.split(',').any(|controller| controller == "memory") {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
        } else {
            continue;
        };
        let inside = Path::new(path.trim_start_matches('/'));
        files.extend(inside.ancestors().map(|above| Path::new(mount).join(above).join(name)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_2_group_is_looked_up_to_the_root() {
        let files = memory_limit_files("0::/kubepods/pod1\n");
        let expected = [
            "/sys/fs/cgroup/kubepods/pod1/memory.max",
            "/sys/fs/cgroup/kubepods/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
    }

    #[test]
    fn a_version_1_line_counts_only_for_the_memory_controller() {
        let files = memory_limit_files("4:cpu,cpuacct:/a\n3:memory:/a\n");
        let expected =
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
        assert_eq!(files, expected.map(PathBuf::from));
    }

    #[test]
    fn machine_memory_is_read_in_kibibytes() {
        assert_eq!(machine_memory("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2_097_152));
        assert_eq!(machine_memory("MemTotal: many kB\n"), None);
    }

    #[test]
    fn this_process_has_processors_memory_and_files() {
        assert!(processors().get() >= 1);
        assert!(raise_open_files() >= 256);
        assert_eq!(raise_open_files(), raise_open_files());
    }
}
