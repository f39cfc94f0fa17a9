//! `kindling render --target`: what a hypervisor wants beside the seeds, and a script that gives it that.

mod libvirt;
mod vsphere;

use std::path::{Path, PathBuf};

use super::file;
use super::render::{self, Output, RenderError, Written};
use super::{Cluster, Secrets};
use crate::role::types::DnsName;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Vsphere,
    Libvirt,
}

/// The seeds, and below `folder`/vsphere or `folder`/libvirt what the hypervisor wants: files 0600, the
/// script 0700, each written atomically, and none before all are rendered.
pub fn all(
    cluster: &Cluster,
    secrets: &Secrets,
    folder: &Path,
    only: Option<&str>,
    target: Target,
) -> Result<Vec<Written>, RenderError> {
    let outputs = outputs(cluster, secrets, only, target)?;
    let mut written = render::all(cluster, secrets, folder, only)?;
    for Output { path, bytes } in outputs {
        let mode = if path.extension().is_some_and(|e| e == "sh") { 0o700 } else { 0o600 };
        let path = folder.join(path);
        if let Some(parent) = path.parent() {
            file::make_private_folder(parent)?;
        }
        let changed = file::write(&path, &bytes, mode)?;
        written.push(Written { path, changed });
    }
    Ok(written)
}

/// Renders in memory. With `only`, settings and script are those of the whole cluster all the same.
pub fn outputs(
    cluster: &Cluster,
    secrets: &Secrets,
    only: Option<&str>,
    target: Target,
) -> Result<Vec<Output>, RenderError> {
    match target {
        Target::Vsphere => vsphere::outputs(cluster, secrets, only),
        Target::Libvirt => Ok(libvirt::outputs(cluster, only)),
    }
}

/// The name of a VM: two clusters on one hypervisor may have nodes of one name.
fn machine(cluster: &Cluster, node: &DnsName) -> String {
    format!("{}-{node}", cluster.name)
}

fn text(path: impl Into<PathBuf>, text: impl Into<String>) -> Output {
    Output { path: path.into(), bytes: text.into().into_bytes() }
}

/// A word that a POSIX shell takes as it is.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_shell_reads_a_quoted_word_as_it_was() {
        let word = "a 'b' $(c) \"d\" \\e `f` !g";
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("printf %s {}", quoted(word))])
            .output()
            .expect("there is a shell");
        assert_eq!(String::from_utf8_lossy(&output.stdout), word);
    }
}
