//! After the join: what this machine needs no more is taken out of the role file, and what cloud-init and kubeadm's
//! configuration keep of it. A boot with the seed brings cloud-init's part back, and it is taken out again.
//!
//! The role file stays one, of the same plan: a control plane's keys are read from /etc/kubernetes/pki from then on.
//! cloud-init's files are not removed, as its last stage reads them after this agent: secrets in them become as many `x`.

use std::io;
use std::path::{Path, PathBuf};

use super::{Context, Found, files};
use crate::agent::ROLE_FILE;
use crate::error::StepError;
use crate::host::{Host, exists, read_text};
use crate::input::Source;
use crate::plan::{DISCOVERY_FILE, KUBEADM_FILE};
use crate::role::RoleFile;

/// With its copy of a seed, which some hypervisors put there. `instance` in it is a link to one of `instances`.
const CLOUD_INIT: &str = "/var/lib/cloud";
/// In memory, and gone at the next boot; the second has the user-data in base64, and nobody reads it after cloud-init.
const CLOUD_INIT_MERGED: &str = "/run/cloud-init/combined-cloud-config.json";
const CLOUD_INIT_SENSITIVE: &str = "/run/cloud-init/instance-data-sensitive.json";
const SEED_DISK: &str = "/dev/disk/by-label/CIDATA";
const DEEPEST: usize = 8;
/// Nothing of cloud-init's is larger.
const LARGEST: usize = 4 << 20;

pub fn look(cx: &mut Context<'_>) -> Result<Found, StepError> {
    let mut found: Vec<String> = secret_files(cx.host).iter().map(|(path, _)| path.clone()).collect();
    found.extend(removable(cx.host).into_iter().map(str::to_owned));
    if scrubbed_role_file(cx.host).is_some() {
        found.push(ROLE_FILE.to_owned());
    }
    Ok(if found.is_empty() {
        Found::matches()
    } else {
        Found::Differs(format!("secrets are in {}", found.join(", ")))
    })
}

pub fn act(cx: &mut Context<'_>) -> Result<Option<String>, StepError> {
    let host = cx.host;
    for (path, blanked) in secret_files(host) {
        let path = Path::new(&path);
        let mode = host.mode(path).ok().flatten().unwrap_or(0o600);
        host.write(path, &blanked, mode).map_err(|e| StepError::file("write", path, &e))?;
    }
    for path in removable(host) {
        let path = Path::new(path);
        files::remove(host, path)?;
    }
    if let Some(text) = scrubbed_role_file(host) {
        let path = Path::new(ROLE_FILE);
        host.write(path, text.as_bytes(), 0o600).map_err(|e| StepError::file("write", path, &e))?;
    }
    let remark = "the seed's disk still has what was removed here: detach it, or keep it for a rebuild";
    Ok(exists(host, SEED_DISK).then(|| remark.to_owned()))
}

fn removable(host: &dyn Host) -> Vec<&'static str> {
    let list = [KUBEADM_FILE, DISCOVERY_FILE, CLOUD_INIT_SENSITIVE];
    list.into_iter().filter(|path| exists(host, path)).collect()
}

/// The role file as it should be, if it is another one.
fn scrubbed_role_file(host: &dyn Host) -> Option<String> {
    let text = read_text(host, ROLE_FILE)?;
    let (file, _) = RoleFile::parse(Source::new(ROLE_FILE, text)).ok()?;
    let scrubbed = file.clone().scrub();
    (scrubbed != file).then(|| scrubbed.to_toml())
}

/// Files of cloud-init with secrets in them, and what is to be in their place.
fn secret_files(host: &dyn Host) -> Vec<(String, Vec<u8>)> {
    let mut files = vec![PathBuf::from(CLOUD_INIT_MERGED)];
    walk(host, Path::new(CLOUD_INIT), 0, &mut files);
    let blanked = |path: PathBuf| {
        // A folder cannot be read, and is no file of ours to judge.
        let bytes = host.read(&path).ok().flatten().filter(|bytes| bytes.len() <= LARGEST)?;
        Some((path.display().to_string(), blank(&bytes)?))
    };
    files.into_iter().filter_map(blanked).collect()
}

fn walk(host: &dyn Host, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let names: io::Result<Vec<String>> = host.list(folder);
    for name in names.unwrap_or_default() {
        let path = folder.join(&name);
        if (depth == 0 && name == "instance") || depth >= DEEPEST {
            continue;
        }
        match host.list(&path) {
            Ok(children) if !children.is_empty() => walk(host, &path, depth + 1, files),
            _ => files.push(path),
        }
    }
}

