//! A file that comes from a server: it is filled beside its place, under a name that says what it is
//! a part of, and is in its place once it is whole.
//!
//! A file may be there already, and is replaced by one that no more can read.
//! Anything else that is there, a device or a link, stays as it is; and so does a part that somebody else has
//! put there.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

use crate::Error;

/// A run of so many zeros, from a multiple of it on, is not written: it is a hole.
const HOLE_BYTES: usize = 4096;
/// What the name of a file ends in that is not whole yet.
const PART: &str = ".part";
/// Bytes of the file's name in that of a part at most, so that there is room for the rest.
const NAME_BYTES_MAX: usize = 180;
/// The bits of a mode that say who may read, write and run a file.
const PERMISSIONS: u32 = 0o777;

/// Where a file goes, and where its parts are kept until it is whole: beside it.
pub(crate) struct Place {
    target: PathBuf,
    folder: PathBuf,
    /// What the names of the parts begin with.
    start: OsString,
}

/// A part that was found.
pub(crate) struct Found {
    path: PathBuf,
    pub tag: String,
    pub bytes: u64,
}

impl Place {
    /// The place of a file; `of` tells it from all others that may come there.
    ///
    /// Errors: there can be no file, or there is something else.
    pub fn new(target: &Path, of: &str) -> Result<Self, Error> {
        let name = target.file_name();
        // `a/` and `a/.` are the names of directories.
        let name = name.filter(|name| target.as_os_str().as_bytes().ends_with(name.as_bytes()));
        let name = name.ok_or_else(|| no_file(target))?;
        refuse_what_is_no_file(target)?;
        let folder = target
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        // Whether it is one is told before anything comes.
        folder.read_dir().map_err(|source| failed(target, source))?;
        let told = [of.as_bytes(), b"\0", name.as_bytes()].concat();
        let shown = &name.as_bytes()[..name.len().min(NAME_BYTES_MAX)];
        let mut start = OsStr::from_bytes(shown).to_owned();
        start.push(format!(".{:016x}-", number(&told)));
        Ok(Self {
            target: target.to_owned(),
            folder: folder.to_owned(),
            start,
        })
    }

    /// The longest part that is there.
    pub fn find(&self) -> Result<Option<Found>, Error> {
        let longest = self.longest();
        longest.map_err(|source| failed(&self.folder, source))
    }

    fn longest(&self) -> io::Result<Option<Found>> {
        let mut longest: Option<Found> = None;
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let rest = name
                .as_encoded_bytes()
                .strip_prefix(self.start.as_encoded_bytes());
            let Some(tag) = rest.and_then(|rest| rest.strip_suffix(PART.as_bytes())) else {
                continue;
            };
            let bytes = entry.metadata()?.len();
            if longest.as_ref().is_none_or(|longest| longest.bytes < bytes) {
                let tag = String::from_utf8_lossy(tag);
                longest = Some(Found {
                    path: entry.path(),
                    tag: format!("\"{tag}\""),
                    bytes,
                });
            }
        }
        Ok(longest)
    }

    /// Opens the part with a tag, or makes it. One that another command is at work on is not opened.
    pub fn open(self, tag: &str) -> Result<Part, Error> {
        let tag = tag.trim_matches('"');
        // It becomes a part of a name.
        if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::OtherBytes);
        }
        let mut name = self.start;
        name.push(tag);
        name.push(PART);
        let path = self.folder.join(name);
        let mut options = OpenOptions::new();
        // Neither over a link nor to a pipe, which would wait for a reader.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = options
            .write(true)
            .create(true)
            .truncate(false)
            .custom_flags(flags.bits() as i32)
            .open(&path)
            .map_err(|source| failed(&path, source))?;
        let found = file.metadata().map_err(|source| failed(&path, source))?;
        if !found.is_file() {
            return Err(no_file(&path));
        }
        if !is_own(&found) {
            let path = path.display();
            return Err(Error::Usage(format!(
                "{path} is not yours alone, so what is in it is not trusted: remove it"
            )));
        }
        if let Some(replaced) = refuse_what_is_no_file(&self.target)? {
            let mode = Permissions::from_mode(replaced.mode() & PERMISSIONS);
            let set = file.set_permissions(mode);
            set.map_err(|source| failed(&path, source))?;
        }
        file.try_lock().map_err(|_| {
            let path = path.display();
            Error::Usage(format!("another download is at work on {path}"))
        })?;
        Ok(Part {
            path,
            file,
            target: self.target,
            folder: self.folder,
        })
    }
}

