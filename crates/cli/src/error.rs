//! Why a verb did not work, and the exit code that says so.

use std::path::PathBuf;

use cairn_api::client;
use cairn_types::{ExportId, FileProblems, Kind, OperationLogId};

/// Why a verb did not work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service refused, or could not be asked.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// Nothing has that name.
    #[error("there is no {what} {name:?}")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its name, as given.
        name: String,
    },
    /// More than one thing has that name.
    #[error("{name:?} is the name of more than one {what}; use one of the ids {}", ids.join(" "))]
    Ambiguous {
        /// What was looked for.
        what: &'static str,
        /// Its name, as given.
        name: String,
        /// The ids of those that have it, some of them.
        ids: Vec<String>,
    },
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// What is to be made is there already.
    #[error("{0}; nothing was changed")]
    Taken(String),
    /// A new machine cannot be described, or libvirt refuses it.
    #[error(transparent)]
    Machine(#[from] cairn_source::Error),
    /// A task ended without success.
    #[error("{what} {status}: {message} ({code}, task {task})")]
    TaskFailed {
        /// What the task did, and with what.
        what: String,
        /// How it ended.
        status: &'static str,
        /// Why.
        message: String,
        /// The error code.
        code: String,
        /// The task.
        task: OperationLogId,
    },
    /// A checkpoint ended as `error`, and no task says why.
    #[error("the checkpoint {checkpoint} ended as {status}")]
    CheckpointFailed {
        /// The checkpoint.
        checkpoint: String,
        /// Its state.
        status: &'static str,
    },
    /// Something is still there, and no task says why.
    #[error("it could not be deleted")]
    NotDeleted,
    /// A verification found backups that are hurt.
    #[error("{hurt} of {looked_at} backups cannot be restored as they were")]
    Hurt {
        /// How many.
        hurt: usize,
        /// How many were looked at.
        looked_at: usize,
    },
    /// Some of the files are not in what was downloaded: what the backup holds of them cannot be read.
    #[error("{} could not be read in the backup and left out", entries(problems.count))]
    LeftOut {
        /// Which.
        problems: FileProblems,
    },
    /// A test did not arrive.
    #[error("the test did not arrive at {target}: {reason}")]
    NotDelivered {
        /// The target.
        target: String,
        /// Why.
        reason: String,
    },
    /// A server has several disks, and one is to be named.
    #[error("it is the backup of a server with several disks; name one of theirs: {disks}")]
    SeveralDisks {
        /// Their backups.
        disks: String,
    },
    /// There can be no socket at a path.
    #[error("cannot listen at {}", path.display())]
    Socket {
        /// The path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The server has an export no more.
    #[error("the export {export} is gone, and what was written to it")]
    ExportGone {
        /// The export.
        export: ExportId,
        /// How the server said so.
        source: client::Error,
    },
    /// A connection to the socket, or its other end at the server, broke.
    #[error("a connection broke")]
    Connection(#[source] std::io::Error),
    /// What goes on is not what began.
    #[error("the server sends other bytes than before; begin again")]
    OtherBytes,
    /// What comes is no archive.
    #[error("the directory cannot be unpacked")]
    Archive(#[from] cairn_archive::Error),
    /// An entry of a directory cannot be made.
    #[error("cannot make {:?}", path.display().to_string())]
    Unpack {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A new machine is there, but not running.
    #[error(
        "{name} is defined, and stays so, but does not start: see why, then start it by virsh start"
    )]
    NotStarted {
        /// Its name.
        name: String,
        /// What libvirt says.
        source: cairn_source::Error,
    },
    /// The system's signals cannot be waited for.
    #[error("cannot wait for signals")]
    Signal(#[source] std::io::Error),
    /// What was waited for took longer than allowed.
    #[error("not done within {seconds} seconds; it goes on at the server")]
    TimedOut {
        /// The time that was allowed.
        seconds: u64,
    },
    /// The result could not be printed.
    #[error("cannot write the output")]
    Output(#[from] std::io::Error),
}

impl Error {
    /// What a caller should do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Client(error) | Self::ExportGone { source: error, .. } => error.kind(),
            Self::NotFound { .. } => Kind::NotFound,
            Self::Ambiguous { .. } => Kind::Conflict,
            Self::Usage(_) | Self::SeveralDisks { .. } | Self::Socket { .. } => Kind::Invalid,
            Self::Machine(error) | Self::NotStarted { source: error, .. } => error.kind(),
            Self::Taken(_)
            | Self::TaskFailed { .. }
            | Self::CheckpointFailed { .. }
            | Self::NotDeleted
            | Self::OtherBytes => Kind::Conflict,
            Self::Hurt { .. } | Self::LeftOut { .. } => Kind::Corrupt,
            Self::Archive(error) => error.kind(),
            Self::Unpack { .. } | Self::Write { .. } => Kind::Exhausted,
            Self::TimedOut { .. } | Self::NotDelivered { .. } | Self::Connection(_) => {
                Kind::Transient
            }
            Self::Signal(_) => Kind::Bug,
            Self::Output(_) => Kind::Exhausted,
        }
    }

    /// The exit code, by the list that `--help` shows.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::SeveralDisks { .. } | Self::Socket { .. } => 2,
            Self::NotFound { .. } => 4,
            Self::Hurt { .. } | Self::LeftOut { .. } => 5,
            Self::Client(client::Error::Transport { .. }) => 3,
            Self::Client(client::Error::Service { status: 404, .. }) => 4,
            Self::Client(error) if is_setup(error) => 2,
            _ => 1,
        }
    }

    /// The error in one line, with what caused it.
    pub fn line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(source) = cause {
            line.push_str(": ");
            line.push_str(&source.to_string());
            cause = source.source();
        }
        line.replace(['\n', '\r'], " ")
    }
}

