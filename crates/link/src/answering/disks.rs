//! Answering for the disks of a backup.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use cairn_types::disk::{BlockId, DiskError, DiskReader, NoChangeMap, Point};
use cairn_types::{Kind, ResourceId};

use super::Answerer;
use crate::error::Result;
use crate::frame;
use crate::message::{Answer, CHANGES_MAX, ChunkKeys, EXTENTS_MAX, Question};

/// Runs of a disk that are looked at for one answer: many short ones may make one.
const RUNS_LOOKED_AT: usize = 4096;
/// Bytes of a block.
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;

/// The disks of the backup that is replicated.
pub trait Disks: Send + Sync + 'static {
    /// Opens the disk that was saved of a resource. May block.
    ///
    /// Errors: `NotFound` the backup has none.
    fn open(&self, disk: ResourceId) -> Result<Arc<dyn DiskReader>, (Kind, String)>;

    /// The id of a block's plain bytes under a key of the other end.
    fn block_id(&self, key: &[u8; 32], plain: &[u8]) -> BlockId;

    /// What a failure asks for.
    fn kind_of(&self, error: DiskError) -> Kind;
}

/// What a connection has opened.
pub(super) struct Session {
    keys: ChunkKeys,
    disks: Arc<dyn Disks>,
    open: Mutex<HashMap<ResourceId, Arc<Opened>>>,
}

struct Opened {
    reader: Arc<dyn DiskReader>,
    /// What was last asked for, which goes out in several answers.
    changes: Mutex<Option<(Point, Changes)>>,
}

type Changes = Result<Arc<Vec<Range<u64>>>, NoChangeMap>;

impl Answerer for Session {
    /// One question after the other: disks are read in order.
    fn is_alone(&self, _: &Question) -> bool {
        true
    }

    fn answer(&self, question: Question) -> Result<Answer, (Kind, String)> {
        let failed = |error: DiskError| {
            let text = error.to_string();
            (self.disks.kind_of(error), text)
        };
        Ok(match question {
            Question::Open { disk } => {
                let disk = self.open(disk)?;
                Answer::Disk {
                    size_bytes: disk.reader.size_bytes(),
                    point: disk.reader.point(),
                }
            }
            Question::Extents { disk, offset } => {
                let disk = self.open(disk)?;
                Answer::Extents(extents(&*disk.reader, offset).map_err(failed)?)
            }
            Question::Changes { disk, point, from } => match self.open(disk)?.changes(point) {
                Ok(changes) => page(&changes, from),
                Err(NoChangeMap(why)) => Answer::NoChangeMap(why),
            },
            Question::Ids { disk, blocks } => {
                let disk = self.open(disk)?;
                let mut ids = Vec::with_capacity(blocks.len());
                let mut plain = Vec::new();
                for block in blocks {
                    plain.clear();
                    disk.read(block, &mut plain).map_err(failed)?;
                    ids.push(self.disks.block_id(&self.keys.block, &plain));
                }
                Answer::Ids(ids)
            }
            Question::Blocks { disk, blocks } => {
                let disk = self.open(disk)?;
                let mut plain = Vec::new();
                for block in blocks {
                    disk.read(block, &mut plain).map_err(failed)?;
                }
                let mut packed = Vec::new();
                frame::compress(&plain, &mut packed);
                Answer::Blocks(packed)
            }
            Question::Ping { .. } => Answer::Pong,
            Question::Tree { .. } => {
                return Err((Kind::Invalid, "there are no files here".to_owned()));
            }
        })
    }
}

impl Session {
    pub fn new(keys: ChunkKeys, disks: Arc<dyn Disks>) -> Self {
        Self {
            keys,
            disks,
            open: Mutex::default(),
        }
    }

    fn open(&self, disk: ResourceId) -> Result<Arc<Opened>, (Kind, String)> {
        let open = || self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(opened) = open().get(&disk) {
            return Ok(opened.clone());
        }
        let opened = Arc::new(Opened {
            reader: self.disks.open(disk)?,
            changes: Mutex::default(),
        });
        open().insert(disk, opened.clone());
        Ok(opened)
    }
}

impl Opened {
    fn changes(&self, point: Point) -> Changes {
        let mut last = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((of, changes)) if *of == point => changes.clone(),
            _ => {
                let changes = self.reader.changes_since(&point).map(Arc::new);
                last.insert((point, changes)).1.clone()
            }
        }
    }

    /// Appends a block's bytes; none of one behind the disk's end.
    fn read(&self, block: u64, plain: &mut Vec<u8>) -> Result<(), DiskError> {
        let size_bytes = self.reader.size_bytes();
        let start = block.saturating_mul(BLOCK_BYTES).min(size_bytes);
        let length = BLOCK_BYTES.min(size_bytes - start);
        let from = plain.len();
        plain.resize(from + usize::try_from(length).expect("a block is small"), 0);
        self.reader.read_at(start, &mut plain[from..])
    }
}

/// The runs from a byte on, neighbours of the same sort together.
fn extents(reader: &dyn DiskReader, offset: u64) -> Result<Vec<(u64, bool)>, DiskError> {
    let mut extents: Vec<(u64, bool)> = Vec::new();
    let (mut at, size_bytes) = (offset, reader.size_bytes());
    for _ in 0..RUNS_LOOKED_AT {
        if at >= size_bytes {
            break;
        }
        let run = reader.extent_at(at)?;
        let is_full = extents.len() == EXTENTS_MAX;
        match extents.last_mut() {
            Some((length, data)) if *data == run.data => *length += run.length,
            _ if is_full => break,
            _ => extents.push((run.length, run.data)),
        }
        at = run.end();
    }
    Ok(extents)
}

/// As many of the ranges as fit an answer, from those on that end behind a byte.
fn page(changes: &[Range<u64>], from: u64) -> Answer {
    let first = changes.partition_point(|range| range.end <= from);
    let rest = &changes[first..];
    let ranges = rest[..rest.len().min(CHANGES_MAX)].to_vec();
    Answer::Changes {
        more: ranges.len() < rest.len(),
        ranges,
    }
}
