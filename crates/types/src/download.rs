//! The forms in which a backup is downloaded.

use crate::named::named;

named! {
    /// A form in which a backup is downloaded.
    pub enum DownloadFormat: "download format" {
        /// A disk, byte by byte.
        Raw = "raw",
        /// A disk, without what is zero on it.
        Qcow2 = "qcow2",
        /// Files.
        Tar = "tar",
    }
}
