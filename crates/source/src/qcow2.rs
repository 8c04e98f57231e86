//! A qcow2 image: its header, which tells its size and what it is built upon,
//! and the disk itself, which `qemu-nbd` serves.
//!
//! A backing file may lie anywhere on the host: images are the operator's, not
//! a guest's. It must be a local file, named plainly.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cairn_types::disk::{
    DiskError, DiskOperation, DiskReader, DiskWriter, Extent, NoChangeMap, Point,
};

use crate::change_map::ChangeMap;
use crate::change_map::bitmap::Bitmap;
use crate::change_map::file::ChangeFile;
use crate::fingerprint::Fingerprint;
use crate::lock::{Access, LockedFile};
use crate::nbd::Context;
use crate::qemu::{QemuNbd, qemu_img};
use crate::raw::{fits, open_data, open_locked};
use crate::{Error, Result};

/// Files that an image may be built of.
const MAX_CHAIN: usize = 64;
/// Source: QEMU, `docs/interop/qcow2.txt`, `backing_file_size`.
const MAX_BACKING_NAME_BYTES: usize = 1023;
/// Incompatible feature: the data lies in another file.
const EXTERNAL_DATA_FILE: u64 = 1 << 2;
const MAGIC: [u8; 4] = *b"QFI\xfb";

/// What the header of a qcow2 image says.
/// Source: QEMU, `docs/interop/qcow2.txt`, "Header".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) size_bytes: u64,
    /// The name of the file that this one is built upon, as it is written there.
    pub(crate) backing: Option<String>,
}

impl Header {
    /// Reads the header of an image.
    ///
    /// Errors: `InvalidData` it has none, or one that Cairn does not read.
    pub(crate) fn read(file: &File) -> io::Result<Self> {
        let mut head = [0; 80];
        file.read_exact_at(&mut head[..72], 0)
            .map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => invalid("it is too short for a qcow2 image"),
                _ => error,
            })?;
        let number = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("4 bytes"));
        let long = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        if head[..4] != MAGIC {
            return Err(invalid("it does not start like a qcow2 image"));
        }
        let version = number(4);
        if !(2..=3).contains(&version) {
            return Err(invalid("it is of an unknown version of qcow2"));
        }
        if number(32) != 0 {
            return Err(invalid("it is encrypted"));
        }
        let (name_at, name_bytes, size_bytes) = (long(8), number(16), long(24));
        if version == 3 {
            let mut features = [0; 8];
            file.read_exact_at(&mut features, 72)?;
            if u64::from_be_bytes(features) & EXTERNAL_DATA_FILE != 0 {
                return Err(invalid("its data lies in another file"));
            }
        }
        let backing = match name_at {
            0 => None,
            _ => Some(backing_name(file, name_at, name_bytes as usize)?),
        };
        Ok(Self {
            size_bytes,
            backing,
        })
    }
}

fn backing_name(file: &File, at: u64, length: usize) -> io::Result<String> {
    if length == 0 || length > MAX_BACKING_NAME_BYTES {
        return Err(invalid(
            "the name of its backing file has an impossible length",
        ));
    }
    let mut name = vec![0; length];
    file.read_exact_at(&mut name, at)?;
    let name = String::from_utf8(name)
        .map_err(|_| invalid("the name of its backing file is not UTF-8"))?;
    // QEMU takes what comes before a colon in the first part of a path for a protocol.
    if name
        .split('/')
        .next()
        .is_some_and(|first| first.contains(':'))
    {
        return Err(invalid("its backing file is not a local file"));
    }
    Ok(name)
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Cuts an image that nobody has open and that is larger to this size.
///
/// Errors: as [`Qcow2Disk::open`] for writing.
pub(crate) fn shrink(name: &str, path: &Path, size_bytes: u64) -> Result<()> {
    let locked = open_locked(name, path, Access::Write)?;
    let header = Header::read(locked.file()).map_err(|error| header_error(name, error))?;
    if header.size_bytes <= size_bytes {
        return Ok(());
    }
    // qemu-img takes the lock itself.
    drop(locked);
    let failed = |source| Error::Serve {
        volume: name.to_owned(),
        source,
    };
    let resize = ["resize", "-q", "-f", "qcow2", "--shrink"];
    let resized = qemu_img(&resize, path, &[&size_bytes.to_string()]);
    resized.map(|_| ()).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::NoQemu {
            volume: name.to_owned(),
        },
        _ => failed(error),
    })
}

