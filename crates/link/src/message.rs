//! What is said on the line. Numbers are little-endian; a list is as long as the
//! message, and every message has a limit.

pub(crate) mod tree;
pub(crate) mod tree_answer;
pub(crate) mod write;

use std::ops::Range;

use cairn_types::disk::{BLOCKS_MAX, BlockId, IDS_MAX, Point};
use cairn_types::{Kind, ResourceId};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::handshake::Sort;
use tree::TreeQuestion;
use tree_answer::TreeAnswer;

/// The version that this end speaks.
pub(crate) const VERSION: u16 = 1;
/// Runs of a disk in one answer at most.
pub(crate) const EXTENTS_MAX: usize = 4096;
/// Changed ranges in one answer at most.
pub(crate) const CHANGES_MAX: usize = 64 << 10;
/// Bytes of a reason in words at most.
const TEXT_MAX: usize = 1024;

/// What names chunks as the end that asks does: it is told to the other end.
#[derive(Clone, PartialEq, Eq)]
pub struct ChunkKeys {
    /// The key of blocks' ids.
    pub block: Zeroizing<[u8; 32]>,
    /// What says where large files are cut. Told to agents alone: disks are not cut.
    pub cut_seed: u64,
}

/// The first record of the end that answers: it proves that it knows the secret.
pub(crate) fn hello(sort: Sort) -> Vec<u8> {
    [greeting(sort), &VERSION.to_le_bytes()[..]].concat()
}

/// Reads a hello.
pub(crate) fn read_hello(sort: Sort, bytes: &[u8]) -> Result<()> {
    let version = bytes.strip_prefix(greeting(sort));
    check_version(version.ok_or(Error::Malformed("it is no hello"))?)
}

const fn greeting(sort: Sort) -> &'static [u8] {
    match sort {
        Sort::Replica => b"cairn replica",
        Sort::Agent => b"cairn agent",
    }
}

/// The first record of the end that asks.
pub(crate) fn welcome(sort: Sort, keys: &ChunkKeys) -> Vec<u8> {
    let mut out = VERSION.to_le_bytes().to_vec();
    out.extend_from_slice(&*keys.block);
    if sort == Sort::Agent {
        out.extend_from_slice(&keys.cut_seed.to_le_bytes());
    }
    out
}

/// Reads a welcome.
pub(crate) fn read_welcome(sort: Sort, bytes: &[u8]) -> Result<ChunkKeys> {
    let mut reader = Reader(bytes);
    check_version(&reader.array::<2>()?)?;
    let block = Zeroizing::new(reader.array()?);
    let cut_seed = match sort {
        Sort::Replica => 0,
        Sort::Agent => reader.number()?,
    };
    reader.finish()?;
    Ok(ChunkKeys { block, cut_seed })
}

fn check_version(bytes: &[u8]) -> Result<()> {
    let version = bytes.try_into().map(u16::from_le_bytes);
    match version.map_err(|_| Error::Malformed("it names no version"))? {
        VERSION => Ok(()),
        found => Err(Error::Version {
            found,
            known: VERSION,
        }),
    }
}

/// What the end that is to have the replica asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// How large is a disk, and what is its state called?
    Open { disk: ResourceId },
    /// Which runs of data and zeros follow from this byte on?
    Extents { disk: ResourceId, offset: u64 },
    /// Which bytes, from this one on, may differ from an earlier state?
    Changes {
        disk: ResourceId,
        point: Point,
        from: u64,
    },
    /// What are the ids of these blocks?
    Ids { disk: ResourceId, blocks: Vec<u64> },
    /// What do these blocks hold?
    Blocks { disk: ResourceId, blocks: Vec<u64> },
    /// Something about the tree that was opened under this number.
    Tree { tree: u32, question: TreeQuestion },
    /// Are you there? And: so much is done of so much.
    Ping { done: u64, total: u64 },
}

/// What the other end answers; to each question there is one, in the questions' order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Disk {
        size_bytes: u64,
        point: Option<Point>,
    },
    /// Lengths, one behind the other, and whether each is data.
    Extents(Vec<(u64, bool)>),
    /// Ranges in order; maybe there are more behind the last.
    Changes {
        ranges: Vec<Range<u64>>,
        more: bool,
    },
    /// Nobody knows what has changed.
    NoChangeMap(String),
    Ids(Vec<BlockId>),
    /// A frame.
    Blocks(Vec<u8>),
    Tree(TreeAnswer),
    Pong,
    /// The answer that is due takes its time; it answers nothing.
    Busy,
    Failed {
        kind: Kind,
        text: String,
    },
}

