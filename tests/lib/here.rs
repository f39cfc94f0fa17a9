//! What this machine has of what a test wants.

use std::path::{Path, PathBuf};

/// Says why a test cannot run here. With `CI` set nothing may be missing: a test that never runs tells nobody anything.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped, with CI set: {why}");
    eprintln!("skipped: {why}");
}

/// The kubeadm of each version that `tests/kubernetes/build` made here, the newest last.
#[allow(dead_code)] // not every test asks it
pub fn kubeadms() -> Vec<PathBuf> {
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache");
    let cache = std::env::var_os("KINDLING_CACHE").map_or(default, PathBuf::from);
    let folders = std::fs::read_dir(cache.join("kubernetes")).into_iter().flatten();
    let programs = folders.filter_map(|entry| Some(entry.ok()?.path().join("bin/kubeadm")));
    let mut programs: Vec<PathBuf> = programs.filter(|path| path.exists()).collect();
    programs.sort();
    if programs.is_empty() {
        skip("there is no kubeadm here (tests/kubernetes/build makes one)");
    }
    programs
}