fn entries(count: u64) -> String {
    match count {
        1 => "1 entry".to_owned(),
        _ => format!("{count} entries"),
    }
}

/// Whether the credentials are at fault, not the request.
const fn is_setup(error: &client::Error) -> bool {
    matches!(
        error,
        client::Error::Endpoint { .. }
            | client::Error::AccessKey
            | client::Error::ProjectId
            | client::Error::CredentialsMissing { .. }
            | client::Error::CredentialsRead { .. }
            | client::Error::CredentialsParse { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(status: u16) -> Error {
        Error::Client(client::Error::Service {
            status,
            code: "BackupService.6105".to_owned(),
            message: "Vault Not Found".to_owned(),
            request_id: Some("req-1".to_owned()),
        })
    }

    #[test]
    fn exit_codes_tell_the_reasons_apart() {
        assert_eq!(service(400).exit_code(), 1);
        assert_eq!(service(500).exit_code(), 1);
        assert_eq!(service(404).exit_code(), 4);
        let name = "x".to_owned();
        assert_eq!(
            Error::NotFound {
                what: "vault",
                name: name.clone()
            }
            .exit_code(),
            4
        );
        assert_eq!(
            Error::Ambiguous {
                what: "vault",
                name: name.clone(),
                ids: vec![]
            }
            .exit_code(),
            1
        );
        assert_eq!(Error::Usage(name.clone()).exit_code(), 2);
        assert_eq!(Error::TimedOut { seconds: 1 }.exit_code(), 1);
        assert_eq!(
            Error::Client(client::Error::CredentialsMissing { variable: "X" }).exit_code(),
            2
        );
    }

    #[test]
    fn an_error_is_one_line_with_code_and_request() {
        let line = service(404).line();
        assert_eq!(line, "Vault Not Found (BackupService.6105, request req-1)");
        let missing = std::io::Error::other("two\nlines");
        assert_eq!(
            Error::Output(missing).line(),
            "cannot write the output: two lines"
        );
    }
}
