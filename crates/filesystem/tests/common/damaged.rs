//! Disks with a few bytes changed, and looking at all that is found on them.

use std::collections::BTreeMap;
use std::sync::Arc;

use cairn_filesystem::{Entry, Error, FileSystem};
use cairn_types::disk::{DiskError, DiskReader, Extent};
use cairn_types::tree::EntryKind;

use super::{ChangedDisk, MemoryDisk, Numbers, PAGE};

/// Bytes that looking at one disk may read: that of all files and directories several times over.
pub const READ_MAX: u64 = 256 << 20;
/// Entries that one disk may be found to have; it has some 500.
const ENTRIES_MAX: usize = 20_000;

/// Reads the disk that is changed, which lives as long as the test.
pub struct Shared(pub ChangedDisk<'static>);

impl DiskReader for Shared {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        self.0.extent_at(offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.0.read_at(offset, buffer)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Changes up to 16 places: a bit, a byte, a number, or bytes from elsewhere on the disk.
pub fn change(disk: &'static MemoryDisk, numbers: &mut Numbers) -> ChangedDisk<'static> {
    let pages = disk.page_numbers();
    let mut changed = ChangedDisk::new(disk);
    for _ in 0..1 + numbers.below(16) {
        let place = |numbers: &mut Numbers| {
            // The beginning of a disk says most.
            let end = if numbers.one_in(3) {
                pages.len().min(8)
            } else {
                pages.len()
            };
            pages[numbers.below(end as u64) as usize] * PAGE as u64 + numbers.below(PAGE as u64)
        };
        let at = place(numbers);
        let byte = |at: u64| {
            disk.pages
                .get(&(at / PAGE as u64))
                .map_or(0, |page| page[at as usize % PAGE])
        };
        match numbers.below(5) {
            0 => changed.change(at, byte(at) ^ 1 << numbers.below(8)),
            1 => changed.change(at, numbers.next() as u8),
            2 => {
                let number = *numbers.one_of(&[0, 1, 0x7f, 0x80, 0xff]);
                for offset in 0..*numbers.one_of(&[1, 2, 4, 8]) {
                    changed.change((at + offset).min(disk.size_bytes - 1), number);
                }
            }
            3 => changed.change(at, byte(at).wrapping_add(*numbers.one_of(&[1, 255]))),
            _ => {
                let from = place(numbers) & !3;
                for offset in 0..*numbers.one_of(&[4, 8, 16, 64]) {
                    changed.change(
                        ((at & !3) + offset).min(disk.size_bytes - 1),
                        byte(from + offset),
                    );
                }
            }
        }
    }
    changed
}

/// What was found at a path: what it is, and its target if it is a link.
pub type Seen = BTreeMap<Vec<u8>, (Entry, Vec<u8>)>;

/// Looks at everything, and at parts of all files.
pub fn look(file_system: &FileSystem, numbers: &mut Numbers) -> Seen {
    let mut seen = Seen::new();
    let mut buffer = vec![0; 10_000];
    for (index, (path, entry)) in file_system.walk(b"/").unwrap().enumerate() {
        assert!(index < ENTRIES_MAX, "too many entries");
        let Ok(entry) = entry else { continue };
        let mut target = Vec::new();
        match entry.metadata.kind {
            EntryKind::File => {
                if let Ok(file) = file_system.file(&path) {
                    assert!(file.size_bytes() == entry.metadata.size_bytes);
                    let _ = file.read_at(0, &mut buffer);
                    let _ = file.read_at(numbers.next() % (file.size_bytes() + 1), &mut buffer);
                    let mut offset = 0;
                    for _ in 0..100 {
                        let Ok(extent) = file.extent_at(offset) else {
                            break;
                        };
                        assert!(extent.length > 0);
                        offset = extent.end();
                    }
                }
            }
            EntryKind::Symlink => {
                let Ok(read) = file_system.read_link(&path) else {
                    continue;
                };
                target = read;
                let _ = file_system.resolve(&path);
            }
            EntryKind::Directory if numbers.one_in(4) => {
                let _ = file_system.list(&path, None, 5);
            }
            _ => {}
        }
        seen.insert(path, (entry, target));
    }
    seen
}

pub fn open(disk: ChangedDisk<'static>) -> (Arc<Shared>, Result<FileSystem, Error>) {
    let disk = Arc::new(Shared(disk));
    let reader: Arc<dyn DiskReader> = disk.clone();
    let size_bytes = reader.size_bytes();
    (disk, FileSystem::open(reader, 0..size_bytes))
}