const OPEN: u8 = 1;
const EXTENTS: u8 = 2;
const CHANGES: u8 = 3;
const IDS: u8 = 4;
const BLOCKS: u8 = 5;
const PING: u8 = 6;
const NO_CHANGE_MAP: u8 = 7;
const FAILED: u8 = 8;
const BUSY: u8 = 9;
const TREE: u8 = 10;

impl Question {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Open { disk } => put_disk(&mut out, OPEN, *disk),
            Self::Extents { disk, offset } => {
                put_disk(&mut out, EXTENTS, *disk);
                out.extend_from_slice(&offset.to_le_bytes());
            }
            Self::Changes { disk, point, from } => {
                put_disk(&mut out, CHANGES, *disk);
                out.extend_from_slice(&from.to_le_bytes());
                out.extend_from_slice(point.as_str().as_bytes());
            }
            Self::Ids { disk, blocks } => {
                put_disk(&mut out, IDS, *disk);
                put_numbers(&mut out, blocks.iter().copied());
            }
            Self::Blocks { disk, blocks } => {
                put_disk(&mut out, BLOCKS, *disk);
                put_numbers(&mut out, blocks.iter().copied());
            }
            Self::Tree { tree, question } => {
                out.push(TREE);
                out.extend_from_slice(&tree.to_le_bytes());
                question.encode(&mut out);
            }
            Self::Ping { done, total } => {
                out.push(PING);
                put_numbers(&mut out, [*done, *total].into_iter());
            }
        }
        out
    }

    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader(bytes);
        let sort = reader.array::<1>()?[0];
        if sort == PING {
            let (done, total) = (reader.number()?, reader.number()?);
            reader.finish()?;
            return Ok(Self::Ping { done, total });
        }
        if sort == TREE {
            let tree = u32::from_le_bytes(reader.array()?);
            let question = TreeQuestion::decode(&mut reader)?;
            reader.finish()?;
            return Ok(Self::Tree { tree, question });
        }
        let disk = ResourceId::from_uuid(Uuid::from_bytes(reader.array()?));
        let question = match sort {
            OPEN => Self::Open { disk },
            EXTENTS => Self::Extents {
                disk,
                offset: reader.number()?,
            },
            CHANGES => Self::Changes {
                disk,
                from: reader.number()?,
                point: point(reader.rest())?,
            },
            IDS => Self::Ids {
                disk,
                blocks: reader.numbers(IDS_MAX)?,
            },
            BLOCKS => Self::Blocks {
                disk,
                blocks: reader.numbers(BLOCKS_MAX)?,
            },
            _ => return Err(Error::Malformed("a question is of an unknown sort")),
        };
        reader.finish()?;
        Ok(question)
    }
}

