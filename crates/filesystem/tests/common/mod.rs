//! What the tests of this crate share: disks in files and in memory, numbers from a seed, and
//! programs that make file systems.

#![allow(dead_code, reason = "not every test uses all of it")]

pub mod damaged;
pub mod made;

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::TempDir;

use cairn_filesystem::FileSystem;
use cairn_types::disk::{DiskError, DiskOperation, DiskReader, Extent};

/// A disk in a file.
pub struct RawDisk {
    file: File,
    size_bytes: u64,
}

impl RawDisk {
    pub fn open(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let size_bytes = file.metadata().unwrap().len();
        Self { file, size_bytes }
    }
}

impl DiskReader for RawDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        Ok(all_data(offset, self.size_bytes))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file
            .read_exact_at(buffer, offset)
            .map_err(|source| failed(offset, buffer.len(), source))
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

fn all_data(offset: u64, size_bytes: u64) -> Extent {
    Extent {
        offset,
        length: size_bytes - offset,
        data: true,
    }
}

fn failed(offset: u64, length: usize, source: io::Error) -> DiskError {
    DiskError {
        disk: "test".to_owned(),
        operation: DiskOperation::Read,
        offset,
        length: length as u64,
        source,
    }
}

pub const PAGE: usize = 4096;

/// A disk in memory, of which only the pages that are not zeros are kept. It counts what is read.
#[derive(Clone)]
pub struct MemoryDisk {
    pub pages: HashMap<u64, Box<[u8; PAGE]>>,
    pub size_bytes: u64,
}

impl MemoryDisk {
    pub fn load(path: &Path) -> Self {
        let file = File::open(path).unwrap();
        let size_bytes = file.metadata().unwrap().len();
        let mut pages = HashMap::new();
        let mut block = vec![0; 1 << 20];
        let mut offset = 0;
        while offset < size_bytes {
            let length = block.len().min((size_bytes - offset) as usize);
            block[length..].fill(0);
            file.read_exact_at(&mut block[..length], offset).unwrap();
            for (index, page) in block.chunks(PAGE).enumerate() {
                if page.iter().any(|byte| *byte != 0) {
                    let page: Box<[u8; PAGE]> = Box::new(page.try_into().unwrap());
                    pages.insert(offset / PAGE as u64 + index as u64, page);
                }
            }
            offset += length as u64;
        }
        Self { pages, size_bytes }
    }

    /// The numbers of the pages that are not zeros, in order.
    pub fn page_numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.pages.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }
}

/// The same disk with some bytes changed.
pub struct ChangedDisk<'a> {
    pub disk: &'a MemoryDisk,
    pub changes: HashMap<u64, Box<[u8; PAGE]>>,
    pub read_bytes: AtomicU64,
}

impl<'a> ChangedDisk<'a> {
    pub fn new(disk: &'a MemoryDisk) -> Self {
        Self {
            disk,
            changes: HashMap::new(),
            read_bytes: AtomicU64::new(0),
        }
    }

    pub fn change(&mut self, offset: u64, byte: u8) {
        let number = offset / PAGE as u64;
        let before = self.disk.pages.get(&number);
        let page = self
            .changes
            .entry(number)
            .or_insert_with(|| before.cloned().unwrap_or_else(|| Box::new([0; PAGE])));
        page[offset as usize % PAGE] = byte;
    }
}

impl ChangedDisk<'_> {
    /// Takes back what was changed of some bytes of the first page.
    pub fn restore(&mut self, range: Range<usize>) {
        if let Some(page) = self.changes.get_mut(&0) {
            let before = &self.disk.pages[&0];
            page[range.clone()].copy_from_slice(&before[range]);
        }
    }
}

impl DiskReader for ChangedDisk<'_> {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        Ok(all_data(offset, self.disk.size_bytes))
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let end = offset.checked_add(buffer.len() as u64);
        if end.is_none_or(|end| end > self.disk.size_bytes) {
            return Err(failed(
                offset,
                buffer.len(),
                io::ErrorKind::UnexpectedEof.into(),
            ));
        }
        self.read_bytes
            .fetch_add(buffer.len() as u64, Ordering::Relaxed);
        let mut done = 0;
        while done < buffer.len() {
            let at = offset + done as u64;
            let (number, within) = (at / PAGE as u64, at as usize % PAGE);
            let length = (buffer.len() - done).min(PAGE - within);
            let part = &mut buffer[done..done + length];
            match self.changes.get(&number).or(self.disk.pages.get(&number)) {
                Some(page) => part.copy_from_slice(&page[within..within + length]),
                None => part.fill(0),
            }
            done += length;
        }
        Ok(())
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Numbers that follow from a seed (splitmix64).
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        number ^ number >> 31
    }

    /// One of 0 to `end` without that.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    pub fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }

    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}

/// A new seed for each run, or that of `CAIRN_SEED`, printed so that a failure can be had again.
pub fn seed() -> u64 {
    let seed = match std::env::var("CAIRN_SEED") {
        Ok(seed) => seed.parse().expect("CAIRN_SEED is a number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    println!("CAIRN_SEED={seed}");
    seed
}

/// Runs a program that has to succeed; says what it wrote.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; scripts/setup.sh test installs it"));
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Opens the file system in a file.
pub fn open(file: &Path) -> FileSystem {
    let disk = RawDisk::open(file);
    let range = 0..disk.size_bytes();
    FileSystem::open(Arc::new(disk), range).unwrap()
}

/// An empty file of a length.
pub fn create(path: &Path, size_bytes: u64) {
    File::create(path).unwrap().set_len(size_bytes).unwrap();
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder for images: in memory where there is room, since they are flushed all the time.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let room = rustix::fs::statvfs(memory).map_or(0, |found| found.f_bavail * found.f_frsize);
    let found = (room > 2 << 30).then(|| TempDir::new_in(memory));
    found
        .and_then(Result::ok)
        .unwrap_or_else(|| TempDir::new().unwrap())
}
