//! This host as its server asks about it.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cairn_link::{ChunkKeys, Held, Host, PiecesWanted, Selection, Target};
use cairn_repo::{Cutter, PieceRead, PieceReader, block_id};
use cairn_source::{Folder, FolderOptions};
use cairn_types::disk::BlockId;
use cairn_types::tree::{DistantPiece, TreeReader, TreeWriter};
use cairn_types::{Clock, Timestamp};
use rustix::io::Errno;

use crate::rules::Rules;
use crate::scripts::Scripts;
use crate::selection::SelectedTree;

/// The mode of folders that are made for a target to lie in.
const ABOVE: u32 = 0o755;

/// The files of this host, as far as its rules allow.
pub struct FileHost {
    rules: Rules,
    scripts: Arc<Scripts>,
    clock: Arc<dyn Clock>,
    /// Cuts as the project does that asked last; its tables take a while to make.
    cutter: Mutex<Option<(u64, Arc<Cutter>)>>,
}

impl FileHost {
    /// The host with these rules and scripts; its clock.
    pub fn new(rules: Rules, scripts: Arc<Scripts>, clock: Arc<dyn Clock>) -> Self {
        Self {
            rules,
            scripts,
            clock,
            cutter: Mutex::default(),
        }
    }

    /// Refuses a target that lies, over whatever links, in no path that is allowed.
    fn must_allow(&self, path: &Path) -> io::Result<()> {
        let there = path.ancestors().find(|above| above.exists());
        let there = there.unwrap_or(Path::new("/"));
        let missing = path.strip_prefix(there).unwrap_or(Path::new(""));
        let only_names = missing
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let real = std::fs::canonicalize(there)?.join(missing);
        let mut allowed = self.rules.allow_paths.iter();
        match only_names && allowed.any(|allowed| real.starts_with(allowed)) {
            true => Ok(()),
            false => Err(denied("the host's agent does not allow restores there")),
        }
    }

    fn cutter(&self, seed: u64) -> Arc<Cutter> {
        let mut known = self.cutter.lock().unwrap_or_else(PoisonError::into_inner);
        match &*known {
            Some((of, cutter)) if *of == seed => cutter.clone(),
            _ => {
                let cutter = Arc::new(Cutter::new(seed));
                *known = Some((seed, cutter.clone()));
                cutter
            }
        }
    }
}

fn denied(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, text)
}

/// Says what is in the way: of a link the system says, as of a file, that it is no directory.
fn no_link(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::LOOP | Errno::NOTDIR) => {
            denied("the path leads over a symbolic link, which no restore follows, or over a file")
        }
        _ => error,
    }
}

impl Host for FileHost {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn freeze(&self, held: Duration) -> io::Result<Held> {
        self.scripts.freeze(held)
    }

    fn open(&self, selection: &Selection) -> io::Result<Arc<dyn TreeReader>> {
        let options = FolderOptions {
            cross_file_systems: true,
            ..FolderOptions::default()
        };
        let root = Folder::open(Path::new("/"), options)?;
        let tree = SelectedTree::new(root, selection, &self.rules.allow_paths)?;
        Ok(Arc::new(tree))
    }

    fn open_target(&self, target: &Target) -> io::Result<Arc<dyn TreeWriter>> {
        let path = Path::new(&target.path);
        if !path.is_absolute() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if !self.rules.allow_restore {
            return Err(denied("the host's agent does not allow restores"));
        }
        if !self.rules.allow_paths.is_empty() {
            // Before anything is made: what of the path is there must lead to where it may.
            self.must_allow(path)?;
        }
        let options = FolderOptions {
            cross_file_systems: true,
            devices: true,
            ..FolderOptions::default()
        };
        // Name by name and over no link: every connection opens the target anew, and who may
        // change a folder above it could have put a link there meanwhile.
        let mut folder = Folder::open(Path::new("/"), options)?;
        for part in path.components() {
            folder = match part {
                Component::RootDir => folder,
                Component::Normal(name) => folder.enter(name.as_bytes(), ABOVE).map_err(no_link)?,
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            };
        }
        Ok(Arc::new(folder))
    }

    fn id(&self, keys: &ChunkKeys, plain: &[u8]) -> BlockId {
        block_id(&keys.block, plain).0
    }

    fn pieces(&self, keys: &ChunkKeys, wanted: PiecesWanted<'_>) -> io::Result<Vec<DistantPiece>> {
        let (cutter, mut buffer) = (self.cutter(keys.cut_seed), Vec::new());
        let file = (wanted.file, wanted.size_bytes);
        let mut reader = PieceReader::new(file, wanted.from, &cutter, &mut buffer);
        let (mut pieces, mut read) = (Vec::new(), 0);
        while pieces.len() < wanted.pieces_max && read < wanted.bytes_max {
            pieces.push(match reader.next_piece()? {
                Some(PieceRead::Hole(bytes)) => DistantPiece { id: [0; 32], bytes },
                Some(PieceRead::Data(plain)) => {
                    read += plain.len() as u64;
                    DistantPiece {
                        id: self.id(keys, plain),
                        bytes: plain.len() as u64,
                    }
                }
                None => break,
            });
        }
        Ok(pieces)
    }
}
