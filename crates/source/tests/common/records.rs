//! What the Linux guest of `scripts/guest_image.sh` writes on its disks all
//! the time, and the copies that backups make of it.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};

use cairn_types::disk::{DiskReader, Point};

use super::MIB;

pub const SIZE: u64 = 256 * MIB;

/// Makes a qcow2 image with an empty file system.
pub fn make_disk(image: &Path) {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(SIZE).unwrap();
    let new = file.path().to_str().unwrap();
    for command in [
        &["mkfs.ext4", "-q", "-F", new][..],
        &[
            "qemu-img",
            "convert",
            "-f",
            "raw",
            "-O",
            "qcow2",
            new,
            image.to_str().unwrap(),
        ],
    ] {
        let made = run(command[0], &command[1..]);
        assert!(made.status.success(), "{made:?}");
    }
}

pub fn run(program: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// A disk's copy, which backups bring up to date.
pub struct Copy {
    bytes: Vec<u8>,
    point: Option<Point>,
    pub read_bytes: u64,
}

impl Copy {
    pub fn new() -> Self {
        Self {
            bytes: vec![0; SIZE as usize],
            point: None,
            read_bytes: 0,
        }
    }

    pub fn update(&mut self, disk: &dyn DiskReader) {
        let changes = self
            .point
            .as_ref()
            .map(|point| disk.changes_since(point).unwrap());
        let changes = changes.unwrap_or_else(|| std::iter::once(0..SIZE).collect());
        self.read_bytes = 0;
        for range in changes {
            let place = range.start as usize..range.end.min(SIZE) as usize;
            self.read_bytes += place.len() as u64;
            disk.read_at(range.start, &mut self.bytes[place]).unwrap();
        }
        let mut all = vec![0; SIZE as usize];
        disk.read_at(0, &mut all).unwrap();
        assert!(
            all == self.bytes,
            "what the change map left out has changed"
        );
        self.point = disk.point();
        disk.keep_point();
    }

    /// How many records are in the file of the copy's file system, which must be whole.
    pub fn records(&self, is_frozen: bool) -> usize {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&self.bytes).unwrap();
        let path = file.path().to_str().unwrap();
        if !is_frozen {
            // As after a loss of power: the journal makes it whole.
            assert!(matches!(
                run("e2fsck", &["-fp", path]).status.code(),
                Some(0 | 1)
            ));
        }
        let state = run("dumpe2fs", &["-h", path]).stdout;
        assert!(!String::from_utf8_lossy(&state).contains("needs_recovery"));
        let checked = run("e2fsck", &["-fn", path]);
        assert!(checked.status.success(), "{checked:?}");
        let records = run("debugfs", &["-R", "cat /records", path]).stdout;
        let records = String::from_utf8(records).unwrap();
        for (line, number) in records.lines().zip(1..) {
            let is_last = !records.ends_with('\n') && records.ends_with(line);
            assert!(
                line == format!("record {number}") || (is_last && !is_frozen),
                "{line}"
            );
        }
        records.lines().count()
    }
}
