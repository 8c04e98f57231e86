//! Storing the files of a directory that is at the other end of a line. Of many files at a
//! time it is told of what pieces they are; only the bytes of pieces that are stored
//! nowhere come over, and what they are is decided by them alone: a piece that is not what
//! it was said to be is stored as what it is, and its file has changed meanwhile.

use std::collections::{HashMap, HashSet};
use std::io;

use cairn_types::tree::{
    DistantDirectory, DistantFile, EntryKind, FileRange, Metadata, RANGES_BYTES_MAX, RANGES_MAX,
    Xattr,
};

use crate::chunk::{ChunkId, ChunkKey};
use crate::error::Result;
use crate::filetree::PIECE_BYTES_MAX;
use crate::filetree::content::{READINGS, add_piece, data_bytes};
use crate::filetree::directory::Directory;
use crate::filetree::entry::{Piece, Record};
use crate::filetree::store::Worker;
use crate::filetree::summary::ProblemKind;
use crate::known::Standing;

/// Pieces of a file at most: those of some 8 TiB.
const PIECES_OF_A_FILE_MAX: usize = 1 << 26;

/// What is stored of a file, with how much data it has; nothing if it cannot be saved.
type Stored = Option<(Record, u64)>;

/// A file as far as it has been read.
struct Reading {
    metadata: Metadata,
    xattrs: io::Result<Vec<Xattr>>,
    /// With the byte that each starts at.
    pieces: Vec<(u64, Piece)>,
    /// How far its pieces reach.
    end: u64,
    ended: bool,
    /// Whether it stayed the same, as far as is known.
    stable: bool,
    /// Why it cannot be read any further.
    failed: Option<io::Error>,
}

impl Reading {
    fn new(told: DistantFile, from: u64) -> Self {
        let mut reading = Self {
            metadata: told.metadata,
            xattrs: told.xattrs,
            pieces: Vec::with_capacity(told.pieces.len()),
            end: from,
            ended: told.ended || told.pieces.is_empty(),
            stable: told.stable,
            failed: None,
        };
        for piece in told.pieces {
            let id = ChunkId(piece.id);
            let piece = Piece {
                id,
                bytes: piece.bytes,
            };
            let possible = piece.bytes > 0
                && (id.is_zero() || piece.bytes <= PIECE_BYTES_MAX as u64)
                && piece.bytes <= i64::MAX as u64 - reading.end;
            if !possible {
                reading.fail("its pieces cannot be those of a file");
                break;
            }
            reading.pieces.push((reading.end, piece));
            reading.end += piece.bytes;
        }
        if told.metadata.kind != EntryKind::File {
            reading.fail("it is no file any more");
        }
        reading
    }

    fn fail(&mut self, reason: &'static str) {
        self.failed.get_or_insert(io::Error::other(reason));
    }

    /// Goes on with what follows.
    fn add(&mut self, next: Self) {
        self.stable &= next.stable && next.metadata == self.metadata;
        self.pieces.extend(next.pieces);
        self.xattrs = next.xattrs;
        (self.end, self.ended) = (next.end, next.ended);
        self.failed = self.failed.take().or(next.failed);
        if self.pieces.len() > PIECES_OF_A_FILE_MAX {
            self.fail("it has too many pieces");
        }
    }
}

/// A piece whose bytes may have to come: of which file, and which of its pieces.
#[derive(Clone, Copy)]
struct Wanted {
    file: usize,
    piece: usize,
    key: ChunkKey,
}

