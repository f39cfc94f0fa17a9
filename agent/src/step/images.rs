//! Preloaded images: pinned against the kubelet's garbage collection. Archives that are not in the
//! store yet are imported in the background, so that nobody waits for them on the way to Ready.

use std::path::{Path, PathBuf};

use super::{Context, Found};
use crate::error::StepError;
use crate::host::{Command, Host, read_text};

/// The images that the bake put into containerd's store: a JSON list of `name` and `digest`.
pub const PRELOADED: &str = "/usr/share/kindling/images.json";
/// Archives that an operator adds to a machine.
pub const ARCHIVES: &str = "/var/lib/kindling/images";
/// Names of archives that were imported, one a line.
const IMPORTED: &str = "/var/lib/kindling/images.imported";
/// Names of archives whose import was begun since the machine started, one a line.
const BEGUN: &str = "/run/kindling/images.begun";
const IMPORT: &str = "kindling-import.service";

/// The label that makes containerd's CRI plugin report an image as pinned
/// (<https://kubernetes.io/docs/concepts/architecture/garbage-collection/#container-image-lifecycle>).
const PIN: &str = "io.cri-containerd.pinned=pinned";

fn ctr<'a>(args: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    ["--namespace=k8s.io", "images"].into_iter().chain(args).map(str::to_owned).collect()
}

/// Images in the store as (name, whether pinned).
fn stored(host: &dyn Host) -> Result<Vec<(String, bool)>, StepError> {
    let output = host.run(&Command::query("ctr", ctr(["ls"])))?;
    Ok(output
        .stdout
        .lines()
        .skip(1)
        .filter_map(|line| Some((line.split_whitespace().next()?.to_owned(), line.contains(PIN))))
        .collect())
}

fn preloaded(host: &dyn Host) -> Vec<String> {
    let list: serde_json::Value =
        serde_json::from_str(&read_text(host, PRELOADED).unwrap_or_default()).unwrap_or_default();
    let images = list.as_array().into_iter().flatten();
    images.filter_map(|image| image["name"].as_str().map(str::to_owned)).collect()
}

fn unpinned(host: &dyn Host) -> Result<(Vec<String>, Vec<String>), StepError> {
    let stored = stored(host)?;
    let wanted = preloaded(host);
    let missing = wanted.iter().filter(|w| !stored.iter().any(|(name, _)| name == *w)).cloned().collect();
    let unpinned = stored
        .into_iter()
        .filter(|(name, pinned)| !pinned && wanted.contains(name))
        .map(|(name, _)| name)
        .collect();
    Ok((unpinned, missing))
}

fn new_archives(host: &dyn Host) -> Result<Vec<String>, StepError> {
    let folder = Path::new(ARCHIVES);
    let imported = read_text(host, IMPORTED).unwrap_or_default();
    let names = host.list(folder).map_err(|e| StepError::file("read", folder, &e))?;
    Ok(names.into_iter().filter(|n| n.ends_with(".tar") && !imported.lines().any(|l| l == n)).collect())
}

fn is_importing(host: &dyn Host) -> bool {
    host.run(&Command::query("systemctl", ["is-active", "--quiet", IMPORT])).is_ok()
}

pub fn look(cx: &mut Context<'_>) -> Result<Found, StepError> {
    let (unpinned, missing) = unpinned(cx.host)?;
    let archives = new_archives(cx.host)?;
    let begun = read_text(cx.host, BEGUN).unwrap_or_default();
    let new: Vec<String> =
        archives.iter().filter(|name| !begun.lines().any(|line| line == *name)).cloned().collect();
    if !unpinned.is_empty() || !new.is_empty() {
        return Ok(Found::Differs(unpinned.into_iter().chain(new).collect::<Vec<_>>().join(", ")));
    }
    if !archives.is_empty() {
        let archives = archives.join(", ");
        return Ok(Found::Matches(Some(if is_importing(cx.host) {
            format!("{archives} imported in the background")
        } else {
            format!(
                "warning: {archives} not imported: `journalctl -u {IMPORT}` says why; the next boot tries again"
            )
        })));
    }
    // They can still be pulled where a registry can be reached; kubeadm says so if not.
    let remark = (!missing.is_empty())
        .then(|| format!("baked in, but no longer in the store: {}", missing.join(", ")));
    Ok(Found::Matches(remark))
}

