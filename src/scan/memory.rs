//! How much memory this process may still take, and whether a second engine fits in it.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

/// No file that is read here is longer.
const LONGEST: u64 = 64 * 1024;

/// A limit from here on is none: version 1 says the largest number of whole pages where there is none.
const NO_LIMIT: u64 = 1 << 62;

/// No control group lies deeper, of those that are looked at.
const DEEPEST: usize = 32;

/// The memory that is left, as the control groups of this process and the machine say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// The control group that leaves the least, of the process's own and those above it.
    pub group: Option<Group>,
    /// What the machine could give without swapping (`MemAvailable`).
    pub available: Option<u64>,
}

/// A control group with a limit on memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group {
    /// The limit in bytes.
    pub limit: u64,
    /// What is in use, in bytes, without the files that the kernel would drop first.
    pub used: u64,
}

impl Group {
    fn room(self) -> u64 {
        self.limit.saturating_sub(self.used)
    }
}

/// The files of one of the two kinds of control groups.
struct Kind {
    mounts: &'static [&'static str],
    limits: &'static [&'static str],
    used: &'static str,
    /// The key in `memory.stat` of the limit that the groups above set, if there is one.
    limit_above: &'static str,
    /// The keys in `memory.stat` of the files that can be dropped.
    droppable: [&'static str; 2],
}

/// <https://docs.kernel.org/admin-guide/cgroup-v2.html>
const SECOND: Kind = Kind {
    mounts: &["sys/fs/cgroup", "sys/fs/cgroup/unified"],
    // Above `memory.high`, the kernel slows down whoever allocates.
    limits: &["memory.max", "memory.high"],
    used: "memory.current",
    limit_above: "",
    droppable: ["inactive_file", "active_file"],
};

/// <https://docs.kernel.org/admin-guide/cgroup-v1/memory.html>
const FIRST: Kind = Kind {
    mounts: &["sys/fs/cgroup/memory"],
    limits: &["memory.limit_in_bytes"],
    used: "memory.usage_in_bytes",
    limit_above: "hierarchical_memory_limit",
    droppable: ["total_inactive_file", "total_active_file"],
};

impl Memory {
    /// Looks now. What cannot be read or understood is left out.
    #[must_use]
    pub fn look() -> Self {
        Self::look_below(Path::new("/"))
    }

    fn look_below(root: &Path) -> Self {
        let groups = read(&root.join("proc/self/cgroup")).unwrap_or_default();
        let group =
            own_groups(&groups).iter().flat_map(|(kind, path)| limited(root, kind, path)).min_by_key(|group| group.room());
        let available = read(&root.join("proc/meminfo")).ok().and_then(|text| kibibytes(&text, "MemAvailable"));
        Self { group, available }
    }

    /// How many bytes this process may still take; `None` when nothing is known.
    #[must_use]
    pub fn room(&self) -> Option<u64> {
        self.group.map(Group::room).into_iter().chain(self.available).min()
    }

    /// Whether a second engine can be loaded beside one of `engine` bytes, with room left for `budget` bytes of objects. A
    /// quarter of the engine is added: a load takes more than what it leaves, and databases grow. True when the room or the
    /// size is not known.
    #[must_use]
    pub fn holds_another(&self, engine: Option<u64>, budget: u64) -> bool {
        let (Some(room), Some(engine)) = (self.room(), engine) else { return true };
        room >= engine.saturating_add(engine / 4).saturating_add(budget)
    }
}

/// The memory that this process has for itself, in bytes; `None` where the system does not say.
#[must_use]
pub fn private_memory() -> Option<u64> {
    kibibytes(&read(Path::new("/proc/self/status")).ok()?, "RssAnon")
}

/// The groups of `/proc/self/cgroup` that can limit memory: `0::/path`, and `5:memory:/path` with others beside `memory`.
fn own_groups(text: &str) -> Vec<(&'static Kind, PathBuf)> {
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let kind = if number == "0" && controllers.is_empty() {
            &SECOND
        } else if controllers.split(',').any(|name| name == "memory") {
            &FIRST
        } else {
            return None;
        };
        Some((kind, PathBuf::from(path)))
    };
    text.lines().filter_map(of_line).take(2).collect()
}