/// A qcow2 image that is open: served by its own `qemu-nbd`, which ends with it.
#[derive(Debug)]
pub(crate) struct Qcow2Disk {
    name: String,
    server: QemuNbd,
    /// Of every file of the chain, while reading; of the image alone, while writing.
    fingerprints: Vec<Fingerprint>,
    access: Access,
    /// Holds the lock while reading. `qemu-nbd` holds it while writing.
    _lock: Option<LockedFile>,
    /// Comes last: it may be at work on the image once nobody has it open.
    changes: ChangeMap,
}

impl Qcow2Disk {
    /// Opens the image `name` at `path`.
    ///
    /// Errors: `NotFound` no such file; `Conflict` somebody else has it open;
    /// `Invalid` not a qcow2 image that can be read, or no `qemu-nbd`.
    pub(crate) fn open(name: &str, path: &Path, access: Access) -> Result<Self> {
        let locked = open_locked(name, path, access)?;
        let fingerprints = match access {
            Access::Read => chain(name, path)?,
            Access::Write => {
                Header::read(locked.file()).map_err(|error| header_error(name, error))?;
                let failed = |source| Error::Open {
                    volume: name.to_owned(),
                    source,
                };
                vec![Fingerprint::take(path, locked.file()).map_err(failed)?]
            }
        };
        // A writer's lock would keep qemu-nbd out as well: it takes its own.
        let lock = (access == Access::Read).then_some(locked);
        let server = QemuNbd::start(name, path, access, &Context::Allocation)?;
        Ok(Self {
            name: name.to_owned(),
            server,
            fingerprints,
            access,
            _lock: lock,
            changes: ChangeMap::none(),
        })
    }

    /// Opens the image for a backup: it can say what has changed.
    ///
    /// Errors: as [`open`](Self::open).
    pub(crate) fn open_for_backup(name: &str, path: &Path, bitmaps: bool) -> Result<Self> {
        let locked = open_locked(name, path, Access::Read)?;
        let header = Header::read(locked.file()).map_err(|error| header_error(name, error))?;
        let file = ChangeFile::find(path, locked.file(), header.size_bytes);
        // To be given bitmaps the image must be open nowhere.
        drop(locked);
        let changes = match file {
            Ok(None) if bitmaps => {
                let bitmap = Bitmap::create(name, path);
                bitmap.map_or_else(ChangeMap::None, ChangeMap::Bitmap)
            }
            file => ChangeMap::of_file(file),
        };
        Ok(Self {
            changes,
            ..Self::open(name, path, Access::Read)?
        })
    }

    fn error(
        &self,
        operation: DiskOperation,
        (offset, length): (u64, u64),
        source: io::Error,
    ) -> DiskError {
        DiskError {
            disk: self.name.clone(),
            operation,
            offset,
            length,
            source,
        }
    }
}

/// The fingerprints of every file that the image at `path` is built of.
fn chain(name: &str, path: &Path) -> Result<Vec<Fingerprint>> {
    let mut prints = Vec::new();
    let mut next = Some(path.to_owned());
    while let Some(path) = next {
        if prints.len() == MAX_CHAIN {
            let why = format!("it is built of more than {MAX_CHAIN} files");
            return Err(Error::Unusable {
                volume: name.to_owned(),
                why,
            });
        }
        let file = open_data(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Error::Unusable {
                volume: name.to_owned(),
                why: format!("its backing file {} is missing", file_name(&path)),
            },
            _ => Error::Open {
                volume: name.to_owned(),
                source: error,
            },
        })?;
        let failed = |source| Error::Open {
            volume: name.to_owned(),
            source,
        };
        prints.push(Fingerprint::take(&path, &file).map_err(failed)?);
        next = match Header::read(&file) {
            Ok(header) => header.backing.map(|backing| beside(&path, &backing)),
            // What is no qcow2 image ends the chain: a raw base, say. Whether it
            // is what the image above says, qemu-nbd decides.
            Err(_) if prints.len() > 1 => None,
            Err(error) => return Err(header_error(name, error)),
        };
    }
    Ok(prints)
}

/// The place of a backing file: relative names are relative to the image above.
fn beside(path: &Path, backing: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).join(backing)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

fn header_error(name: &str, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Error::Unusable {
            volume: name.to_owned(),
            why: error.to_string(),
        },
        _ => Error::Open {
            volume: name.to_owned(),
            source: error,
        },
    }
}