impl Answer {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        match self {
            Self::Disk { size_bytes, point } => {
                out.push(OPEN);
                out.extend_from_slice(&size_bytes.to_le_bytes());
                let point = point.as_ref().map_or("", Point::as_str);
                out.extend_from_slice(point.as_bytes());
            }
            Self::Extents(extents) => {
                out.push(EXTENTS);
                let number = |(length, data): &(u64, bool)| length << 1 | u64::from(*data);
                put_numbers(&mut out, extents.iter().map(number));
            }
            Self::Changes { ranges, more } => {
                out.push(CHANGES);
                out.push(u8::from(*more));
                put_numbers(
                    &mut out,
                    ranges.iter().flat_map(|range| [range.start, range.end]),
                );
            }
            Self::NoChangeMap(why) => {
                out.push(NO_CHANGE_MAP);
                out.extend_from_slice(cut(why).as_bytes());
            }
            Self::Ids(ids) => {
                out.push(IDS);
                out.extend_from_slice(ids.as_flattened());
            }
            Self::Blocks(frame) => {
                out.push(BLOCKS);
                out.extend_from_slice(frame);
            }
            Self::Tree(answer) => {
                out.push(TREE);
                answer.encode(&mut out);
            }
            Self::Pong => out.push(PING),
            Self::Busy => out.push(BUSY),
            Self::Failed { kind, text } => {
                out.extend_from_slice(&[FAILED, number_of(*kind)]);
                out.extend_from_slice(cut(text).as_bytes());
            }
        }
        out
    }

    pub fn decode(mut bytes: Vec<u8>) -> Result<Self> {
        let mut reader = Reader(&bytes);
        let sort = reader.array::<1>()?[0];
        let answer = match sort {
            OPEN => Self::Disk {
                size_bytes: reader.number()?,
                point: match reader.rest() {
                    [] => None,
                    name => Some(point(name)?),
                },
            },
            EXTENTS => {
                let extents = reader.numbers(EXTENTS_MAX)?.into_iter();
                Self::Extents(
                    extents
                        .map(|number| (number >> 1, number & 1 == 1))
                        .collect(),
                )
            }
            CHANGES => {
                let more = reader.array::<1>()?[0] == 1;
                let numbers = reader.numbers(2 * CHANGES_MAX)?;
                let (pairs, []) = numbers.as_chunks::<2>() else {
                    return Err(Error::Malformed("a range has no end"));
                };
                let ranges = pairs.iter().map(|[start, end]| *start..*end).collect();
                Self::Changes { ranges, more }
            }
            NO_CHANGE_MAP => Self::NoChangeMap(text(reader.rest())),
            IDS => {
                let (ids, []) = reader.rest().as_chunks::<32>() else {
                    return Err(Error::Malformed("an id is cut short"));
                };
                Self::Ids(ids.to_vec())
            }
            BLOCKS => {
                bytes.remove(0);
                return Ok(Self::Blocks(bytes));
            }
            TREE => Self::Tree(TreeAnswer::decode(&mut reader)?),
            PING => Self::Pong,
            BUSY => Self::Busy,
            FAILED => Self::Failed {
                kind: kind_of(reader.array::<1>()?[0]),
                text: text(reader.rest()),
            },
            _ => return Err(Error::Malformed("an answer is of an unknown sort")),
        };
        reader.finish()?;
        Ok(answer)
    }
}

fn put_disk(out: &mut Vec<u8>, sort: u8, disk: ResourceId) {
    out.push(sort);
    out.extend_from_slice(disk.as_bytes());
}

fn put_numbers(out: &mut Vec<u8>, numbers: impl Iterator<Item = u64>) {
    out.extend(numbers.flat_map(u64::to_le_bytes));
}

fn point(name: &[u8]) -> Result<Point> {
    let name = std::str::from_utf8(name).ok().and_then(Point::new);
    name.ok_or(Error::Malformed("it names no point in time"))
}

/// A text of an acceptable length.
fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_MAX)]
}

/// The text of somebody else, without what could disturb a log.
fn text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(TEXT_MAX)]);
    text.chars().filter(|c| !c.is_control()).collect()
}

const KINDS: [Kind; 9] = [
    Kind::Bug,
    Kind::Invalid,
    Kind::Denied,
    Kind::NotFound,
    Kind::Conflict,
    Kind::Exhausted,
    Kind::Transient,
    Kind::Corrupt,
    Kind::Cancelled,
];

fn number_of(kind: Kind) -> u8 {
    let at = KINDS.iter().position(|one| *one == kind);
    at.and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
}

fn kind_of(number: u8) -> Kind {
    let kind = KINDS.get(usize::from(number)).copied();
    kind.unwrap_or(Kind::Bug)
}

/// A place in bytes that nobody vouches for.
pub(crate) struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (taken, rest) = self
            .0
            .split_first_chunk()
            .ok_or(Error::Malformed("it is cut short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn numbers(&mut self, limit: usize) -> Result<Vec<u64>> {
        let (numbers, []) = self.rest().as_chunks::<8>() else {
            return Err(Error::Malformed("a number is cut short"));
        };
        if numbers.len() > limit {
            return Err(Error::Malformed("a list is too long"));
        }
        Ok(numbers
            .iter()
            .map(|bytes| u64::from_le_bytes(*bytes))
            .collect())
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let split = self.0.split_at_checked(count);
        let (taken, rest) = split.ok_or(Error::Malformed("it is cut short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn finish(self) -> Result<()> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Error::Malformed("bytes follow its end")),
        }
    }
}

#[cfg(test)]
#[path = "message/tests.rs"]
mod tests;