impl Found {
    pub fn remove(&self) -> Result<(), Error> {
        std::fs::remove_file(&self.path).map_err(|source| failed(&self.path, source))
    }
}

/// A file that is filled until it is whole. What lies before its end is right.
pub(crate) struct Part {
    path: PathBuf,
    file: File,
    target: PathBuf,
    folder: PathBuf,
}

impl Part {
    /// How much of it is there.
    pub fn had_bytes(&self) -> Result<u64, Error> {
        let found = self.file.metadata();
        Ok(found.map_err(|source| failed(&self.path, source))?.len())
    }

    /// Writes what comes next, and leaves out what is zero.
    pub fn write(&self, offset: u64, piece: &[u8]) -> Result<(), Error> {
        let written = self.write_data(offset, piece);
        written.map_err(|source| failed(&self.path, source))
    }

    fn write_data(&self, offset: u64, piece: &[u8]) -> io::Result<()> {
        let (mut at, mut rest) = (offset, piece);
        while !rest.is_empty() {
            let to_border = HOLE_BYTES - (at % HOLE_BYTES as u64) as usize;
            let (now, later) = rest.split_at(to_border.min(rest.len()));
            if now.iter().any(|byte| *byte != 0) {
                let run = data_run(rest, to_border);
                self.file.write_all_at(&rest[..run], at)?;
                at += run as u64;
                rest = &rest[run..];
            } else {
                at += now.len() as u64;
                rest = later;
            }
        }
        // What is left out counts as there.
        match self.file.metadata()?.len() < at {
            true => self.file.set_len(at),
            false => Ok(()),
        }
    }

    /// Gives it its length, makes it durable and puts it in its place.
    pub fn finish(self, size_bytes: u64) -> Result<(), Error> {
        // Something may have come there meanwhile.
        let replaced = refuse_what_is_no_file(&self.target)?;
        let finished = || {
            self.file.set_len(size_bytes)?;
            if let Some(replaced) = replaced {
                let mode = Permissions::from_mode(replaced.mode() & PERMISSIONS);
                self.file.set_permissions(mode)?;
            }
            self.file.sync_all()?;
            std::fs::rename(&self.path, &self.target)?;
            File::open(&self.folder)?.sync_all()
        };
        finished().map_err(|source| failed(&self.target, source))
    }
}

/// Whether a file is of whoever runs this, and has one name: nobody else has put it there.
pub(crate) fn is_own(file: &Metadata) -> bool {
    file.is_file() && file.uid() == geteuid().as_raw() && file.nlink() == 1
}

/// Refuses to put a file where something else is. Returns the file that is there.
fn refuse_what_is_no_file(target: &Path) -> Result<Option<Metadata>, Error> {
    match target.symlink_metadata() {
        Ok(found) if found.is_file() => Ok(Some(found)),
        Ok(_) => Err(no_file(target)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(target, source)),
    }
}

fn no_file(path: &Path) -> Error {
    let path = path.display();
    Error::Usage(format!("{path} is no regular file, and stays as it is"))
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::Write {
        path: path.to_owned(),
        source,
    }
}

/// How far it is to the next block of zeros; `to_border` is where the first block ends.
fn data_run(bytes: &[u8], to_border: usize) -> usize {
    let mut end = to_border.min(bytes.len());
    while end < bytes.len() {
        let block = &bytes[end..bytes.len().min(end + HOLE_BYTES)];
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        end += block.len();
    }
    end
}

