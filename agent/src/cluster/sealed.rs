//! `secrets.toml.age`: the secrets, encrypted for age recipients (<https://age-encryption.org/v1>). The plain text is in
//! memory only.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::x25519::{Identity, Recipient};
use age::{Decryptor, Encryptor};

use super::file::{self, FileError};
use crate::input::{Report, Source};
use crate::role::types::Secret;

/// Names the file of an identity where `--age-identity` does not.
pub const IDENTITY_VARIABLE: &str = "KINDLING_AGE_IDENTITY";
const NAME_ONE: &str = "name the file of an age identity (AGE-SECRET-KEY-1...) with --age-identity FILE or in KINDLING_AGE_IDENTITY";
const MAKE: &str = "make one with `kindling new`, or name it with --secrets";
/// More than any list of secrets.
const LARGEST: u64 = 1 << 20;

/// Where the secrets are, and what opens them.
#[derive(Debug, Clone)]
pub struct SecretsFile {
    path: PathBuf,
    identity: Option<PathBuf>,
}

impl SecretsFile {
    /// `secrets.toml.age` beside the path that is given, where only that is there.
    pub fn new(path: &Path, identity: Option<PathBuf>) -> Self {
        let mut sealed = OsString::from(path);
        sealed.push(".age");
        let sealed = PathBuf::from(sealed);
        let path = if !path.exists() && sealed.exists() { sealed } else { path.to_path_buf() };
        let named = || std::env::var_os(IDENTITY_VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
        Self { path, identity: identity.or_else(named) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is encrypted.
    pub fn is_sealed(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|bytes| is_sealed(&bytes))
    }

    /// The plain text; of a file that is not encrypted only its owner may have had a look at it.
    pub(super) fn read(&self) -> Result<Source, Report> {
        match std::fs::read(&self.path) {
            Ok(bytes) if is_sealed(&bytes) => {
                let text = self.open(&bytes)?;
                Ok(Source::new(&self.path, text.expose()))
            }
            _ => file::read_private(&self.path, MAKE),
        }
    }

    fn open(&self, bytes: &[u8]) -> Result<Secret, Report> {
        let Some(identity) = &self.identity else {
            return Err(file::problem(&self.path, "is encrypted by age", NAME_ONE));
        };
        let identities = identities(identity)?;
        let broken = |what: String| {
            let remedy = "take the file from a backup, or name another identity with --age-identity";
            file::problem(&self.path, what, remedy)
        };
        let decryptor = Decryptor::new(ArmoredReader::new(bytes))
            .map_err(|error| broken(format!("is no whole age file: {error}")))?;
        let reader = decryptor
            .decrypt(identities.iter().map(|identity| identity as &dyn age::Identity))
            .map_err(|error| broken(format!("is not opened by {}: {error}", identity.display())))?;
        let mut text = String::new();
        reader
            .take(LARGEST)
            .read_to_string(&mut text)
            .map_err(|error| broken(format!("is no whole age file: {error}")))?;
        Ok(Secret::new(text))
    }
}

fn is_sealed(bytes: &[u8]) -> bool {
    bytes.starts_with(b"age-encryption.org/") || bytes.starts_with(b"-----BEGIN AGE ENCRYPTED FILE-----")
}

/// The identities of a file as `age-keygen` writes it. No error quotes a line of it.
fn identities(path: &Path) -> Result<Vec<Identity>, Report> {
    let source = file::read_private(path, NAME_ONE)?;
    let lines = source.text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let identities: Option<Vec<Identity>> = lines.map(|line| line.parse().ok()).collect();
    identities.filter(|list| !list.is_empty()).ok_or_else(|| {
        file::problem(path, "is no age identity: a line of it is not AGE-SECRET-KEY-1...", NAME_ONE)
    })
}

/// Recipients as they are given: `age1...`, or such a line each in a file with `#` comments.
pub fn recipients(given: &[String], files: &[PathBuf]) -> Result<Vec<String>, Report> {
    let remedy = "give age1..., which `age-keygen` prints as the public key";
    let mut list = Vec::new();
    let mut add = |at: &Path, text: &str| {
        let good = text.parse::<Recipient>();
        good.map_err(|_| file::problem(at, format!("`{text}` is no age recipient"), remedy))?;
        if !list.iter().any(|known| known == text) {
            list.push(text.to_owned());
        }
        Ok(())
    };
    given.iter().try_for_each(|text| add(Path::new("--age-recipient"), text))?;
    for path in files {
        let source = file::read(path, "name a file with a recipient a line")?;
        let lines = source.text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#'));
        lines.clone().try_for_each(|line| add(path, line))?;
        if lines.count() == 0 {
            return Err(file::problem(path, "has no recipient", remedy));
        }
    }
    Ok(list)
}

/// Encrypts for all of `recipients`, in ASCII armor: it goes through mail and into a repository.
pub fn seal(text: &Secret, recipients: &[String], path: &Path) -> Result<Vec<u8>, FileError> {
    let failed = |error: &dyn std::fmt::Display| FileError::Io {
        path: path.to_path_buf(),
        source: std::io::Error::other(format!("cannot be encrypted: {error}")),
    };
    let parsed = recipients.iter().map(|text| text.parse::<Recipient>());
    let parsed: Vec<Recipient> = parsed.collect::<Result<_, _>>().map_err(|error| failed(&error))?;
    let encryptor = Encryptor::with_recipients(parsed.iter().map(|r| r as &dyn age::Recipient))
        .map_err(|error| failed(&error))?;
    let write = || {
        let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
        let mut writer = encryptor.wrap_output(armor)?;
        writer.write_all(text.expose().as_bytes())?;
        writer.finish()?.finish()
    };
    write().map_err(|error: std::io::Error| failed(&error))
}