impl DiskReader for Qcow2Disk {
    fn size_bytes(&self) -> u64 {
        self.server.size_bytes()
    }

    fn extent_at(&self, offset: u64) -> std::result::Result<Extent, DiskError> {
        self.server
            .extent_at(offset)
            .map_err(|source| self.error(DiskOperation::Map, (offset, 0), source))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> std::result::Result<(), DiskError> {
        self.server.read_at(offset, buffer).map_err(|source| {
            self.error(DiskOperation::Read, (offset, buffer.len() as u64), source)
        })
    }

    fn check_unchanged(&self) -> std::result::Result<(), DiskError> {
        for print in &self.fingerprints {
            let checked = match self.access {
                Access::Read => print.check(),
                Access::Write => print.check_same_file(),
            };
            checked.map_err(|source| {
                self.error(DiskOperation::Read, (0, self.size_bytes()), source)
            })?;
        }
        Ok(())
    }

    fn point(&self) -> Option<Point> {
        self.changes.point()
    }

    fn changes_since(&self, earlier: &Point) -> std::result::Result<Vec<Range<u64>>, NoChangeMap> {
        let extent_at = |at| self.server.extent_at(at);
        self.changes.changes_since(earlier, extent_at)
    }

    fn keep_point(&self) {
        self.changes.keep_point();
    }
}

impl DiskWriter for Qcow2Disk {
    fn write_at(&self, offset: u64, data: &[u8]) -> std::result::Result<(), DiskError> {
        let place = (offset, data.len() as u64);
        if !fits(self.size_bytes(), place) {
            let outside = io::ErrorKind::InvalidInput.into();
            return Err(self.error(DiskOperation::Write, place, outside));
        }
        self.server
            .write_at(offset, data)
            .map_err(|source| self.error(DiskOperation::Write, place, source))
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> std::result::Result<(), DiskError> {
        let place = (offset, length);
        if !fits(self.size_bytes(), place) {
            let outside = io::ErrorKind::InvalidInput.into();
            return Err(self.error(DiskOperation::Write, place, outside));
        }
        self.server
            .write_zeroes(offset, length)
            .map_err(|source| self.error(DiskOperation::Write, place, source))
    }

    fn flush(&self) -> std::result::Result<(), DiskError> {
        self.server
            .flush()
            .map_err(|source| self.error(DiskOperation::Flush, (0, self.size_bytes()), source))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<Header> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        Header::read(&file)
    }

    fn header(version: u32, backing: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend(version.to_be_bytes());
        bytes.extend(if backing.is_empty() { 0_u64 } else { 104 }.to_be_bytes());
        bytes.extend((backing.len() as u32).to_be_bytes());
        bytes.extend(16_u32.to_be_bytes());
        bytes.extend((5_u64 << 30).to_be_bytes());
        bytes.resize(104, 0);
        bytes.extend(backing.as_bytes());
        bytes
    }

    #[test]
    fn size_and_backing_file_are_read() {
        for version in [2, 3] {
            let plain = read(&header(version, "")).unwrap();
            assert_eq!(
                plain,
                Header {
                    size_bytes: 5 << 30,
                    backing: None
                }
            );
            let upon = read(&header(version, "dir/base:1.img")).unwrap();
            assert_eq!(upon.backing.as_deref(), Some("dir/base:1.img"));
        }
    }

    #[test]
    fn what_cairn_does_not_read_is_refused() {
        let mut encrypted = header(3, "");
        encrypted[35] = 1;
        let mut elsewhere = header(3, "");
        elsewhere[79] = 4;
        let mut endless = header(3, "x");
        endless[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
        for (case, bytes) in [
            ("version", header(4, "")),
            ("encrypted", encrypted),
            ("data file", elsewhere),
            ("long name", endless),
            ("protocol", header(3, "nbd://host/x")),
            ("json", header(3, "json:{\"driver\":\"nbd\"}")),
            ("nothing", Vec::new()),
        ] {
            let error = read(&bytes).expect_err(case);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{case}");
        }
    }

    proptest! {
        #[test]
        fn no_header_is_too_odd(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
            version in 2_u32..4,
        ) {
            let start = [&MAGIC[..], &version.to_be_bytes()].concat();
            let kept = bytes.len().min(8);
            bytes[..kept].copy_from_slice(&start[..kept]);
            let _ = read(&bytes);
        }
    }
}
