//! Writing past the page cache, for restores: a disk that is written once and
//! read by others pushes out of the cache what they need, and its dirty pages
//! hold up the flush at the end. What the device does not take that way goes
//! through the cache.
//!
//! Source: open(2), `O_DIRECT`: memory, offset and length are multiples of the
//! device's block; on Linux no device that can be had asks for more than a page.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FallocateFlags, OFlags};

/// What memory, offset and length are multiples of.
const ALIGNMENT: usize = 4096;
/// Bytes that are written at a time.
const WRITE_BYTES: usize = 1 << 20;
/// Shorter ones go through the cache, which puts neighbours together.
const WRITE_BYTES_MIN: usize = 16 << 10;
/// Buffers that are kept for the next writes: as many as there are writers, mostly.
const BUFFERS_KEPT: usize = 4;

/// The same file once more, written to directly.
#[derive(Debug)]
pub(crate) struct DirectFile {
    file: File,
    refused: AtomicBool,
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl DirectFile {
    /// Nothing where the file system has no direct writes.
    pub(crate) fn of(file: &File) -> Option<Self> {
        // Not by its path: that may be another file by now.
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        let opened = File::options().write(true).custom_flags(flags).open(same);
        Some(Self {
            file: opened.ok()?,
            refused: AtomicBool::new(false),
            buffers: Mutex::default(),
        })
    }

    /// Writes the whole pages of `data` directly. Returns which part of `data` that was;
    /// the rest is the caller's to write.
    pub(crate) fn write_at(&self, data: &[u8], offset: u64) -> io::Result<Range<usize>> {
        let before = (offset.next_multiple_of(ALIGNMENT as u64) - offset) as usize;
        let whole = data.len().saturating_sub(before) / ALIGNMENT * ALIGNMENT;
        if whole < WRITE_BYTES_MIN || self.refused.load(Ordering::Relaxed) {
            return Ok(0..0);
        }
        // Writes into holes wait for each other, writes into what is allocated do not. Where
        // it cannot be, the writes tell.
        let place = (offset + before as u64, whole as u64);
        let _ = rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, place.0, place.1);
        let mut buffer = self.take_buffer();
        let memory = buffer.as_ptr().align_offset(ALIGNMENT);
        let mut at = before;
        let mut written = Ok(());
        while written.is_ok() && at < before + whole {
            let length = WRITE_BYTES.min(before + whole - at);
            let aligned = &mut buffer[memory..memory + length];
            aligned.copy_from_slice(&data[at..at + length]);
            written = self.file.write_all_at(aligned, offset + at as u64);
            at += length;
        }
        self.keep_buffer(buffer);
        match written {
            Ok(()) => Ok(before..before + whole),
            // It takes other multiples, or none at all: what was written is written again.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.refused.store(true, Ordering::Relaxed);
                Ok(0..0)
            }
            Err(error) => Err(error),
        }
    }

    fn take_buffer(&self) -> Vec<u8> {
        let kept = self.buffers.lock().ok().and_then(|mut kept| kept.pop());
        kept.unwrap_or_else(|| vec![0; WRITE_BYTES + ALIGNMENT])
    }

    fn keep_buffer(&self, buffer: Vec<u8>) {
        if let Ok(mut kept) = self.buffers.lock()
            && kept.len() < BUFFERS_KEPT
        {
            kept.push(buffer);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn whole_pages_are_written_directly_and_the_rest_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let file = File::create_new(&path).unwrap();
        file.set_len(8 << 20).unwrap();
        let Some(direct) = DirectFile::of(&file) else {
            return;
        };
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        assert_eq!(direct.write_at(&bytes[..5000], 4096).unwrap(), 0..0);
        let done = direct.write_at(&bytes, 10_000).unwrap();
        // From byte 12288 of the file up to the last whole page.
        assert_eq!(done, 2288..2_996_464);
        let mut found = Vec::new();
        File::open(path).unwrap().read_to_end(&mut found).unwrap();
        assert!(found[..12_288].iter().all(|byte| *byte == 0));
        assert!(found[12_288..][..done.len()] == bytes[done.clone()]);
        assert!(found[10_000 + done.end..].iter().all(|byte| *byte == 0));
    }
}
