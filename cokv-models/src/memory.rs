//! How much memory the process may still take: what the machine has, and what the job was granted (cgroups of Slurm, Docker,
//! systemd), which the machine's own count does not know.

use std::path::{Path, PathBuf};

use sysinfo::{MemoryRefreshKind, RefreshKind, System};

/// Where Linux shows control groups.
const CGROUPS: &str = "/sys/fs/cgroup";

/// Bytes that the process may still take before the system, or a limit on its job, would end it; none where nothing tells.
pub fn free_bytes() -> Option<u64> {
    let memory = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let machine = Some(System::new_with_specifics(memory).available_memory()).filter(|&bytes| bytes > 0);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let job = left_in_groups(&groups, Path::new(CGROUPS));
    machine.into_iter().chain(job).min()
}

/// The least that any of the process's control groups, or of those above them, has left. `groups` is `/proc/self/cgroup`.
fn left_in_groups(groups: &str, root: &Path) -> Option<u64> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?.trim_start_matches('/'));
        match controllers {
            "" => Some((root.to_path_buf(), path.to_owned(), &UNIFIED)),
            some if some.split(',').any(|name| name == "memory") => {
                Some((root.join("memory"), path.to_owned(), &LEGACY))
            }
            _ => None,
        }
    };
    let left = |(root, path, files): (PathBuf, String, &Files)| {
        let group = root.join(path);
        // Within a container the path may be the host's, which is not there: the root is the container's own.
        let groups = group.ancestors().take_while(|group| group.starts_with(&root));
        groups.filter_map(|group| files.left(group)).min()
    };
    groups.lines().filter_map(of_line).filter_map(left).min()
}

/// Names of a memory controller's files.
struct Files {
    limit: &'static str,
    used: &'static str,
    /// Key in `memory.stat` of what is used by copies of files, and given back when it is needed.
    given_back: &'static str,
}

const UNIFIED: Files = Files { limit: "memory.max", used: "memory.current", given_back: "inactive_file" };
const LEGACY: Files =
    Files { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", given_back: "total_inactive_file" };

impl Files {
    /// None without a limit.
    fn left(&self, group: &Path) -> Option<u64> {
        let number = |file: &str| std::fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let (limit, used) = (number(self.limit)?, number(self.used)?);
        let statistics = std::fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let of_key = |line: &str| line.strip_prefix(self.given_back)?.trim().parse::<u64>().ok();
        let given_back = statistics.lines().find_map(of_key).unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(given_back)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        let folder = root.join(path);
        std::fs::create_dir_all(&folder).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), format!("{text}\n")).unwrap());
    }

    #[test]
    fn the_smallest_grant_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let [unified, slurm, step] =
            ["", "system.slice/job_1", "system.slice/job_1/step_0"].map(|path| (root.path(), path));
        group(unified.0, unified.1, &[("memory.current", "1")]);
        group(
            slurm.0,
            slurm.1,
            &[("memory.max", "1000"), ("memory.current", "700"), ("memory.stat", "anon 5\ninactive_file 100")],
        );
        group(step.0, step.1, &[("memory.max", "max"), ("memory.current", "600")]);
        assert_eq!(left_in_groups("0::/system.slice/job_1/step_0\n", root.path()), Some(400));
        assert_eq!(left_in_groups("0::/system.slice\n", root.path()), None, "no limit");
        assert_eq!(left_in_groups("0::/../../elsewhere\n", root.path()), None);
        group(root.path(), "memory/docker/x", &[("memory.limit_in_bytes", "900"), ("memory.usage_in_bytes", "1000")]);
        assert_eq!(left_in_groups("3:cpu,cpuacct:/a\n5:memory:/docker/x\n", root.path()), Some(0));
    }

    #[test]
    fn this_machine_tells() {
        assert!(free_bytes().is_some_and(|bytes| bytes > 0));
    }
}
