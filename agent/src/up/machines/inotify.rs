//! Whether the machines find enough of the host's inotify instances, which all of root's processes share
//! (inotify(7), `max_user_instances`). A kubelet that gets none ends, and is started again and again.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::{Machine, UpError};
use crate::role::types::RoleName;

const LIMIT: &str = "/proc/sys/fs/inotify/max_user_instances";

/// Counted in machines that run: systemd 5, systemd-resolved 1, dbus 1; kubelet 7, containerd 2.4 2, kube-proxy 1; kube-apiserver 6,
/// kube-controller-manager 4; keepalived 1.
fn of(role: RoleName) -> usize {
    match role {
        RoleName::ControlPlane => 28,
        RoleName::Worker => 17,
        RoleName::LoadBalancer | RoleName::Etcd => 8,
    }
}

/// Those of root's that are in use.
fn used() -> usize {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| entry.metadata().is_ok_and(|data| data.uid() == 0))
        .flat_map(|entry| fs::read_dir(entry.path().join("fd")).into_iter().flatten().flatten())
        .filter(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:inotify"))
        .count()
}

/// `off`: the machines that are about to be powered on.
pub fn check<'a>(off: impl Iterator<Item = &'a Machine>) -> Result<(), UpError> {
    // Where it cannot be read nothing can be said.
    let limit = fs::read_to_string(LIMIT).ok().and_then(|text| text.trim().parse().ok());
    limit.map_or(Ok(()), |limit| judge(limit, used(), off.map(|machine| of(machine.role)).sum()))
}

fn judge(limit: usize, used: usize, wanted: usize) -> Result<(), UpError> {
    if used + wanted <= limit {
        return Ok(());
    }
    let enough = (used + wanted).next_multiple_of(1024);
    Err(UpError::new(
        format!(
            "this host lets root have {limit} inotify instances: {used} are in use, and these machines need about {wanted} more"
        ),
        format!("sysctl fs.inotify.max_user_instances={enough}, which holds until the host's next boot"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_told_with_a_number_that_does() {
        assert!(judge(128, 4, 122).is_ok());
        let said = judge(128, 4, 140).expect_err("too many").to_string();
        assert!(said.contains("root have 128 inotify instances: 4 are in use"), "{said}");
        assert!(said.contains("max_user_instances=1024"), "{said}");
    }
}