/// The group at the path and those above it that have a limit. In a container, the path can be that of the host: then what is
/// mounted is the container's group, and only the topmost is found.
fn limited(root: &Path, kind: &Kind, path: &Path) -> Vec<Group> {
    let names: Vec<_> = path.components().filter(|name| matches!(name, Component::Normal(_))).take(DEEPEST).collect();
    let mut groups = Vec::new();
    for mount in kind.mounts {
        for depth in (0..=names.len()).rev() {
            let dir = names.iter().take(depth).fold(root.join(mount), |dir, name| dir.join(name));
            groups.extend(group(kind, &dir));
        }
    }
    groups
}

fn group(kind: &Kind, dir: &Path) -> Option<Group> {
    let stat = read(&dir.join("memory.stat")).unwrap_or_default();
    let value =
        |name: &str| stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse::<u64>().ok());
    let limits = kind.limits.iter().filter_map(|name| read(&dir.join(name)).ok()?.trim().parse().ok());
    // "max" is no number. Version 1 has a number of pages that no machine has.
    let limit = limits.chain(value(kind.limit_above)).filter(|&limit| limit < NO_LIMIT).min()?;
    let used: u64 = read(&dir.join(kind.used)).ok()?.trim().parse().ok()?;
    let droppable = kind.droppable.iter().filter_map(|name| value(name)).fold(0, u64::saturating_add);
    Some(Group { limit, used: used.saturating_sub(droppable) })
}

