//! What this machine has of what a test wants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Says why a test cannot run here. With `CI` set nothing may be missing: a test that never runs tells nobody anything.
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci.is_empty()), "skipped, with CI set: {why}");
    eprintln!("skipped: {why}");
}

/// The kubeadm of each version that `tests/kubernetes/build` made here, the newest last, or the one that is named.
#[allow(dead_code)] // not every test asks it
pub fn kubeadms() -> Vec<PathBuf> {
    if let Some(path) = std::env::var_os("KINDLING_TEST_KUBEADM") {
        return vec![path.into()];
    }
    let default = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache");
    let cache = std::env::var_os("KINDLING_CACHE").map_or(default, PathBuf::from);
    let folders = std::fs::read_dir(cache.join("kubernetes")).into_iter().flatten().flatten();
    // A folder is called VERSION-SOURCE-KEY; one of each version will do.
    let programs: BTreeMap<String, PathBuf> = folders
        .filter_map(|folder| {
            let name = folder.file_name().into_string().ok()?;
            Some((name.split_once('-')?.0.to_owned(), folder.path().join("bin/kubeadm")))
        })
        .filter(|(_, program)| program.exists())
        .collect();
    if programs.is_empty() {
        skip("there is no kubeadm here (tests/kubernetes/build makes one)");
    }
    programs.into_values().collect()
}
