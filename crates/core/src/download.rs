//! Downloads: whole backups, or directories in them, as one long row of bytes of which any
//! range can be had.
//!
//! What a byte is follows from the backup alone, and is the same for ever: the tag says of which
//! backup and by which layout, so that who has a part of a download can go on with it, at another
//! server too. Where the layout has to be measured first that is done once for all who ask; what
//! was measured holds nothing open.

mod left_out;
mod qcow2;
mod tar;
mod tree;

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use cairn_filesystem::Layout;
use cairn_types::disk::{DiskError, DiskReader};
use cairn_types::tree::FileReader;
use cairn_types::{BackupId, DownloadFormat, FileProblems};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::tree::{DiskFolder, TreeFolder};
use crate::files::{Opened, blocking, directory, open_partition, unreadable};
use crate::{Caller, Error, Refusal, Result, Service};

/// The version of the layouts. What is laid out otherwise has another tag.
const LAYOUT: u32 = 1;
/// Bytes that are read at a time.
pub const PIECE_BYTES: u64 = 1 << 20;
/// Layouts that are kept, or being measured.
const MEASURED_MAX: usize = 4;
/// How long somebody waits for a layout before being told to ask again.
const PATIENCE: Duration = Duration::from_secs(30);
/// A hole of so many bytes ends a run of data: to ask for what is behind it takes less than its zeros.
const HOLE_BYTES: u64 = 4 << 20;
/// Extents that are looked at for one run.
const EXTENTS_MAX: usize = 1 << 16;
/// Bytes of a tag's digest.
const TAG_BYTES: usize = 16;

/// A backup, or a part of one, as bytes.
pub struct Download {
    /// How many.
    pub size_bytes: u64,
    /// Tells these bytes from all others: hexadecimal digits.
    pub tag: String,
    /// What a file of them may be called.
    pub file_name: String,
    /// What is not in an archive because it cannot be read.
    pub left_out: Option<FileProblems>,
    content: Content,
}

#[derive(Clone)]
enum Content {
    Raw(Arc<dyn DiskReader>),
    Qcow2(Arc<qcow2::Image>, Arc<dyn DiskReader>),
    Tar(Arc<tar::Index>, Arc<tar::Root>),
}

/// A range of a download, piece by piece. Blocks.
pub struct Pieces {
    content: Content,
    left: Range<u64>,
    /// An archive, from the first piece on.
    stream: Option<tar::Stream>,
}

/// Some bytes of a download that are not read yet.
pub struct Piece(Vec<Part>);

enum Part {
    Made(Vec<u8>),
    Zeros(u64),
    Disk(Arc<dyn DiskReader>, Range<u64>),
    File(Arc<dyn FileReader>, Range<u64>),
}

impl Download {
    /// A range of it.
    pub fn pieces(&self, range: Range<u64>) -> Pieces {
        Pieces {
            content: self.content.clone(),
            left: range.start..range.end.min(self.size_bytes),
            stream: None,
        }
    }

    /// The next run of data in a range of a raw disk: before it all is zero. It ends before a hole of
    /// 4 MiB or more, or earlier. Where there is nothing but zeros it is the last byte that was looked
    /// at. All of the range, where the download is no raw disk.
    ///
    /// Errors: `Corrupt` damage.
    pub async fn next_run(&self, range: Range<u64>) -> Result<Range<u64>> {
        let Content::Raw(disk) = &self.content else {
            return Ok(range);
        };
        let disk = Arc::clone(disk);
        blocking(move || next_run(&*disk, range)).await
    }
}

fn next_run(disk: &dyn DiskReader, range: Range<u64>) -> Result<Range<u64>> {
    let (mut at, mut run) = (range.start, None::<Range<u64>>);
    for _ in 0..EXTENTS_MAX {
        if at >= range.end {
            break;
        }
        let extent = disk.extent_at(at).map_err(unreadable_disk)?;
        let end = extent.end().min(range.end);
        match &mut run {
            run if extent.data => run.get_or_insert(at..end).end = end,
            Some(run) if end - run.end >= HOLE_BYTES => break,
            _ => {}
        }
        at = end;
    }
    Ok(run.unwrap_or(at.saturating_sub(1)..at))
}