impl Worker<'_> {
    /// Stores files of a directory by their numbers among its names; each is read once more
    /// if it changes meanwhile.
    pub fn store_distant(
        &mut self,
        directory: &Directory,
        distant: &dyn DistantDirectory,
        mut files: Vec<usize>,
    ) -> Result<HashMap<usize, Stored>> {
        let mut stored = HashMap::with_capacity(files.len());
        for reading in 1..=READINGS {
            let names: Vec<&[u8]> = files
                .iter()
                .map(|file| directory.names.get(*file))
                .collect();
            let mut again = Vec::new();
            for (file, read) in files.iter().zip(self.read_files(distant, &names)?) {
                let read = read.and_then(|mut read| match read.failed.take() {
                    Some(error) => Err(error),
                    None => Ok(read),
                });
                let path = || directory.path_of(directory.names.get(*file));
                match read {
                    Ok(read) if !read.stable && reading < READINGS => again.push(*file),
                    Ok(read) => {
                        if !read.stable {
                            let reason = format!("it changed during each of {READINGS} readings");
                            self.session.note(path(), ProblemKind::Changed, reason);
                        }
                        stored.insert(*file, Some(self.keep(path, read)?));
                    }
                    Err(error) => {
                        self.session.note_failed(path(), error)?;
                        stored.insert(*file, None);
                    }
                }
            }
            files = again;
            if files.is_empty() {
                break;
            }
        }
        Ok(stored)
    }

    /// What is kept of a file that has been read.
    fn keep(&mut self, path: impl Fn() -> Vec<u8>, read: Reading) -> Result<(Record, u64)> {
        let xattrs = self.checked_xattrs(path, read.xattrs)?;
        let mut pieces = Vec::with_capacity(read.pieces.len());
        for (_, piece) in read.pieces {
            add_piece(&mut pieces, piece.id, piece.bytes);
        }
        let data = data_bytes(&pieces);
        let metadata = Metadata {
            size_bytes: pieces.iter().map(|piece| piece.bytes).sum(),
            ..read.metadata
        };
        let record = Record {
            metadata,
            xattrs,
            held: self.hold(pieces)?,
        };
        Ok((record, data))
    }

    /// Reads files, and stores what is new of them.
    fn read_files(
        &mut self,
        distant: &dyn DistantDirectory,
        names: &[&[u8]],
    ) -> Result<Vec<io::Result<Reading>>> {
        let told = match distant.files(names) {
            Ok(told) => told,
            Err(error) => return self.all_failed(error, names.len()),
        };
        let mut readings: Vec<io::Result<Reading>> = told
            .into_iter()
            .map(|file| Ok(Reading::new(file?, 0)))
            .collect();
        let (mut there, mut their_names) = (Vec::new(), Vec::new());
        for (reading, name) in readings.iter_mut().zip(names) {
            if let Ok(reading) = reading {
                there.push(reading);
                their_names.push(*name);
            }
        }
        self.fetch(distant, &their_names, &mut there)?;
        for (reading, name) in there.into_iter().zip(their_names) {
            while !reading.ended && reading.failed.is_none() {
                self.session.stop.check()?;
                match distant.more_pieces(name, reading.end) {
                    Ok(told) => {
                        let mut next = Reading::new(told, reading.end);
                        self.fetch(distant, &[name], &mut [&mut next])?;
                        reading.add(next);
                    }
                    Err(error) => reading.failed = Some(error),
                }
            }
            reading.stable &= reading.end == reading.metadata.size_bytes;
        }
        Ok(readings)
    }

    /// Every file of a directory fails by what the directory failed by.
    fn all_failed(&self, error: io::Error, count: usize) -> Result<Vec<io::Result<Reading>>> {
        let again = (error.kind(), error.to_string());
        let mut all = vec![Err(error)];
        all.resize_with(count, || Err(io::Error::new(again.0, again.1.clone())));
        Ok(all)
    }

    /// Has the bytes of unknown pieces come over, and stores them.
    fn fetch(
        &mut self,
        distant: &dyn DistantDirectory,
        names: &[&[u8]],
        files: &mut [&mut Reading],
    ) -> Result<()> {
        let mut open = Vec::new();
        for (file, reading) in files.iter().enumerate() {
            for (piece, (_, of)) in reading.pieces.iter().enumerate() {
                let key = of.id.key();
                if !of.id.is_zero() {
                    open.push(Wanted { file, piece, key });
                }
            }
        }
        loop {
            open.retain(|wanted| files[wanted.file].failed.is_none());
            let (mut wanted, later) = self.unknown(open)?;
            if wanted.is_empty() {
                return Ok(());
            }
            while !wanted.is_empty() {
                self.session.stop.check()?;
                let batch = wanted.split_off(wanted.len() - fitting(files, &wanted));
                self.fetch_batch(distant, names, files, &batch)?;
            }
            // What was to come once for several may have come as something else.
            open = later;
        }
    }

    /// The pieces that are stored nowhere, and those that are the same as one of these.
    fn unknown(&self, open: Vec<Wanted>) -> Result<(Vec<Wanted>, Vec<Wanted>)> {
        let keys: Vec<ChunkKey> = open.iter().map(|wanted| wanted.key).collect();
        let session = self.session.packer.session();
        let standings = self.session.known.look(session, &keys)?;
        let (mut wanted, mut later, mut coming) = (Vec::new(), Vec::new(), HashSet::new());
        for (piece, standing) in open.into_iter().zip(standings) {
            match standing {
                Some(Standing::Settled) => {}
                Some(Standing::Elsewhere) if self.session.defer(piece.key) => {}
                _ if coming.insert(piece.key) => wanted.push(piece),
                _ => later.push(piece),
            }
        }
        // They are taken from the end.
        wanted.reverse();
        Ok((wanted, later))
    }

    fn fetch_batch(
        &mut self,
        distant: &dyn DistantDirectory,
        names: &[&[u8]],
        files: &mut [&mut Reading],
        batch: &[Wanted],
    ) -> Result<()> {
        let batch: Vec<&Wanted> = batch.iter().rev().collect();
        let range = |wanted: &&Wanted| {
            let (offset, piece) = files[wanted.file].pieces[wanted.piece];
            FileRange {
                name: names[wanted.file],
                offset,
                bytes: piece.bytes,
            }
        };
        let ranges: Vec<FileRange<'_>> = batch.iter().map(range).collect();
        let read = match distant.read(&ranges) {
            Ok(read) => read,
            Err(error) => {
                let again = (error.kind(), error.to_string());
                let mut first = Some(error);
                for wanted in batch {
                    let error = || io::Error::new(again.0, again.1.clone());
                    let error = first.take().unwrap_or_else(error);
                    files[wanted.file].failed.get_or_insert(error);
                }
                return Ok(());
            }
        };
        for (wanted, plain) in batch.into_iter().zip(read) {
            let file = &mut files[wanted.file];
            match plain {
                Ok(plain) => {
                    let told = &mut file.pieces[wanted.piece].1;
                    let piece = self.store_piece(&plain)?;
                    file.stable &= piece == *told;
                    *told = piece;
                }
                Err(error) => {
                    file.failed.get_or_insert(error);
                }
            }
        }
        Ok(())
    }
}

/// How many of the last pieces may be asked for at a time.
fn fitting(files: &[&mut Reading], wanted: &[Wanted]) -> usize {
    let (mut count, mut bytes) = (0, 0);
    for wanted in wanted.iter().rev().take(RANGES_MAX) {
        bytes += files[wanted.file].pieces[wanted.piece].1.bytes;
        if bytes > RANGES_BYTES_MAX as u64 {
            break;
        }
        count += 1;
    }
    count
}