pub fn act(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let (unpinned, _) = unpinned(cx.host)?;
    for name in unpinned {
        cx.host.run(&Command::new("ctr", ctr(["label", &name, PIN])))?;
    }
    let archives = new_archives(cx.host)?;
    if archives.is_empty() {
        return Ok(None);
    }
    // Before it begins: an archive that cannot be imported keeps no machine from being a node.
    let begun = archives.iter().map(|name| format!("{name}\n")).collect::<String>();
    cx.host
        .write(Path::new(BEGUN), begun.as_bytes(), 0o644)
        .map_err(|e| StepError::file("write", Path::new(BEGUN), &e))?;
    // An import that an earlier run began goes on by itself, and takes what is new.
    if !is_importing(cx.host) {
        cx.host.run(&Command::new(
            "systemd-run",
            [
                &format!("--unit={IMPORT}"),
                "--collect",
                "--quiet",
                "--property=Nice=10",
                "/usr/bin/kindling",
                "import-images",
            ],
        ))?;
    }
    Ok(Some(format!("{} imported in the background", archives.join(", "))))
}

/// An OCI archive may hold its image's name where containerd takes a whole reference only if it is told what that
/// begins with (<https://github.com/opencontainers/image-spec/blob/main/annotations.md>).
fn base_name(host: &dyn Host, path: &str) -> Option<String> {
    let index =
        host.run(&Command::query("tar", ["--extract", "--to-stdout", "--file", path, "index.json"])).ok()?;
    let index: serde_json::Value = serde_json::from_str(&index.stdout).ok()?;
    let said = &index["manifests"][0]["annotations"];
    if !said["io.containerd.image.name"].is_null() {
        return None;
    }
    let (name, _) = said["org.opencontainers.image.ref.name"].as_str()?.rsplit_once(':')?;
    name.contains('/').then(|| name.to_owned())
}

/// Imports what is new in [`ARCHIVES`], also what comes meanwhile; run by the background unit. One that cannot be imported
/// keeps no other one out.
pub fn import(host: &dyn Host) -> Result<Vec<String>, StepError> {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    let next = |tried: &[String]| -> Result<Option<String>, StepError> {
        Ok(new_archives(host)?.into_iter().find(|name| !tried.contains(name)))
    };
    let mut tried = Vec::new();
    while let Some(name) = next(&tried)? {
        tried.push(name.clone());
        match import_one(host, &name) {
            Ok(()) => done.push(name),
            Err(error) => failed.push(format!("{name}: {}", error.cause)),
        }
    }
    if failed.is_empty() {
        return Ok(done);
    }
    Err(StepError::passing(
        failed.join("; "),
        "bring the archive again, as `docker save` or `ctr images export` writes it",
    ))
}

fn import_one(host: &dyn Host, name: &str) -> Result<(), StepError> {
    let path = PathBuf::from(ARCHIVES).join(name).display().to_string();
    let before = stored(host)?;
    let base = base_name(host, &path);
    // Unpacked alone, as the bake leaves them: only ctr itself (--local) can leave the packed layers out.
    let args = ["import", "--local", "--discard-unpacked-layers"]
        .into_iter()
        .chain(base.iter().flat_map(|base| ["--base-name", base]))
        .chain([path.as_str()]);
    let output = host.run(&Command::new("ctr", ctr(args)).timeout(std::time::Duration::from_secs(1800)))?;
    // An import that a power cut ended has left names that are not new any more; ctr prints all that it unpacks.
    let printed: Vec<&str> = output
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("unpacking ")?.split_whitespace().next())
        .collect();
    for (image, pinned) in stored(host)? {
        let is_new = !before.iter().any(|(name, _)| *name == image);
        if !pinned && (is_new || printed.contains(&image.as_str())) {
            host.run(&Command::new("ctr", ctr(["label", &image, PIN])))?;
        }
    }
    let imported = read_text(host, IMPORTED).unwrap_or_default() + name + "\n";
    host.write(Path::new(IMPORTED), imported.as_bytes(), 0o644)
        .map_err(|e| StepError::file("write", Path::new(IMPORTED), &e))
}