/// `bytes` with an `x` for each character of a secret of a role file in it; `None` where there is none. The length
/// stays, so a pickled object of Python's stays whole, and so do quotes and line ends, escaped ones too.
fn blank(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut text = bytes.to_vec();
    blank_keys(&mut text);
    for (key, secret) in [("token = ", true), ("password = ", false)] {
        let mut from = 0;
        while let Some(at) = find(&text, key.as_bytes(), from) {
            from = at + key.len();
            let quote = text[from..].iter().take_while(|b| matches!(b, b'\\' | b'"' | b'\'')).take(2).count();
            let start = from + quote;
            if secret { blank_token(&mut text, start) } else { blank_until_quote(&mut text, from, start) }
        }
    }
    (text != bytes).then_some(text)
}

/// By the search for texts where it is one: it does not compare at every place.
fn find(text: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let rest = text.get(from..)?;
    let at = match (std::str::from_utf8(rest), std::str::from_utf8(what)) {
        (Ok(rest), Ok(what)) => rest.find(what),
        _ => rest.windows(what.len()).position(|window| window == what),
    };
    at.map(|at| from + at)
}

fn blank_keys(text: &mut [u8]) {
    let mut from = 0;
    while let Some(begin) = find(text, b"-----BEGIN ", from) {
        from = begin + b"-----BEGIN ".len();
        let Some(label_end) = find(text, b"-----", from) else { return };
        if !text[from..label_end].ends_with(b"PRIVATE KEY") {
            continue;
        }
        let end = find(text, b"-----END", label_end + 5).unwrap_or(text.len());
        for at in label_end + 5..end {
            let is_base64 = text[at].is_ascii_alphanumeric() || matches!(text[at], b'+' | b'/' | b'=');
            if is_base64 && text[at - 1] != b'\\' {
                text[at] = b'x';
            }
        }
        from = end;
    }
}

/// The id stays: it is public.
fn blank_token(text: &mut [u8], start: usize) {
    let Some(token) = text.get_mut(start..start + 23) else { return };
    let good = |part: &[u8]| part.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    if good(&token[..6]) && token[6] == b'.' && good(&token[7..]) {
        token[7..].fill(b'x');
    }
}

fn blank_until_quote(text: &mut [u8], quote: usize, start: usize) {
    let opening = text[quote..start].to_vec();
    // Without a quote it is not ours.
    let Some(closing) = opening.last().copied() else { return };
    let mut at = start;
    while at < text.len() && text[at] != closing && text[at] != b'\n' {
        // An escape and what it escapes; in a JSON text the closing quote has one as well.
        if text[at] == b'\\' {
            if text[at..].starts_with(&opening) {
                return;
            }
            at += 1;
        } else {
            text[at] = b'x';
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLE: &str = "token = \"abcdef.0123456789abcdef\"\n[vrrp]\npassword = \"dummyvrr\"\n[proxy]\n\
                        stats_password = 'dummystats'\n[pki]\nca = \"\"\"\n-----BEGIN CERTIFICATE-----\nMIIC\n\
                        -----END CERTIFICATE-----\n\"\"\"\nca_key = \"\"\"\n-----BEGIN PRIVATE KEY-----\n\
                        MIIE+/9=\nabc\n-----END PRIVATE KEY-----\n\"\"\"\n";

    fn blanked(text: &str) -> Option<String> {
        blank(text.as_bytes()).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn what_is_secret_becomes_x_and_everything_else_stays() {
        let expected = ROLE
            .replace("0123456789abcdef", &"x".repeat(16))
            .replace("dummyvrr", "xxxxxxxx")
            .replace("dummystats", "xxxxxxxxxx")
            .replace("MIIE+/9=\nabc", "xxxxxxxx\nxxx");
        assert_eq!(blanked(ROLE).as_deref(), Some(expected.as_str()));
        assert_eq!(blanked(&expected), None, "a second time there is nothing to do");
    }

    #[test]
    fn indented_in_yaml_and_escaped_in_json_it_is_found_as_well() {
        let yaml: String = ROLE.lines().map(|line| format!("      {line}\n")).collect();
        let json = serde_json::to_string(ROLE).unwrap();
        for text in [&yaml, &json] {
            let clean = blanked(text).unwrap();
            assert_eq!(clean.len(), text.len());
            for secret in ["0123456789abcdef", "dummyvrr", "dummystats", "MIIE"] {
                assert!(!clean.contains(secret), "{secret}: {clean}");
            }
            assert_eq!(blanked(&clean), None);
        }
        let back: String = serde_json::from_str(&blanked(&json).unwrap()).unwrap();
        assert_eq!(Some(back), blanked(ROLE), "it is the same JSON text otherwise");
    }

    #[test]
    fn what_is_no_secret_of_ours_is_left_alone() {
        for text in [
            "",
            "lock_passwd: true",
            "ssh_pwauth: false\npassword = nobody",
            "token = \"short\"",
            "-----BEGIN ",
        ] {
            assert_eq!(blanked(text), None, "{text}");
        }
    }
}
