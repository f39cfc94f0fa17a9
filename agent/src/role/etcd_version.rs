//! A version of etcd, as `etcd --version` and a member's `/version` say it.

use std::fmt;

use serde::Serialize;

use super::types::KubernetesVersion;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct EtcdVersion {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

/// The oldest external etcd that any supported kubeadm takes.
pub const OLDEST_ETCD: EtcdVersion = EtcdVersion { major: 3, minor: 5, patch: 11 };

/// The oldest external etcd that kubeadm of this version takes (`MinExternalEtcdVersion` in its constants of 1.32.0, 1.32.9,
/// 1.33.0, 1.33.9, 1.34.0, 1.34.4, 1.35.4, 1.36.3 and 1.37.2). A patch between two of these is taken for the older one.
pub fn oldest_etcd(kubernetes: KubernetesVersion) -> EtcdVersion {
    let patch = match (kubernetes.minor, kubernetes.patch) {
        (..33, _) | (33, ..9) => return OLDEST_ETCD,
        (34, ..4) => 21,
        _ => 24,
    };
    EtcdVersion { major: 3, minor: 5, patch }
}

impl EtcdVersion {
    /// Reads `3.7.0`; what follows a `-` is left out.
    pub fn read(text: &str) -> Option<Self> {
        let numbers = text.trim().split('-').next()?;
        let mut parts = numbers.split('.').map(|part| part.parse().ok());
        let version = Self { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }

    /// Reads what `etcd --version` prints.
    pub fn of_program(output: &str) -> Option<Self> {
        Self::read(output.lines().find_map(|line| line.strip_prefix("etcd Version:"))?)
    }

    /// Reads what a member answers at `/version`.
    pub fn of_member(answer: &str) -> Option<Self> {
        Self::read(serde_json::from_str::<serde_json::Value>(answer).ok()?["etcdserver"].as_str()?)
    }

    /// From 3.6 on what was experimental has a flag or a feature gate of its own, and 3.7 knows the old flags no more.
    pub fn has_feature_gates(self) -> bool {
        (self.major, self.minor) >= (3, 6)
    }
}

impl fmt::Display for EtcdVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_where_etcd_tells_them() {
        let is = |minor, patch| Some(EtcdVersion { major: 3, minor, patch });
        assert_eq!(
            EtcdVersion::of_program("etcd Version: 3.7.0\nGit SHA: Not provided\nGo Version: go1.26.8\n"),
            is(7, 0)
        );
        assert_eq!(EtcdVersion::of_program("etcd Version: 3.5.16\n"), is(5, 16));
        assert_eq!(EtcdVersion::of_program("3.7.0\n"), None);
        assert_eq!(
            EtcdVersion::of_member(r#"{"etcdserver":"3.6.8","etcdcluster":"3.6.0","storage":"3.6.0"}"#),
            is(6, 8)
        );
        assert_eq!(EtcdVersion::of_member("404 page not found"), None);
        assert_eq!(EtcdVersion::read("3.8.0-alpha.0"), is(8, 0));
        assert_eq!(EtcdVersion::read("3.7"), None);
        assert_eq!(EtcdVersion::read("3.7.0.1"), None);
        assert!(is(5, 9) < Some(OLDEST_ETCD));
        // What kubeadm of v1.32.0 and v1.33.0 starts itself, and the bounds of later ones.
        for (kubernetes, takes, refuses) in [
            ("v1.32.0", is(5, 16), is(5, 10)),
            ("v1.33.0", is(5, 21), is(5, 10)),
            ("v1.33.9", is(5, 24), is(5, 23)),
            ("v1.34.0", is(5, 21), is(5, 20)),
            ("v1.34.4", is(5, 24), is(5, 23)),
            ("v1.37.2", is(5, 24), is(5, 23)),
        ] {
            let oldest = Some(oldest_etcd(kubernetes.parse().expect("a version")));
            assert!(takes >= oldest && refuses < oldest, "{kubernetes}");
        }
    }
}
