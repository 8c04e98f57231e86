//! Why the catalogue could not answer.

use cairn_types::{BackupId, BackupStatus, BackupStep, Kind, VaultId, VaultStatus, VaultStep};

/// What a call of this crate gives.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the catalogue could not do what it was asked. A row that is not there
/// is no error here: such calls answer with an `Option`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The database could not be opened, or its URL is none that Cairn knows.
    #[error("cannot open the catalogue: {reason}")]
    Open {
        /// What is wrong with it.
        reason: String,
    },
    /// The catalogue could not be brought to this version's tables.
    #[error("cannot migrate the catalogue")]
    Migrate(#[from] sqlx::migrate::MigrateError),
    /// The database refused a statement or broke off.
    #[error("the catalogue's database failed")]
    Database(#[from] sqlx::Error),
    /// A column holds what this version cannot have written.
    #[error("the catalogue holds {value:?} in column {column}")]
    Column {
        /// The column.
        column: String,
        /// What it holds, cut to 64 characters.
        value: String,
    },
    /// A step that does not lead away from the state that a backup has.
    #[error("backup {id}, which is {from}, cannot take the step {step:?}")]
    BackupStep {
        /// The backup.
        id: BackupId,
        /// Its state.
        from: BackupStatus,
        /// The step that is not open to it.
        step: BackupStep,
    },
    /// A step that does not lead away from the state that a vault has.
    #[error("vault {id}, which is {from}, cannot take the step {step:?}")]
    VaultStep {
        /// The vault.
        id: VaultId,
        /// Its state.
        from: VaultStatus,
        /// The step that is not open to it.
        step: VaultStep,
    },
    /// A record that was to be added begins in a state that none begins in.
    #[error("nothing begins as {status}")]
    NotFirst {
        /// The state.
        status: &'static str,
    },
}

impl Error {
    /// What a caller should do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Open { .. } | Self::Migrate(_) => Kind::Invalid,
            Self::Column { .. } => Kind::Corrupt,
            Self::BackupStep { .. } | Self::VaultStep { .. } | Self::NotFirst { .. } => Kind::Bug,
            Self::Database(source) => database_kind(source),
        }
    }

    /// Whether an insert met a row that is already there.
    pub fn is_duplicate(&self) -> bool {
        match self {
            Self::Database(sqlx::Error::Database(source)) => source.is_unique_violation(),
            _ => false,
        }
    }
}

fn database_kind(source: &sqlx::Error) -> Kind {
    match source {
        sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => {
            Kind::Transient
        }
        sqlx::Error::Database(source) if source.is_unique_violation() => Kind::Conflict,
        sqlx::Error::Database(source) => match source.message() {
            text if text.contains("full") => Kind::Exhausted,
            text if text.contains("locked") || text.contains("busy") => Kind::Transient,
            text if text.contains("malformed") => Kind::Corrupt,
            _ => Kind::Bug,
        },
        _ => Kind::Bug,
    }
}
