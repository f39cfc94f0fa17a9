//! Why a step failed, and what the operator can do about it.

use std::io;
use std::path::Path;

use crate::host::CommandError;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct StepError {
    pub cause: String,
    pub remedy: String,
    /// Whether trying again later can help without anybody's hand.
    pub retry: bool,
}

impl StepError {
    /// Waiting can help: the unit tries again.
    pub fn passing(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into(), retry: true }
    }

    /// Waiting cannot help: somebody must change something.
    pub fn lasting(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into(), retry: false }
    }

    pub fn file(what: &str, path: &Path, error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::StorageFull => "free space on that file system, or give the machine a larger disk",
            io::ErrorKind::ReadOnlyFilesystem => {
                "see the kernel's log for disk errors; /etc and /var must be writable"
            }
            io::ErrorKind::PermissionDenied => "the agent must run as root",
            _ => "see the kernel's log for disk errors",
        };
        Self::passing(format!("cannot {what} {}: {error}", path.display()), remedy)
    }
}

impl From<CommandError> for StepError {
    fn from(error: CommandError) -> Self {
        let remedy = match &error {
            CommandError::Start { .. } => "the image lacks this program: bake it with `make image`",
            CommandError::Timeout { .. } => "the machine may be starved of CPU or disk; it is tried again",
            CommandError::Ended { .. } | CommandError::Failed { .. } => {
                "read the message above; `journalctl -b` has the whole of it"
            }
        };
        Self::passing(error.to_string(), remedy)
    }
}