impl Pieces {
    /// The next piece, at most [`PIECE_BYTES`]; nothing at the end. Pieces may be read side by side.
    ///
    /// Errors: `Corrupt` damage.
    pub fn next_piece(&mut self) -> Result<Option<Piece>> {
        let (mut parts, mut room) = (Vec::new(), PIECE_BYTES);
        while room > 0 && !self.left.is_empty() {
            let limit = room.min(self.left.end - self.left.start);
            let part = self.part(limit)?;
            self.left.start += part.bytes();
            room -= part.bytes();
            parts.push(part);
        }
        Ok((!parts.is_empty()).then_some(Piece(parts)))
    }

    fn part(&mut self, limit: u64) -> Result<Part> {
        let at = self.left.start;
        Ok(match &self.content {
            Content::Raw(disk) => Part::Disk(Arc::clone(disk), at..at + limit),
            Content::Qcow2(image, disk) => match image.part(at, limit).map_err(unreadable_disk)? {
                qcow2::Part::Made(bytes) => Part::Made(bytes),
                qcow2::Part::Disk(range) => Part::Disk(Arc::clone(disk), range),
                qcow2::Part::Zeros(bytes) => Part::Zeros(bytes),
            },
            Content::Tar(index, root) => {
                let stream = match &mut self.stream {
                    Some(stream) => stream,
                    none => none.insert(tar::Stream::begin(Arc::clone(index), root, at)?),
                };
                match stream.part(limit)? {
                    tar::Part::Made(bytes) => Part::Made(bytes),
                    tar::Part::File(file, range) => Part::File(file, range),
                    tar::Part::Zeros(bytes) => Part::Zeros(bytes),
                }
            }
        })
    }
}

impl Part {
    fn bytes(&self) -> u64 {
        match self {
            Self::Made(bytes) => bytes.len() as u64,
            Self::Zeros(bytes) => *bytes,
            Self::Disk(_, range) | Self::File(_, range) => range.end - range.start,
        }
    }
}

