//! A file's bytes piece by piece, as the project stores them: whoever reads a file,
//! here or at the other end of a line, comes to the same pieces.

use std::io;

use cairn_types::tree::FileReader;

use crate::filetree::PIECE_BYTES_MAX;
use crate::filetree::cut::Cutter;

/// Bytes of a large file that are read at a time; two pieces at least.
const READ_BYTES: usize = 2 << 20;

/// Goes through a file. One of up to `PIECE_BYTES_MAX` is one piece; in a larger one holes
/// are left out, and each run of data is cut.
pub struct PieceReader<'r> {
    file: &'r dyn FileReader,
    cutter: &'r Cutter,
    buffer: &'r mut Vec<u8>,
    size: u64,
    /// Where the next piece starts.
    at: u64,
    /// Where the run of data ends that it lies in.
    run_end: u64,
    /// Bytes in the buffer that are in no piece yet: where they start, and how many.
    held: (usize, usize),
    /// The file ended before its size: it was cut short meanwhile.
    short: bool,
}

/// A piece of a file.
#[derive(Debug, PartialEq, Eq)]
pub enum PieceRead<'b> {
    /// A hole of so many bytes.
    Hole(u64),
    /// Bytes, which may be zeros too.
    Data(&'b [u8]),
}

impl<'r> PieceReader<'r> {
    /// Starts at a byte that a piece starts at. `buffer` is memory to be used again.
    pub fn new(
        (file, size): (&'r dyn FileReader, u64),
        from: u64,
        cutter: &'r Cutter,
        buffer: &'r mut Vec<u8>,
    ) -> Self {
        Self {
            file,
            cutter,
            buffer,
            size,
            at: from,
            run_end: from,
            held: (0, 0),
            short: false,
        }
    }

    /// Where the next piece starts.
    pub fn offset(&self) -> u64 {
        self.at
    }

    /// The next piece; nothing behind the last. A file that was cut short ends where it ends now.
    pub fn next_piece(&mut self) -> io::Result<Option<PieceRead<'_>>> {
        if self.size <= PIECE_BYTES_MAX as u64 {
            return self.whole();
        }
        loop {
            let (start, held) = self.held;
            if held == 0 && self.at == self.run_end {
                if self.at >= self.size {
                    return Ok(None);
                }
                let data = self.file.data_from(self.at)?;
                let data = data.unwrap_or(self.size..self.size);
                let hole = data.start.clamp(self.at, self.size) - self.at;
                self.run_end = data.end.clamp(self.at + hole, self.size);
                if hole > 0 {
                    self.at += hole;
                    return Ok(Some(PieceRead::Hole(hole)));
                }
                continue;
            }
            let all_held = self.short || self.at + held as u64 == self.run_end;
            if held < PIECE_BYTES_MAX && !all_held {
                self.fill()?;
                continue;
            }
            if held == 0 {
                return Ok(None);
            }
            let bytes = &self.buffer[start..start + held];
            let length = self.cutter.first(bytes);
            self.held = (start + length, held - length);
            self.at += length as u64;
            return Ok(Some(PieceRead::Data(&self.buffer[start..start + length])));
        }
    }

    /// Reads on behind what is held.
    fn fill(&mut self) -> io::Result<()> {
        let (start, held) = self.held;
        self.buffer.resize(READ_BYTES.max(self.buffer.len()), 0);
        self.buffer.copy_within(start..start + held, 0);
        let next = self.at + held as u64;
        let wanted = (self.run_end - next).min((READ_BYTES - held) as u64) as usize;
        let length = self
            .file
            .read_at(next, &mut self.buffer[held..held + wanted])?;
        self.short = length < wanted;
        self.held = (0, held + length);
        Ok(())
    }

    /// A file that is one piece, or none.
    fn whole(&mut self) -> io::Result<Option<PieceRead<'_>>> {
        if self.at > 0 {
            return Ok(None);
        }
        // One byte more tells whether the file has grown.
        let size = self.size as usize;
        self.buffer.resize((size + 1).max(self.buffer.len()), 0);
        let read = self.file.read_at(0, &mut self.buffer[..=size])?;
        let length = read.min(PIECE_BYTES_MAX);
        self.at = length as u64;
        Ok((length > 0).then(|| PieceRead::Data(&self.buffer[..length])))
    }
}
