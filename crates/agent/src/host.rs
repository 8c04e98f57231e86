//! This host as its server asks about it.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_link::{ChunkKeys, Host, PiecesWanted, Selection};
use cairn_repo::{Cutter, PieceRead, PieceReader, block_id};
use cairn_source::{Folder, FolderOptions};
use cairn_types::disk::BlockId;
use cairn_types::tree::{DistantPiece, TreeReader};

use crate::rules::Rules;
use crate::selection::SelectedTree;

/// The files of this host, as far as its rules allow.
pub struct FileHost {
    rules: Rules,
    /// Cuts as the project does that asked last; its tables take a while to make.
    cutter: Mutex<Option<(u64, Arc<Cutter>)>>,
}

impl FileHost {
    /// The host with these rules.
    pub fn new(rules: Rules) -> Self {
        let cutter = Mutex::default();
        Self { rules, cutter }
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

impl Host for FileHost {
    fn open(&self, selection: &Selection) -> io::Result<Arc<dyn TreeReader>> {
        let options = FolderOptions {
            cross_file_systems: true,
            ..FolderOptions::default()
        };
        let root = Folder::open(Path::new("/"), options)?;
        let tree = SelectedTree::new(root, selection, &self.rules.allow_paths)?;
        Ok(Arc::new(tree))
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