/// A number that the same bytes have for ever: FNV-1a.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_is_written_in_pieces_is_the_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut whole = vec![0; 100_000];
        whole[10_000..30_000].fill(7);
        whole[70_001] = 1;
        for length in [1_usize, 100, 4096, 5000, 100_000] {
            // As long as a name can be.
            let target = folder.path().join("n".repeat(255));
            let part = Place::new(&target, &length.to_string()).unwrap();
            let part = part.open("tag").unwrap();
            let mut at = 0;
            for piece in whole.chunks(length) {
                part.write(at, piece).unwrap();
                at += piece.len() as u64;
                assert_eq!(part.had_bytes().unwrap(), at, "{length}");
            }
            part.finish(whole.len() as u64).unwrap();
            assert!(std::fs::read(&target).unwrap() == whole, "{length}");
            assert!(target.metadata().unwrap().blocks() * 512 < 60_000);
        }
    }

    #[test]
    fn what_is_there_and_no_file_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        File::create(at("file")).unwrap();
        symlink("file", at("link")).unwrap();
        symlink("nowhere", at("dangling")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        let refused = |path: &Path| match Place::new(path, "").err().map(|error| error.line()) {
            Some(line) => line.contains(&path.display().to_string()),
            None => false,
        };
        for wrong in [
            "link", "dangling", "folder", "socket", "new/", "file/.", "..", "file/x", "none/x",
        ] {
            assert!(refused(&at(wrong)), "{wrong}");
        }
        assert!(refused(Path::new("/dev/null")));
        assert!(Place::new(&at("file"), "").is_ok());

        // A part is no way around that, nor is what comes while it is filled.
        let part = Place::new(&at("new"), "").unwrap().open("tag").unwrap();
        let path = part.path.clone();
        symlink("file", at("new")).unwrap();
        assert!(part.finish(5).is_err());
        std::fs::remove_file(at("new")).unwrap();
        std::fs::remove_file(&path).unwrap();
        symlink("file", &path).unwrap();
        assert!(Place::new(&at("new"), "").unwrap().open("tag").is_err());
        assert_eq!(at("file").metadata().unwrap().len(), 0);
    }

    #[test]
    fn a_part_that_another_has_put_there_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let place = || Place::new(&at("file"), "").unwrap();
        let first = place().open("tag").unwrap();
        let path = first.path.clone();
        drop(first);
        let refused = || match place().open("tag").err().map(|error| error.line()) {
            Some(line) => line.contains("not yours alone"),
            None => false,
        };
        assert!(!refused());
        std::fs::remove_file(&path).unwrap();
        File::create(at("mine")).unwrap();
        std::fs::hard_link(at("mine"), &path).unwrap();
        assert!(refused());
        assert_eq!(at("mine").metadata().unwrap().len(), 0);
        std::fs::remove_file(&path).unwrap();
        if geteuid().is_root() {
            File::create(&path).unwrap();
            std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
            assert!(refused());
        }
    }

    #[test]
    fn a_file_has_the_mode_of_the_one_that_it_replaces() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        File::create(&target).unwrap();
        for mode in [0o600, 0o640, 0o664] {
            std::fs::set_permissions(&target, Permissions::from_mode(mode)).unwrap();
            let part = Place::new(&target, "").unwrap().open("tag").unwrap();
            let shown = part.file.metadata().unwrap().mode() & PERMISSIONS;
            assert_eq!(shown, mode, "{mode:o}");
            part.finish(1).unwrap();
            assert_eq!(target.metadata().unwrap().mode() & PERMISSIONS, mode);
        }
    }

    #[test]
    fn two_do_not_fill_the_same_part() {
        let folder = tempfile::tempdir().unwrap();
        let place = || Place::new(&folder.path().join("file"), "").unwrap();
        let _first = place().open("tag").unwrap();
        let refused = place().open("tag").err().unwrap().line();
        assert!(refused.contains("another download is at work"), "{refused}");
    }
}
