//! Downloads on the wire: a backup, or a directory in it, as bytes of which any range can
//! be had. An extension: CBR has nothing of the kind.

use cairn_types::DownloadFormat;

use crate::file::{PathText, check_name};
use crate::query::query;
use crate::validate::{Invalid, Validate, require};

query! {
    /// Which bytes are wanted.
    pub struct DownloadBackupQuery {
        one {
            /// `raw` or `qcow2` for a disk, `tar` for files.
            format: DownloadFormat,
            /// With `tar`: the directory. On a disk with partitions it begins with one, as `/p2/etc`. The uppermost
            /// directory, if unset.
            path: PathText,
            /// With `raw`: the answer is the next run of data in the range, and tells by `Content-Range` which that is. It
            /// ends before a hole of 4 MiB or more. Where nothing but zeros was found it is the last byte looked at.
            skip_holes: bool,
        }
        many {}
    }
}

impl Validate for DownloadBackupQuery {
    fn validate(&self) -> Result<(), Invalid> {
        require(self.format.is_some(), "format", "It is missing.")?;
        let is_archive = self.format == Some(DownloadFormat::Tar);
        let skips = self.skip_holes == Some(true);
        let is_raw = self.format == Some(DownloadFormat::Raw);
        require(!skips || is_raw, "skip_holes", "Only a raw disk has holes.")?;
        let rule = "Only an archive is made of a directory.";
        require(self.path.is_none() || is_archive, "path", rule)?;
        check_name("path", self.path.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_form_and_for_files_a_directory() {
        for right in [
            "format=raw",
            "format=qcow2",
            "format=tar",
            "format=tar&path=/etc",
            "format=raw&skip_holes=true",
            "format=tar&skip_holes=false",
        ] {
            assert!(DownloadBackupQuery::parse(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "format=zip",
            "path=/etc",
            "format=raw&path=/",
            "format=qcow2&skip_holes=true",
            "format=raw&skip_holes=1",
            "format=tar&path=%5Cq",
            "format=raw&format=tar",
        ] {
            assert!(DownloadBackupQuery::parse(wrong).is_err(), "{wrong}");
        }
    }
}