/// The value of a line `Name:  123 kB`, in bytes.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MIB: u64 = 1024 * 1024;

    /// What is found in a file system with these files.
    fn look(files: &[(&str, &str)]) -> io::Result<Memory> {
        let root = tempfile::tempdir()?;
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap_or(root.path()))?;
            fs::write(path, content)?;
        }
        Ok(Memory::look_below(root.path()))
    }

    #[test]
    fn the_group_that_leaves_the_least_counts() -> io::Result<()> {
        let own = ("proc/self/cgroup", "1:name=systemd:/elsewhere\n0::/a/b\n");
        let second = |dir: &str, limit: &str, used: &str| {
            let path = |name: &str| format!("sys/fs/cgroup{dir}/{name}");
            [(path("memory.max"), limit.to_owned()), (path("memory.current"), used.to_owned())]
        };
        for (groups, expected) in [
            (vec![second("/a/b", "1000\n", "600\n")], Some((1000, 600))),
            (vec![second("/a/b", "max\n", "600\n")], None),
            (vec![second("/a/b", "max\n", "600\n"), second("/a", "2000", "700")], Some((2000, 700))),
            (vec![second("/a/b", "1000", "100"), second("/a", "2000", "1500")], Some((2000, 1500))),
            (vec![second("/a/b", "1000", "999"), second("/a", "2000", "1500")], Some((1000, 999))),
            // In use above a limit that was lowered.
            (vec![second("/a/b", "1000", "5000")], Some((1000, 5000))),
            // The path is the host's, the mount is the container's.
            (vec![second("", "3000", "1")], Some((3000, 1))),
            (vec![second("/elsewhere", "10", "1")], None),
            // Nonsense.
            (vec![second("/a/b", "-1", "1")], None),
            (vec![second("/a/b", "99999999999999999999999", "1")], None),
            (vec![second("/a/b", "", "")], None),
            (vec![second("/a/b", "9223372036854771712", "1")], None),
            (vec![second("/a/b", "1000", "many")], None),
            (vec![], None),
        ] {
            let files: Vec<_> = groups.iter().flatten().map(|(name, content)| (name.as_str(), content.as_str())).collect();
            let found = look(&[&[own], files.as_slice()].concat())?;
            let expected = expected.map(|(limit, used)| Group { limit, used });
            assert_eq!(found, Memory { group: expected, available: None }, "{groups:?}");
        }
        Ok(())
    }

    #[test]
    fn files_that_can_be_dropped_are_not_in_use() -> io::Result<()> {
        let second = look(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "1000\n"),
            ("sys/fs/cgroup/memory.current", "900\n"),
            ("sys/fs/cgroup/memory.stat", "anon 100\ninactive_file_not 7\ninactive_file 300\nactive_file 50\n"),
        ])?;
        assert_eq!(second.group, Some(Group { limit: 1000, used: 550 }));
        let first = look(&[
            ("proc/self/cgroup", "4:cpu,memory:/docker/x\n0::/docker/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "900\n"),
            ("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 2000\n"),
        ])?;
        assert_eq!(first.group, Some(Group { limit: 1000, used: 0 }));
        Ok(())
    }

    #[test]
    fn other_files_that_limit_memory() -> io::Result<()> {
        let second = look(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/memory.high", "800\n"),
            ("sys/fs/cgroup/memory.current", "100\n"),
        ])?;
        assert_eq!(second.group, Some(Group { limit: 800, used: 100 }));
        // The group that sets it cannot be seen.
        let first = look(&[
            ("proc/self/cgroup", "4:memory:/ecs/task/container\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "100\n"),
            ("sys/fs/cgroup/memory/memory.stat", "hierarchical_memory_limit 700\n"),
        ])?;
        assert_eq!(first.group, Some(Group { limit: 700, used: 100 }));
        Ok(())
    }

    #[test]
    fn hostile_groups_and_memory_information() -> io::Result<()> {
        let deep = format!("0::{}", "/d".repeat(20_000));
        for cgroup in ["", ":", "::", "0:", "0::", "memory", "x:memory", "0::/../../../etc\n", "\u{0}\u{0}:\u{0}", &deep] {
            for meminfo in [
                "",
                "MemAvailable",
                "MemAvailable:",
                "MemAvailable: -1 kB",
                "MemAvailable: 5",
                "MemAvailable: 99999999999999999999 kB",
            ] {
                let found = look(&[
                    ("proc/self/cgroup", cgroup),
                    ("proc/meminfo", meminfo),
                    ("etc/memory.max", "1"),
                    ("etc/memory.current", "1"),
                ])?;
                assert_eq!(found, Memory::default(), "{cgroup:.40} {meminfo}");
            }
        }
        let found = look(&[("proc/meminfo", "MemTotal: 9 kB\nMemAvailable:    5 kB\n")])?;
        assert_eq!((found.available, found.room()), (Some(5 * 1024), Some(5 * 1024)));
        Ok(())
    }

    #[test]
    fn whether_a_second_engine_fits() {
        let group = |limit, used| Some(Group { limit: limit * MIB, used: used * MIB });
        for (group, available, engine, budget, fits) in [
            // An engine of 1000 MiB takes 1250, and 512 are kept for objects.
            (group(4000, 1500), None, Some(1000), 512, true),
            (group(3262, 1500), None, Some(1000), 512, true),
            (group(3261, 1500), None, Some(1000), 512, false),
            (group(2000, 1500), None, Some(1000), 512, false),
            (group(1000, 1500), None, Some(1000), 512, false),
            (group(4000, 1500), Some(1761), Some(1000), 512, false),
            (None, Some(1762), Some(1000), 512, true),
            (None, Some(0), Some(1000), 512, false),
            // Nothing is known.
            (None, None, Some(1000), 512, true),
            (group(2000, 1999), None, None, 512, true),
        ] {
            let memory = Memory { group, available: available.map(|mib: u64| mib * MIB) };
            let engine = engine.map(|mib: u64| mib * MIB);
            assert_eq!(memory.holds_another(engine, budget * MIB), fits, "{memory:?} {engine:?}");
        }
        assert!(!Memory { group: None, available: Some(u64::MAX - 1) }.holds_another(Some(u64::MAX), u64::MAX));
    }

    #[test]
    fn this_process_has_memory() {
        assert!(private_memory().is_some_and(|bytes| bytes > 100 * 1024));
        assert!(Memory::look().room().is_some_and(|bytes| bytes > 0));
    }
}
