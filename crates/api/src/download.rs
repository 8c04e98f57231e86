//! Downloads on the wire: a backup, or a directory in it, as bytes of which any range can
//! be had. An extension: CBR has nothing of the kind.

use cairn_types::{DownloadFormat, FileProblems};
use percent_encoding::percent_decode_str;

use crate::file::{PathText, check_name};
use crate::query::{encode, query};
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

/// The header that tells what is not in an archive because it cannot be read: [`FileProblems`] as JSON,
/// percent-encoded.
pub const LEFT_OUT_HEADER: &str = "x-cairn-left-out";
/// Bytes of it at most: what stands between a server and its clients has little room for headers.
const LEFT_OUT_BYTES_MAX: usize = 3000;
/// Characters of what is said of one entry.
const LEFT_OUT_CHARS_MAX: usize = 300;

/// Writes the header's value: all are counted, and the first are named as far as there is room.
pub fn write_left_out(problems: &FileProblems) -> String {
    let short = |text: &String| text.chars().take(LEFT_OUT_CHARS_MAX).collect();
    let mut problems = FileProblems {
        count: problems.count,
        first: problems.first.iter().map(short).collect(),
    };
    loop {
        let text = serde_json::to_string(&problems).expect("numbers and texts become JSON");
        let value = encode(&text);
        if value.len() <= LEFT_OUT_BYTES_MAX || problems.first.pop().is_none() {
            return value.into_owned();
        }
    }
}

/// Reads what [`write_left_out`] wrote.
pub fn read_left_out(value: &str) -> Option<FileProblems> {
    let text = percent_decode_str(value).decode_utf8().ok()?;
    serde_json::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_told_by_a_header_of_bounded_length() {
        let few = FileProblems {
            count: 1,
            first: vec!["\"ü\\n\": left out: damaged".to_owned()],
        };
        assert_eq!(read_left_out(&write_left_out(&few)), Some(few));
        let many = FileProblems {
            count: 5000,
            first: vec!["ü".repeat(4000); 10],
        };
        let value = write_left_out(&many);
        assert!(value.is_ascii() && value.len() <= LEFT_OUT_BYTES_MAX);
        let read = read_left_out(&value).unwrap();
        assert!(read.count == 5000 && !read.first.is_empty());
        for wrong in ["", "%", "{}", "1"] {
            assert_eq!(read_left_out(wrong), None, "{wrong}");
        }
    }

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
