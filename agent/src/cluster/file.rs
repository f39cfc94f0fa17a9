//! Files of the operator: read with a problem that says what to do, written so that a crash leaves the
//! old file or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::input::{Findings, Report, Source};

/// A file that could not be written, with what is to be done about it.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("{path} is there already\n  remedy: {remedy}", path = .path.display())]
    Exists { path: PathBuf, remedy: String },
    #[error("{path}: {source}", path = .path.display())]
    Io { path: PathBuf, source: io::Error },
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FileError {
    let path = path.to_path_buf();
    move |source| FileError::Io { path, source }
}

/// One problem that concerns a file as a whole.
pub fn problem(path: &Path, message: impl Into<String>, remedy: &str) -> Report {
    let findings = Findings::default();
    findings.error("", 0..0, message, remedy);
    findings.into_report(Source::new(path, ""))
}

/// The text of `path`; `missing` is the remedy where there is no such file.
pub fn read(path: &Path, missing: &str) -> Result<Source, Report> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Source::new(path, text)),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(problem(path, "there is no such file", missing))
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            Err(problem(path, "is not a text file (UTF-8)", "name a TOML file"))
        }
        Err(error) => {
            Err(problem(path, format!("cannot be read: {error}"), "check the path and its permissions"))
        }
    }
}

/// As [`read`], for a file with keys in it: refused where others than its owner may look into it.
pub fn read_private(path: &Path, missing: &str) -> Result<Source, Report> {
    if let Ok(metadata) = fs::metadata(path) {
        let mode = metadata.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(problem(
                path,
                format!("its mode is {mode:04o}: others than its owner may read or change the secrets in it"),
                "chmod 0600 it; if others had access to it, make new secrets",
            ));
        }
    }
    read(path, missing)
}

/// Makes `path` and its parents; a folder that is new is its owner's alone.
pub fn make_private_folder(path: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))
}

/// Writes `bytes` to `path`: a temporary file beside it with the mode from the start, fsync, rename,
/// fsync of the folder. Answers whether anything had to be changed.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<bool, FileError> {
    if let (Ok(old), Ok(metadata)) = (fs::read(path), fs::metadata(path))
        && old == bytes
        && metadata.permissions().mode() & 0o7777 == mode
    {
        return Ok(false);
    }
    let temporary = write_temporary(path, bytes, mode)?;
    fs::rename(&temporary, path).map_err(|error| {
        let _ = fs::remove_file(&temporary);
        FileError::Io { path: path.to_path_buf(), source: error }
    })?;
    sync_folder(path)?;
    Ok(true)
}

/// As [`write`], but never over a file that is there, not even one that appeared a moment ago.
pub fn write_new(path: &Path, bytes: &[u8], mode: u32, remedy: &str) -> Result<(), FileError> {
    let temporary = write_temporary(path, bytes, mode)?;
    // link(2) refuses an existing name, which rename(2) would replace
    let mut placed = fs::hard_link(&temporary, path);
    if placed.as_ref().is_err_and(|e| e.kind() != ErrorKind::AlreadyExists)
        && path.symlink_metadata().is_err()
    {
        // a file system without hard links, a shared folder of a hypervisor for instance
        placed = fs::rename(&temporary, path);
    }
    let _ = fs::remove_file(&temporary);
    placed.map_err(|source| match source.kind() {
        ErrorKind::AlreadyExists => FileError::Exists { path: path.to_path_buf(), remedy: remedy.to_owned() },
        _ => FileError::Io { path: path.to_path_buf(), source },
    })?;
    sync_folder(path)
}

fn write_temporary(path: &Path, bytes: &[u8], mode: u32) -> Result<PathBuf, FileError> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let _ = fs::remove_file(&temporary);
    let fill = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // the umask may have taken bits away
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    fill().map_err(|source| {
        let _ = fs::remove_file(&temporary);
        FileError::Io { path: path.to_path_buf(), source }
    })?;
    Ok(temporary)
}

fn sync_folder(path: &Path) -> Result<(), FileError> {
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed(folder))
}
