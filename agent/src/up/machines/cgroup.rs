//! A control group for each machine, in every hierarchy of this host (v1, v2, or both side by side). It holds
//! whatever runs in the machine, so it also says what is left to be killed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::args::Names;
use crate::up::UpError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    pub mount: PathBuf,
    pub v2: bool,
}

/// The hierarchies in a text of /proc/self/mounts.
pub fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mounts.lines() {
        let mut words = line.split(' ').skip(1);
        let (Some(path), Some(kind)) = (words.next(), words.next()) else { continue };
        let mount = PathBuf::from(path);
        if matches!(kind, "cgroup" | "cgroup2") && !found.iter().any(|h| h.mount == mount) {
            found.push(Hierarchy { mount, v2: kind == "cgroup2" });
        }
    }
    found
}

fn host() -> Vec<Hierarchy> {
    hierarchies(&fs::read_to_string("/proc/self/mounts").unwrap_or_default())
}

/// Whether anything but v2 is there.
pub fn is_legacy() -> bool {
    host().iter().any(|h| !h.v2)
}

/// Makes a machine's groups; answers their folders.
pub fn create(name: &str) -> Result<Vec<String>, UpError> {
    let mut groups = Vec::new();
    let hierarchies = host();
    let unified = hierarchies.iter().all(|h| h.v2);
    for hierarchy in &hierarchies {
        if unified {
            enable_controllers(&hierarchy.mount)?;
        }
        let group = hierarchy.mount.join(name);
        let failed = |error: std::io::Error| UpError::file("make the control group", &group, &error);
        fs::create_dir_all(&group).map_err(failed)?;
        // A new group of v1's cpuset has no CPU and no memory node, and takes no process.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if !hierarchy.v2 && group.join(file).exists() {
                let value = fs::read(hierarchy.mount.join(file)).map_err(failed)?;
                fs::write(group.join(file), value).map_err(failed)?;
            }
        }
        groups.push(group.to_string_lossy().into_owned());
    }
    if groups.is_empty() {
        return Err(UpError::new(
            "no control groups are mounted on this host",
            "mount cgroup2 at /sys/fs/cgroup",
        ));
    }
    Ok(groups)
}

/// v2: children have a controller only when their parent hands it down.
fn enable_controllers(root: &Path) -> Result<(), UpError> {
    let read = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
    let enabled = read("cgroup.subtree_control");
    let missing: Vec<String> = read("cgroup.controllers")
        .split_whitespace()
        .filter(|c| !enabled.split_whitespace().any(|e| e == *c))
        .map(str::to_owned)
        .collect();
    let mut refused = Vec::new();
    for controller in missing {
        let file = root.join("cgroup.subtree_control");
        // The kubelet asks for these; the others may stay away.
        if fs::write(&file, format!("+{controller}")).is_err()
            && matches!(controller.as_str(), "cpu" | "cpuset" | "memory" | "pids")
        {
            refused.push(controller);
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    Err(UpError::new(
        format!(
            "cannot hand down the control group controllers {} below {}",
            refused.join(", "),
            root.display()
        ),
        "in a container: start it with a control group namespace of its own whose root has no processes (move them into a child group)",
    ))
}

/// A group's folder and all below it, the deepest first.
fn below(group: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Ok(entries) = fs::read_dir(group) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            found.extend(below(&entry.path()));
        }
        found.push(group.to_path_buf());
    }
    found
}

fn processes(group: &Path) -> Vec<i32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // 0 is a process that this one cannot see.
    text.lines().filter_map(|l| l.parse().ok()).filter(|pid| *pid > 0).collect()
}

fn groups_of(name: &str) -> Vec<PathBuf> {
    host().iter().map(|h| h.mount.join(name)).filter(|group| group.is_dir()).collect()
}

/// The process that is number 1 in the machine's own process namespace: nspawn's child.
pub fn first_process(name: &str) -> Option<Pid> {
    let is_first = |pid: &i32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let numbers = status.lines().find_map(|l| l.strip_prefix("NSpid:")).unwrap_or_default();
        is_machines_first(numbers, own_depth())
    };
    let groups = groups_of(name).into_iter().flat_map(|group| below(&group));
    groups.flat_map(|group| processes(&group)).find(is_first).map(Pid::from_raw)
}

/// `numbers` are a process's numbers from our namespace inwards; containers in the machine are deeper.
fn is_machines_first(numbers: &str, own_depth: usize) -> bool {
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    numbers.len() == own_depth + 1 && numbers.last() == Some(&"1")
}

fn own_depth() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|l| l.strip_prefix("NSpid:"))
        .map_or(1, |numbers| numbers.split_whitespace().count())
}

/// Kills whatever is in a machine's groups, and removes them.
pub fn clear(name: &str) -> Result<(), UpError> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let groups: Vec<PathBuf> = groups_of(name).iter().flat_map(|group| below(group)).collect();
        let mut left = Vec::new();
        for group in &groups {
            // v1: a frozen process does not die.
            if group.join("freezer.state").exists() {
                let _ = fs::write(group.join("freezer.state"), "THAWED");
            }
            for pid in processes(group) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            match fs::remove_dir(group) {
                Err(error) if error.kind() != ErrorKind::NotFound => left.push(group.display().to_string()),
                _ => {}
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(UpError::new(
                format!("these control groups cannot be removed: {}", left.join(", ")),
                "look which processes are in them (cgroup.procs); `kindling down` tries again",
            ));
        }
        std::thread::sleep(Duration::from_millis(30));
    }
}

/// The machines' names of a cluster that have groups, whoever made them.
pub fn all(names: &Names) -> Vec<String> {
    let mut found: Vec<String> = host()
        .iter()
        .filter_map(|h| fs::read_dir(&h.mount).ok())
        .flat_map(|entries| entries.flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| names.is_ours(name))
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_of_both_versions_are_found_once() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(
            hierarchies(mounts),
            [
                Hierarchy { mount: "/sys/fs/cgroup/cpu".into(), v2: false },
                Hierarchy { mount: "/sys/fs/cgroup/unified".into(), v2: true },
            ]
        );
    }

    #[test]
    fn the_first_process_of_the_machine_is_not_that_of_a_container_in_it() {
        assert!(is_machines_first("\t4711\t1", 1));
        assert!(!is_machines_first("\t4711", 1));
        assert!(!is_machines_first("\t4711\t80\t1", 1));
        assert!(!is_machines_first("\t4711\t21", 1));
        assert!(is_machines_first("\t4711\t12\t1", 2));
    }
}
