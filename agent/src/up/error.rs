//! Why a cluster cannot be brought up or down here, and what the operator can do about it.

use std::io;
use std::path::Path;

use crate::host::CommandError;
use crate::status::exit;

#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error("{cause}\n  remedy: {remedy}")]
    Problem { cause: String, remedy: String },
    /// The cluster file is wrong; the text names every mistake.
    #[error("{0}")]
    Cluster(String),
    #[error("{0}\n  remedy: read the message above; `kindling down` removes what is half done")]
    Command(#[from] CommandError),
    #[error(
        "interrupted before the machines were on\n  remedy: `kindling up` goes on, `kindling down` removes what is there"
    )]
    Interrupted,
}

impl UpError {
    pub fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Problem { cause: cause.into(), remedy: remedy.into() }
    }

    pub fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "run it as the user who started it (machines: root)",
            io::ErrorKind::StorageFull => {
                "free space on that file system, or name another folder with --state"
            }
            io::ErrorKind::NotFound => "check the path",
            _ => "check the path and the disk",
        };
        Self::new(format!("cannot {what} {}: {error}", path.display()), remedy)
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Cluster(_) => exit::CONFIG,
            Self::Interrupted => super::INTERRUPTED,
            Self::Problem { .. } | Self::Command(_) => exit::FAILED,
        }
    }
}
