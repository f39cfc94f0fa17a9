//! `kindling new`: a cluster file to be edited, and the secrets.

use std::path::{Path, PathBuf};

use time::OffsetDateTime;

use super::file::{self, FileError};
use super::pki::PkiError;
use super::sealed::SecretsFile;
use super::secrets::{Expired, Secrets};
use crate::help;
use crate::input::Report;
use crate::suggest;

#[derive(Debug, thiserror::Error)]
pub enum NewError {
    #[error("there is no example `{name}`\n  remedy: {}", suggest::choose(name, names()))]
    NoSuchExample { name: String },
    #[error(transparent)]
    Pki(#[from] PkiError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Secrets(#[from] Box<Report>),
    #[error("{path} is encrypted by hand, or has `age_recipients` and is not encrypted: nothing was changed\n  remedy: an encrypted file has a line age_recipients = [\"age1...\"] below its version, a plain one has none", path = .path.display())]
    Recipients { path: PathBuf },
}

/// The cluster files that `kindling new --example` offers; the first is the default.
pub const EXAMPLES: [(&str, &str); 6] = [
    ("template", include_str!("template.toml")),
    ("lecture", include_str!("../../../examples/lecture.toml")),
    ("stacked", include_str!("../../../examples/stacked.toml")),
    ("single", include_str!("../../../examples/single.toml")),
    ("demo", include_str!("../../../examples/demo.toml")),
    ("external-etcd", include_str!("../../../examples/external-etcd.toml")),
];

pub fn names() -> impl Iterator<Item = &'static str> {
    EXAMPLES.iter().map(|(name, _)| *name)
}

/// Writes `cluster.toml`, its schema for editors, and `secrets.toml` (0600) into `folder`. Refuses when either is there: a cluster
/// that is up cannot be reached without its secrets.
pub fn create(folder: &Path, example: Option<&str>, now: OffsetDateTime) -> Result<Vec<PathBuf>, NewError> {
    create_for(folder, example, Vec::new(), now)
}

/// As [`create`]; for age recipients the secrets become `secrets.toml.age`.
pub fn create_for(
    folder: &Path,
    example: Option<&str>,
    recipients: Vec<String>,
    now: OffsetDateTime,
) -> Result<Vec<PathBuf>, NewError> {
    let name = example.unwrap_or(EXAMPLES[0].0);
    let (_, text) = EXAMPLES
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| NewError::NoSuchExample { name: name.to_owned() })?;
    let cluster = folder.join("cluster.toml");
    let [plain, sealed] = ["secrets.toml", "secrets.toml.age"].map(|name| folder.join(name));
    let remedy = "choose another folder; to replace only what ends, use `kindling new --renew`";
    for path in [&cluster, &plain, &sealed] {
        if path.symlink_metadata().is_ok() {
            return Err(FileError::Exists { path: path.clone(), remedy: remedy.into() }.into());
        }
    }
    let secrets = if recipients.is_empty() { plain } else { sealed };
    let generated = Secrets { recipients, ..Secrets::generate(now)? }.to_file(&secrets)?;
    file::make_private_folder(folder)?;
    // the secrets first: a cluster file alone looks complete
    file::write_new(&secrets, &generated, 0o600, remedy)?;
    // as the editors' TOML extensions look for it, here: nothing is fetched
    // (https://taplo.tamasfe.dev/configuration/directives.html#the-schema-directive)
    let schema = folder.join(help::SCHEMA_FILE);
    file::write(&schema, help::schema_text().as_bytes(), 0o644)?;
    let text = format!("#:schema ./{}\n{text}", help::SCHEMA_FILE);
    file::write_new(&cluster, text.as_bytes(), 0o644, remedy)?;
    Ok(vec![cluster, secrets, schema])
}

/// Gives a secrets file a new bootstrap token and a new administrator's certificate; all other keys stay.
pub fn renew(secrets: &SecretsFile, now: OffsetDateTime) -> Result<(), NewError> {
    change(secrets, now, |old| old.renewed(now))
}

/// As [`renew`], and the passwords; the CAs, the service accounts' keys and the recipients stay.
pub fn rotate(secrets: &SecretsFile, now: OffsetDateTime) -> Result<(), NewError> {
    change(secrets, now, |old| old.rotated(now))
}

fn change(
    secrets: &SecretsFile,
    now: OffsetDateTime,
    change: impl FnOnce(Secrets) -> Result<Secrets, PkiError>,
) -> Result<(), NewError> {
    let (old, _) = Secrets::load_with(secrets, None, now, Expired::All).map_err(Box::new)?;
    if secrets.is_sealed() == old.recipients.is_empty() {
        return Err(NewError::Recipients { path: secrets.path().to_path_buf() });
    }
    let bytes = change(old)?.to_file(secrets.path())?;
    file::write(secrets.path(), &bytes, 0o600)?;
    Ok(())
}
