//! Exports on the wire: disks of backups that are served by NBD. An extension:
//! CBR restores before anybody can read.

use cairn_types::{BackupId, ExportId, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{Invalid, Validate};
use crate::wire_time;

/// What a connection is upgraded to.
pub const PROTOCOL: &str = "nbd";

/// The body of `CreateExport`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CreateExportRequest {
    /// The export that is wished for.
    pub export: NewExport,
}

/// An export that is wished for.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub struct NewExport {
    /// Whether it takes writes: they go to a copy that ends with the export, and never to the backup.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub writable: bool,
}

impl Validate for CreateExportRequest {
    fn validate(&self) -> Result<(), Invalid> {
        Ok(())
    }
}

/// What `CreateExport` and `ShowExport` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExportResponse {
    /// The export.
    pub export: Export,
}

/// What `ListExports` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListExportsResponse {
    /// All of the project's that this server has open; how many there may be is limited.
    pub exports: Vec<Export>,
    /// How many there are.
    pub count: u64,
}

/// A disk's backup that is being served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Export {
    /// Its id.
    pub id: ExportId,
    /// The disk's backup.
    pub backup_id: BackupId,
    /// The disk's name.
    pub resource_name: String,
    /// The disk's size.
    pub size_bytes: u64,
    /// Whether it takes writes.
    pub writable: bool,
    /// Bytes that were written to it and are kept.
    pub written_bytes: u64,
    /// How many are connected to it.
    pub connections: u64,
    /// When it was opened.
    #[serde(with = "wire_time")]
    pub created_at: Timestamp,
}
