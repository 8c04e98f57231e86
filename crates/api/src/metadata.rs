//! What was known of a resource when its backup was made, on the wire.

use cairn_types::BackupId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What `ShowMetadata` answers. Every text and every item of a list is JSON by
/// itself, written as a string: the answers of the services behind the resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MetadataResponse {
    /// The backup.
    pub backup_id: BackupId,
    /// The backup's own record.
    pub backups: String,
    /// The server's specification.
    pub flavor: String,
    /// The server's public addresses.
    pub floatingips: Vec<String>,
    /// The server's network interfaces.
    pub interface: String,
    /// The ports behind them.
    pub ports: Vec<String>,
    /// The server.
    pub server: String,
    /// The disks.
    pub volumes: Vec<String>,
    /// The desktop.
    pub workspace: Option<String>,
}
