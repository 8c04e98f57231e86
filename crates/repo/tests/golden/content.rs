//! What the golden repository of format 1 holds.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, Timespec, Timestamps, mkfifoat, utimensat};

/// Its master key.
pub const MASTER: &str = include_str!("master.key");

/// Bytes of a block.
const BLOCK: usize = 65_536;

/// The first state of the disk: text, a hole of more than a node, a little that
/// does not compress, zeros, and a short last block.
pub fn first() -> Vec<u8> {
    let mut disk = vec![0; 600 * BLOCK + 1000];
    let line = b"the quick brown fox jumps over the lazy dog\n";
    for (at, byte) in disk[..3 * BLOCK + 77].iter_mut().enumerate() {
        *byte = line[at % line.len()];
    }
    let mut state = 1u32;
    for byte in &mut disk[520 * BLOCK..520 * BLOCK + 3000] {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    disk[600 * BLOCK + 990..].copy_from_slice(b"0123456789");
    disk
}

/// The second state: one block changed, one made zero.
pub fn second() -> Vec<u8> {
    let mut disk = first();
    disk[BLOCK + 5..BLOCK + 12].copy_from_slice(b"changed");
    disk[520 * BLOCK..521 * BLOCK].fill(0);
    disk
}

/// The bytes of a disk that was never written.
pub const ZERO_BYTES: u64 = 200_000;

/// Times of files, in seconds.
const MODIFIED_AT: i64 = 1_000_000_000;

/// Fills an empty folder: files of no, one and many pieces, two names of one file,
/// a link, a pipe, directories, and a name that is no text.
pub fn fill(root: &Path) -> io::Result<()> {
    fs::create_dir_all(root.join("a/b"))?;
    put(&root.join("empty"), b"")?;
    put(&root.join("a/small"), b"bytes")?;
    put(&root.join("a/zeros"), &vec![0; 100_000])?;
    put(&root.join("a").join(OsStr::from_bytes(b"\xff\n")), b"odd")?;
    let mut holes = fs::File::create(root.join("a/b/holes"))?;
    for number in 0..20 {
        holes.seek(SeekFrom::Start(number << 20))?;
        writeln!(holes, "piece {number}")?;
    }
    holes.set_len(20 << 20)?;
    drop(holes);
    fs::hard_link(root.join("a/small"), root.join("a/b/same"))?;
    symlink("../small", root.join("a/b/link"))?;
    mkfifoat(CWD, root.join("a/pipe"), Mode::from(0o640))?;
    fs::set_permissions(root.join("a/small"), Permissions::from_mode(0o751))?;
    let names: [&[u8]; 9] = [
        b"empty",
        b"a/small",
        b"a/zeros",
        b"a/\xff\n",
        b"a/b/holes",
        b"a/b/link",
        b"a/pipe",
        b"a/b",
        b"a",
    ];
    for (name, tv_sec) in names.iter().zip(MODIFIED_AT..) {
        let time = Timespec { tv_sec, tv_nsec: 7 };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let path = root.join(OsStr::from_bytes(name));
        utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::File::create(path)?.write_all(bytes)
}
