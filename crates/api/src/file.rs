//! Files in backups on the wire: listed and fetched without a restore. An
//! extension: CBR has nothing of the kind.
//!
//! Names are bytes, and JSON has none: what is not printable text is written
//! `\xNN`, a backslash `\\`. Paths are written and read so too.

use cairn_types::BackupId;
use cairn_types::tree::read_name;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};

use crate::page;
use crate::query::{QueryValue, query};
use crate::validate::{Invalid, Validate, require};

/// Entries of a page at most.
pub const MAX_FILES: u32 = 1000;
/// Characters of a path at most, as it is written. With a name it still fits into an address,
/// where a character takes up to twelve bytes of 64 KiB.
pub const MAX_PATH_CHARS: usize = 4096;
/// Characters of a name at most, as it is written: four for each of 255 bytes.
pub const MAX_NAME_CHARS: usize = 1024;

/// What [`write_name`](cairn_types::tree::write_name) writes, of at most so many characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written<const CHARS: usize>(pub String);

/// A path in a backup.
pub type PathText = Written<MAX_PATH_CHARS>;
/// A name in a backup.
pub type NameText = Written<MAX_NAME_CHARS>;

impl<const CHARS: usize> QueryValue for Written<CHARS> {
    fn read(text: &str) -> Option<Self> {
        (text.chars().count() <= CHARS).then(|| Self(text.to_owned()))
    }

    fn write(&self) -> String {
        self.0.clone()
    }

    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new().schema_type(Type::String);
        object.max_length(Some(CHARS)).into()
    }
}

query! {
    /// What of a backup is listed.
    pub struct ListBackupFilesQuery {
        one {
            /// The directory or the file; the uppermost directory, if unset. On a disk with partitions
            /// it begins with one, as `/p2/etc`.
            path: PathText,
            /// Page size, 1 to 1000.
            limit: u32,
            /// Go on behind the entry of this name.
            marker: NameText,
        }
        many {}
    }
}

query! {
    /// Which file of a backup is fetched.
    pub struct FetchBackupFileQuery {
        one {
            /// The file.
            path: PathText,
        }
        many {}
    }
}

/// Errors: it is no name, as [`write_name`](cairn_types::tree::write_name) writes them.
pub(crate) fn check_name<const CHARS: usize>(
    key: &str,
    text: Option<&Written<CHARS>>,
) -> Result<(), Invalid> {
    let readable = |text: &Written<CHARS>| read_name(&text.0).is_some();
    let rule = "It takes text in which \\xNN is a byte and \\\\ a backslash.";
    require(text.is_none_or(readable), key, rule)
}

impl Validate for ListBackupFilesQuery {
    fn validate(&self) -> Result<(), Invalid> {
        page::limit(self.limit, MAX_FILES)?;
        check_name("path", self.path.as_ref())?;
        check_name("marker", self.marker.as_ref())
    }
}

impl Validate for FetchBackupFileQuery {
    fn validate(&self) -> Result<(), Invalid> {
        require(self.path.is_some(), "path", "It is missing.")?;
        check_name("path", self.path.as_ref())
    }
}

/// What `ListBackupFiles` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListBackupFilesResponse {
    /// The backup.
    pub backup_id: BackupId,
    /// What was asked about.
    pub entry: BackupFile,
    /// What is in it, by the bytes of the names; nothing, if it is no directory.
    pub files: Vec<BackupFile>,
    /// The `marker` of the next page; `null` on the last.
    pub next_marker: Option<String>,
    /// What whoever reads this should know, in sentences.
    pub notes: Vec<String>,
}

/// An entry of a directory in a backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupFile {
    /// Its name; empty for the uppermost directory.
    pub name: String,
    /// Its path in the backup.
    pub path: String,
    /// `file`, `directory`, `symlink`, `fifo`, `socket`, `character_device` or `block_device`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A file's length, or a partition's; 0 for anything else.
    pub size_bytes: u64,
    /// The permissions, in octal digits such as `0644`.
    pub mode: String,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When its content changed, as `2026-01-31T08:00:00.123456789Z`; `null` where nothing says.
    pub modified_at: Option<String>,
    /// Where a symbolic link points.
    pub target: Option<String>,
    /// What is in a partition, where this is one.
    pub partition: Option<BackupPartition>,
}

/// What is in a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupPartition {
    /// What sort of content, such as `ext4`, `swap` or `unknown`.
    pub content: String,
    /// Its label, or its name in the table.
    pub label: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_what_can_be() {
        assert!(ListBackupFilesQuery::parse("path=/etc&limit=1000&marker=a").is_ok());
        assert!(ListBackupFilesQuery::parse("").is_ok());
        for wrong in ["limit=0", "limit=1001", "path=%5Cq", "marker=%5C"] {
            assert!(ListBackupFilesQuery::parse(wrong).is_err(), "{wrong}");
        }
        assert!(FetchBackupFileQuery::parse("path=/etc/passwd").is_ok());
        let long = format!("path={}", "/directory".repeat(400));
        assert!(FetchBackupFileQuery::parse(&long).is_ok());
        let longer = format!("path={}", "x".repeat(MAX_PATH_CHARS + 1));
        assert!(FetchBackupFileQuery::parse(&longer).is_err());
        assert!(FetchBackupFileQuery::parse("").is_err());
    }
}
