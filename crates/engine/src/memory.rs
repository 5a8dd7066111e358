//! How much memory this process may use, how much it uses, and how often it waited for a page: from its cgroup (either
//! version), the machine and the kernel's counters. It must not know what the memory is for.

use std::fs;
use std::path::Path;

/// Where a container sees its own cgroup.
const CGROUP: &str = "/sys/fs/cgroup";

/// What is used of the cgroup's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Heap, stacks, KV cache: what only swapping could move out.
    pub anonymous: u64,
    /// All but the page cache that was not read lately: what the kubelet counts when it evicts. Weights that are in use
    /// are mapped pages and count.
    pub working_set: u64,
}

/// Bytes that may be used, if anything says so.
pub fn limit() -> Option<u64> {
    limit_in(Path::new(CGROUP))
        .into_iter()
        .chain(machine())
        .min()
}

/// What the cgroup uses; `None` where there is none to read.
pub fn usage() -> Option<Usage> {
    usage_in(Path::new(CGROUP))
}

/// Times that this process waited for a page to come from a disk, since it started.
pub fn major_faults() -> Option<u64> {
    majflt(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn limit_in(cgroup: &Path) -> Option<u64> {
    ["memory.max", "memory/memory.limit_in_bytes"]
        .iter()
        // "max" is no number, and no limit.
        .find_map(|file| number(&cgroup.join(file)))
}

fn usage_in(cgroup: &Path) -> Option<Usage> {
    let v2 = || {
        let used = number(&cgroup.join("memory.current"))?;
        Some((used, cgroup.join("memory.stat"), "anon", "inactive_file"))
    };
    let v1 = || {
        let dir = cgroup.join("memory");
        let used = number(&dir.join("memory.usage_in_bytes"))?;
        let stat = dir.join("memory.stat");
        Some((used, stat, "total_rss", "total_inactive_file"))
    };
    let (used, stat, anonymous, inactive) = v2().or_else(v1)?;
    let stat = fs::read_to_string(stat).ok()?;
    Some(Usage {
        anonymous: field(&stat, anonymous)?,
        working_set: used.saturating_sub(field(&stat, inactive)?),
    })
}

fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after `name` in lines of "name number".
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .find(|(key, _)| *key == name)
        .and_then(|(_, value)| value.trim().parse().ok())
}

/// The twelfth field of /proc/PID/stat. The second is the program's name in parentheses, which may hold anything.
fn majflt(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(9)?.parse().ok()
}

fn machine() -> Option<u64> {
    total(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// `MemTotal` of /proc/meminfo, in bytes.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim()
        .strip_suffix(" kB")?
        .trim()
        .parse::<u64>()
        .ok()?
        .checked_mul(1024)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn cgroup(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn both_versions_of_cgroups_are_read() {
        let wanted = Some(Usage {
            anonymous: 300,
            working_set: 900,
        });
        let v2 = cgroup(&[
            ("memory.max", "2000\n"),
            ("memory.current", "1000\n"),
            ("memory.stat", "anon 300\nfile 700\ninactive_file 100\n"),
        ]);
        assert_eq!(
            (limit_in(v2.path()), usage_in(v2.path())),
            (Some(2000), wanted)
        );
        let v1 = cgroup(&[
            ("memory/memory.limit_in_bytes", "2000\n"),
            ("memory/memory.usage_in_bytes", "1000\n"),
            (
                "memory/memory.stat",
                "rss 1\ninactive_file 2\ntotal_rss 300\ntotal_inactive_file 100\n",
            ),
        ]);
        assert_eq!(
            (limit_in(v1.path()), usage_in(v1.path())),
            (Some(2000), wanted)
        );
        let unlimited = cgroup(&[("memory.max", "max\n"), ("memory.current", "1\n")]);
        let none = (None, None);
        assert_eq!(
            (limit_in(unlimited.path()), usage_in(unlimited.path())),
            none
        );
        let empty = cgroup(&[]);
        assert_eq!((limit_in(empty.path()), usage_in(empty.path())), none);
    }

    #[test]
    fn faults_are_the_twelfth_field_whatever_the_name() {
        assert_eq!(majflt("1 (a) b) S 2 3 4 5 6 7 8 9 123 10 11\n"), Some(123));
        assert_eq!(majflt("1 (a) S 2\n"), None);
        assert!(major_faults().is_some());
    }

    #[test]
    fn reads_meminfo() {
        assert_eq!(
            total("MemTotal:       16384 kB\nMemFree: 1 kB\n"),
            Some(16 << 20)
        );
        assert_eq!(total("MemFree: 1 kB\n"), None);
        assert_eq!(total("MemTotal: lots\n"), None);
    }
}
