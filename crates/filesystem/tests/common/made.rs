//! File systems made with their content, without a mount.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::{Numbers, create, folder, run, text};

/// A file system, and the folder that its content is from.
pub struct Made {
    pub file: PathBuf,
    pub source: PathBuf,
    pub folder: TempDir,
}

/// How much is in a file system.
#[derive(Clone, Copy)]
pub struct Amount {
    /// Names in the largest directory.
    pub names: usize,
    /// Bytes in the largest file.
    pub file_bytes: u64,
    /// Whether there are symbolic links.
    pub links: bool,
}

pub fn ext(
    kind: &str,
    options: &str,
    size_bytes: u64,
    amount: Amount,
    numbers: &mut Numbers,
) -> Made {
    let made = prepare(size_bytes, amount, numbers);
    let mut arguments = vec!["-q", "-F", "-d", text(&made.source)];
    arguments.extend(options.split_whitespace());
    arguments.push(text(&made.file));
    run(&format!("mkfs.{kind}"), &arguments);
    made
}

/// `mkfs.xfs` takes a list of files for the content.
pub fn xfs(options: &str, amount: Amount, numbers: &mut Numbers) -> Made {
    let made = prepare(320 << 20, amount, numbers);
    let mut list = String::from("/stand/nothing\n0 0\nd--755 0 0\n");
    describe(&made.source, &mut list);
    list.push_str("$\n");
    let proto = made.folder.path().join("proto");
    write(&proto, list.as_bytes());
    let mut arguments = vec!["-q", "-f", "-p", text(&proto)];
    arguments.extend(options.split_whitespace());
    arguments.push(text(&made.file));
    run("mkfs.xfs", &arguments);
    made
}

pub fn fat(options: &str, size_bytes: u64, amount: Amount, numbers: &mut Numbers) -> Made {
    let made = prepare(size_bytes, amount, numbers);
    let mut arguments: Vec<&str> = options.split_whitespace().collect();
    arguments.push(text(&made.file));
    run("mkfs.vfat", &arguments);
    let mut entries: Vec<_> = fs::read_dir(&made.source)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    let mut arguments = vec![
        "LC_ALL=C.UTF-8",
        "TZ=UTC",
        "mcopy",
        "-s",
        "-m",
        "-Q",
        "-i",
        text(&made.file),
    ];
    arguments.extend(entries.iter().map(|path| text(path)));
    arguments.push("::/");
    run("env", &arguments);
    made
}

fn prepare(size_bytes: u64, amount: Amount, numbers: &mut Numbers) -> Made {
    let folder = folder();
    let (file, source) = (folder.path().join("image"), folder.path().join("source"));
    create(&file, size_bytes);
    fs::create_dir(&source).unwrap();
    grow(&source, amount, numbers);
    Made {
        file,
        source,
        folder,
    }
}

/// Directories of all sizes: in the inode, of one block, and with one or more blocks for the index.
fn grow(source: &Path, amount: Amount, numbers: &mut Numbers) {
    let most = amount.names;
    for (name, count) in [
        ("none", 0),
        ("few", 4),
        ("some", 30),
        ("many", most / 10),
        ("crowd", most),
    ] {
        let folder = source.join(name);
        fs::create_dir(&folder).unwrap();
        for index in 0..count {
            let width = 5 + numbers.below(60) as usize;
            let length = if index % 9 == 0 {
                numbers.below(amount.file_bytes)
            } else {
                0
            };
            let ending = numbers.one_of(&["x", ".txt", "LONG.name.ending", "-größe", ".日本語"]);
            let ending = if amount.links { "x" } else { ending };
            let path = folder.join(format!("{index:0width$}{ending}"));
            write(&path, &numbers.bytes(length as usize));
        }
    }
    if !amount.links {
        return;
    }
    for length in [
        1, 59, 60, 100, 155, 156, 157, 335, 336, 337, 500, 513, 1000, 1023,
    ] {
        let target = "x/".repeat(512);
        symlink(
            target[..length].trim_end_matches('/'),
            source.join(format!("link{length}")),
        )
        .unwrap();
    }
}

pub fn write(path: &Path, bytes: &[u8]) {
    File::create(path).unwrap().write_all(bytes).unwrap();
}

fn describe(folder: &Path, list: &mut String) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_str().unwrap();
        let metadata = entry.metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        if metadata.is_dir() {
            writeln!(list, "{name} d--{mode:o} 0 0").unwrap();
            describe(&path, list);
            list.push_str("$\n");
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            writeln!(list, "{name} l--{mode:o} 0 0 {}", target.display()).unwrap();
        } else {
            writeln!(list, "{name} ---{mode:o} 0 0 {}", path.display()).unwrap();
        }
    }
}