impl Piece {
    /// Reads its bytes, all of them. Blocks.
    ///
    /// Errors: `Corrupt` damage.
    pub fn read(self) -> Result<Vec<u8>> {
        let bytes: u64 = self.0.iter().map(Part::bytes).sum();
        let mut read = vec![0; bytes as usize];
        let mut rest = read.as_mut_slice();
        for part in self.0 {
            let (now, later) = rest.split_at_mut(part.bytes() as usize);
            match part {
                Part::Made(bytes) => now.copy_from_slice(&bytes),
                Part::Zeros(_) => {}
                Part::Disk(disk, range) => {
                    disk.read_at(range.start, now).map_err(unreadable_disk)?;
                }
                Part::File(file, range) => {
                    let length = file.read_at(range.start, now).map_err(unreadable)?;
                    if length != now.len() {
                        return Err(unreadable(std::io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
            rest = later;
        }
        Ok(read)
    }
}

/// An error of a stored disk.
fn unreadable_disk(error: DiskError) -> Error {
    unreadable(error.source)
}

/// What was measured of layouts, and what is being measured.
#[derive(Default)]
pub(crate) struct Downloads {
    /// By their tags, those that were asked for last behind the others.
    all: Mutex<VecDeque<(String, Measuring)>>,
    /// Cancelled when the server stops.
    stop: CancellationToken,
}

type Measuring = watch::Receiver<Option<std::result::Result<Measured, Refusal>>>;

#[derive(Clone)]
enum Measured {
    Qcow2(Arc<qcow2::Map>),
    Tar(Arc<tar::Index>),
}

impl Downloads {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, Measuring)>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The layout with a tag: measured by now, or measured now for all who ask. Who has waited too
    /// long asks again; the work goes on.
    async fn measured(
        &self,
        tag: &str,
        work: impl FnOnce() -> Result<Measured> + Send + 'static,
    ) -> Result<Measured> {
        let mut measuring = self.measuring(tag, work)?;
        let waited = tokio::time::timeout(PATIENCE, measuring.wait_for(Option::is_some)).await;
        let ended = match waited {
            Ok(ended) => ended.map(|ended| ended.clone()),
            Err(_) => return Err(Refusal::DownloadNotReady.into()),
        };
        match ended {
            Ok(Some(Ok(measured))) => Ok(measured),
            failed => {
                // The next to ask has another try.
                self.lock().retain(|(other, _)| other != tag);
                match failed {
                    Ok(Some(Err(refusal))) => Err(refusal.into()),
                    _ => Err(Error::Panicked {
                        what: "a measurement",
                    }),
                }
            }
        }
    }

    fn measuring(
        &self,
        tag: &str,
        work: impl FnOnce() -> Result<Measured> + Send + 'static,
    ) -> Result<Measuring> {
        let mut all = self.lock();
        if let Some(place) = all.iter().position(|(other, _)| other == tag)
            && let Some(found) = all.remove(place)
        {
            let measuring = found.1.clone();
            all.push_back(found);
            return Ok(measuring);
        }
        if all.len() >= MEASURED_MAX {
            let over = all
                .iter()
                .position(|(_, measuring)| measuring.borrow().is_some());
            all.remove(over.ok_or(Refusal::DownloadNotReady)?);
        }
        let (sender, measuring) = watch::channel(None);
        all.push_back((tag.to_owned(), measuring.clone()));
        drop(all);
        // It ends by itself, or when the server stops.
        drop(tokio::task::spawn_blocking(move || {
            sender.send_replace(Some(work().map_err(refusal_of)));
        }));
        Ok(measuring)
    }
}

/// What is told of a failure to all who wait.
fn refusal_of(error: Error) -> Refusal {
    match error {
        Error::Refused(refusal) => refusal,
        Error::Cancelled => Refusal::DownloadNotReady,
        error => {
            tracing::error!(
                error = &error as &(dyn std::error::Error + 'static),
                "a download could not be measured"
            );
            let why = "what is stored of it is damaged, or cannot be reached now".to_owned();
            Refusal::UnreadableFile { why }
        }
    }
}

impl Service {
    /// A backup as bytes in a format: of a disk, of a server that has one disk, or of a share. As
    /// an archive also a directory of it, by its path.
    ///
    /// Errors: `NotFound` backup or path; `Invalid` the format does not fit, or the path;
    /// `Transient` it is still being measured; `Corrupt` damage.
    pub async fn open_download(
        &self,
        caller: &Caller,
        backup: BackupId,
        format: DownloadFormat,
        path: Vec<u8>,
    ) -> Result<Download> {
        let (found, stored) = self.find_content(caller, backup).await?;
        let root = stored.find(found.id).await?.root;
        let root_id = root.to_string();
        let (mut tag, mut left_out) = (tag(format, &root_id, &path), None);
        let opened = Opened::of(&found, &stored).await?;
        let downloads = self.downloads();
        let (size_bytes, content) = match (format, opened) {
            (DownloadFormat::Tar, opened) => {
                let (opening, named) = (path.clone(), path);
                let opening = move || archive_root(opened, opening);
                let root = Arc::new(blocking(opening).await?);
                let (stop, walked) = (downloads.stop.clone(), Arc::clone(&root));
                let work = move || Ok(Measured::Tar(Arc::new(tar::measure(&walked, &stop)?)));
                let measured = downloads.measured(&tag, work).await?;
                let Measured::Tar(index) = measured else {
                    return Err(Error::Panicked { what: "a layout" });
                };
                // What could not be read then and can be now would have other places in the archive.
                let without = index.left_out();
                if let Some(problems) = without.problems() {
                    tag = self::tag(
                        format,
                        &root_id,
                        &[&named[..], b"\0", &without.mark()].concat(),
                    );
                    left_out = Some(problems);
                }
                (index.archive_bytes(), Content::Tar(index, root))
            }
            (_, Opened::Tree(_)) => return Err(Refusal::NotADiskBackup.into()),
            (DownloadFormat::Raw, Opened::Disk(disk)) => (disk.size_bytes(), Content::Raw(disk)),
            (DownloadFormat::Qcow2, Opened::Disk(disk)) => {
                if disk.size_bytes() > qcow2::DISK_BYTES_MAX {
                    let why = "the disk is too large for this format".to_owned();
                    return Err(Refusal::UnreadableFile { why }.into());
                }
                let walked = Arc::clone(&disk);
                let work = move || {
                    let map = qcow2::Map::of(&*walked).map_err(unreadable_disk)?;
                    Ok(Measured::Qcow2(Arc::new(map)))
                };
                let measured = downloads.measured(&tag, work).await?;
                let Measured::Qcow2(map) = measured else {
                    return Err(Error::Panicked { what: "a layout" });
                };
                let size_bytes = map.image_bytes();
                let image = qcow2::Image::new(map, Arc::clone(&disk));
                (size_bytes, Content::Qcow2(Arc::new(image), disk))
            }
        };
        Ok(Download {
            size_bytes,
            tag,
            file_name: file_name(&found.resource_name, format),
            left_out,
            content,
        })
    }

    /// Ends what is being measured, because the server stops.
    pub fn end_downloads(&self) {
        self.downloads().stop.cancel();
    }
}

fn tag(format: DownloadFormat, root: &str, path: &[u8]) -> String {
    let head = format!("cairn download {LAYOUT} {format} {root}\n");
    let hash = digest(&SHA256, &[head.as_bytes(), path].concat());
    hex::encode(&hash.as_ref()[..TAG_BYTES])
}

/// Opens the directory that is to be an archive, as often as it is asked.
fn archive_root(opened: Opened, path: Vec<u8>) -> Result<tar::Root> {
    let root: tar::Root = match opened {
        Opened::Tree(tree) => Box::new(move || {
            let folder = directory(&*tree, &path)?;
            Ok(Box::new(TreeFolder::new(folder)))
        }),
        Opened::Disk(disk) => {
            let layout = Layout::read(&disk)?;
            let (partition, rest) = layout.locate(&path)?;
            let (files, rest) = (open_partition(&disk, partition)?, rest.to_vec());
            Box::new(move || Ok(Box::new(DiskFolder::new(files.clone(), rest.clone())?)))
        }
    };
    // What is refused is refused before anything is measured.
    root()?;
    Ok(root)
}

/// The resource's name, and what says the format at its end in place of what says another.
fn file_name(resource: &str, format: DownloadFormat) -> String {
    let stem = [".img", ".raw", ".qcow2"]
        .iter()
        .find_map(|end| resource.strip_suffix(end).filter(|stem| !stem.is_empty()));
    let end = match format {
        DownloadFormat::Raw => "img",
        DownloadFormat::Qcow2 => "qcow2",
        DownloadFormat::Tar => "tar",
    };
    format!("{}.{end}", stem.unwrap_or(resource))
}

#[cfg(test)]
mod tests {
    use cairn_testkit::MemoryDisk;

    use super::*;

    #[test]
    fn a_tag_tells_downloads_apart() {
        let tags = [
            tag(DownloadFormat::Raw, "aa", b""),
            tag(DownloadFormat::Qcow2, "aa", b""),
            tag(DownloadFormat::Tar, "aa", b""),
            tag(DownloadFormat::Tar, "aa", b"/etc"),
            tag(DownloadFormat::Tar, "ab", b"/etc"),
        ];
        for (number, one) in tags.iter().enumerate() {
            assert_eq!(one.len(), 2 * TAG_BYTES);
            assert!(!tags[..number].contains(one));
        }
    }

    #[test]
    fn a_run_ends_before_a_hole_that_is_worth_it() {
        const MIB: u64 = 1 << 20;
        let disk = MemoryDisk::new(64 * MIB);
        for (offset, length) in [(10 * MIB, MIB), (14 * MIB, 4096), (30 * MIB, MIB)] {
            disk.write(offset, &vec![7; length as usize]);
        }
        let run = |range: Range<u64>| next_run(&disk, range).unwrap();
        let end = 14 * MIB + 4096;
        assert_eq!(run(0..64 * MIB), 10 * MIB..end);
        assert_eq!(run(11 * MIB..64 * MIB), 14 * MIB..end);
        assert_eq!(run(end..64 * MIB), 30 * MIB..31 * MIB);
        assert_eq!(run(30 * MIB + 1..30 * MIB + 6), 30 * MIB + 1..30 * MIB + 6);
        assert_eq!(run(31 * MIB..64 * MIB), 64 * MIB - 1..64 * MIB);
        assert_eq!(run(5..6), 5..6);
    }

    #[test]
    fn a_file_is_called_after_what_is_in_it() {
        for (resource, format, wanted) in [
            ("disk.img", DownloadFormat::Qcow2, "disk.qcow2"),
            ("disk.qcow2", DownloadFormat::Raw, "disk.img"),
            ("home", DownloadFormat::Tar, "home.tar"),
            (".img", DownloadFormat::Raw, ".img.img"),
        ] {
            assert_eq!(file_name(resource, format), wanted);
        }
    }
}
