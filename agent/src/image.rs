//! The image that runs on this machine: what its kernel verifies, and what stands in there.

use serde::{Deserialize, Serialize};

use crate::host::{Command, Host, read_text};

/// Label of a Node, so that `kubectl get nodes -L kindling/image` shows it.
pub const VERSION_LABEL: &str = "kindling/image";
/// Annotation of a Node; a label holds 63 characters, and a SHA-256 has 64.
pub const ROOT_ANNOTATION: &str = "kindling/root-hash";

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub version: String,
    /// `sha256:...`, the top of the hash tree by which dm-verity verifies the root file system; `None` where the root is
    /// not sealed: in a system container, and on a system that was not baked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root_hash: Option<String>,
}

impl Image {
    /// `None` on a system that no bake has given a version.
    pub fn running(host: &dyn Host) -> Option<Self> {
        // os-release(5). It lies in the root, so what is true of the root is true of it.
        let release = read_text(host, "/usr/lib/os-release")?;
        let version = release.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="))?.trim_matches('"');
        Some(Self { version: version.to_owned(), root_hash: root_hash(host) })
    }
}

/// The kernel's own answer for the device that is mounted as /.
fn root_hash(host: &dyn Host) -> Option<String> {
    let mounts = read_text(host, "/proc/self/mountinfo")?;
    // Major and minor number, proc_pid_mountinfo(5). The last mount on / is the one that is seen.
    let mut roots = mounts.lines().filter(|line| line.split(' ').nth(4) == Some("/"));
    let device = roots.next_back()?.split(' ').nth(2)?;
    // Only a device that the device mapper made has a table.
    let name = read_text(host, format!("/sys/dev/block/{device}/dm/name"))?;
    let table = host.run(&Command::query("dmsetup", ["table", name.trim()])).ok()?;
    verified(&table.stdout)
}

/// `START LENGTH verity VERSION DATA HASHES BLOCK BLOCK BLOCKS START ALGORITHM DIGEST SALT ...`
/// (<https://docs.kernel.org/admin-guide/device-mapper/verity.html>).
fn verified(table: &str) -> Option<String> {
    let words: Vec<&str> = table.lines().next()?.split_whitespace().collect();
    match words.as_slice() {
        [_, _, "verity", _, _, _, _, _, _, _, algorithm, digest, ..] => Some(format!("{algorithm}:{digest}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fake::Fake;

    #[test]
    fn the_root_hash_is_what_the_kernel_verifies_the_mounted_root_with() {
        let host = Fake::new();
        assert_eq!(Image::running(&host), None);
        host.put("/usr/lib/os-release", "ID=debian\nIMAGE_VERSION=\"1.37.2-261125.0346-0123abc\"\n");
        let image = |root_hash: Option<&str>| {
            let version = "1.37.2-261125.0346-0123abc".to_owned();
            Some(Image { version, root_hash: root_hash.map(str::to_owned) })
        };
        host.put(
            "/proc/self/mountinfo",
            "22 1 254:1 / / ro - erofs /dev/mapper/root ro\n30 22 0:28 / /run rw - tmpfs tmpfs rw\n",
        );
        assert_eq!(Image::running(&host), image(None));
        host.put("/sys/dev/block/254:1/dm/name", "root\n");
        host.put("/fake/dmsetup/root", "0 1 linear 254:0 0\n");
        assert_eq!(Image::running(&host), image(None));
        host.put(
            "/fake/dmsetup/root",
            "0 2097152 verity 1 8:2 8:1 4096 4096 262144 1 sha256 8f0c 77aa 1 panic_on_corruption\n",
        );
        assert_eq!(Image::running(&host), image(Some("sha256:8f0c")));
    }
}
