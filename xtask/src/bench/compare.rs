//! Bringing a tree from one generation to the next, and comparing what was
//! restored with what was saved.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::process::run;

/// Copies a tree with all that its files have.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("-a").arg(from).arg(to)).map(|_| ())
}

/// Makes a copy of the first generation the second: files that are the same
/// file in both generations, by their inode, are left alone.
pub fn update_tree(first: &Path, second: &Path, copy: &Path) -> Result<()> {
    let (old, new) = (names(first)?, names(second)?);
    for name in old.difference(&new) {
        let gone = copy.join(name);
        if gone.symlink_metadata()?.is_dir() {
            fs::remove_dir_all(gone)?;
        } else {
            fs::remove_file(gone)?;
        }
    }
    for name in &new {
        let (before, after, at) = (first.join(name), second.join(name), copy.join(name));
        let metadata = after.symlink_metadata()?;
        let known = before.symlink_metadata().ok();
        if metadata.is_dir() && known.is_some_and(|known| known.is_dir()) {
            update_tree(&before, &after, &at)?;
        } else if before.symlink_metadata().map_or(0, |known| known.ino()) != metadata.ino() {
            run(Command::new("cp").args(["-a", "-T"]).arg(&after).arg(&at))?;
        }
    }
    Ok(())
}

/// Whether what was restored somewhere below `target` is `saved`: the bytes of
/// all files, their names and their modes.
pub fn same_below(target: &Path, saved: &Path) -> Result<bool> {
    let name = saved.file_name().context("it has a name")?;
    match find(target, name)? {
        Some(found) => same(&found, saved),
        None => Ok(false),
    }
}

fn find(folder: &Path, name: &std::ffi::OsStr) -> Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name() == name {
            return Ok(Some(entry.path()));
        }
        if entry.file_type()?.is_dir()
            && let Some(found) = find(&entry.path(), name)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// Whether two files, or all below two folders, are the same.
pub fn same(one: &Path, other: &Path) -> Result<bool> {
    let (left, right) = (one.symlink_metadata()?, other.symlink_metadata()?);
    if left.file_type() != right.file_type() {
        return Ok(false);
    }
    if left.is_symlink() {
        return Ok(fs::read_link(one)? == fs::read_link(other)?);
    }
    if left.is_file() {
        return Ok(left.len() == right.len() && same_bytes(one, other)?);
    }
    let (ours, theirs) = (names(one)?, names(other)?);
    if ours != theirs {
        return Ok(false);
    }
    for name in ours {
        let (ours, theirs) = (one.join(&name), other.join(&name));
        if ours.symlink_metadata()?.mode() != theirs.symlink_metadata()?.mode()
            || !same(&ours, &theirs)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn names(folder: &Path) -> Result<BTreeSet<OsString>> {
    fs::read_dir(folder)?
        .map(|entry| Ok(entry?.file_name()))
        .collect()
}

fn same_bytes(one: &Path, other: &Path) -> Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

/// The parts of a disk, as offset and length, that differ between two images of
/// equal size, in whole blocks.
pub fn changed_blocks(one: &Path, other: &Path, block: usize) -> Result<Vec<(u64, u64)>> {
    let (mut first, mut second) = (File::open(one)?, File::open(other)?);
    let size = first.metadata()?.len();
    ensure!(
        size == second.metadata()?.len(),
        "the images differ in size"
    );
    let (mut left, mut right) = (vec![0; block], vec![0; block]);
    let mut changed: Vec<(u64, u64)> = Vec::new();
    let mut at = 0;
    while at < size {
        let length = block.min(usize::try_from(size - at).unwrap_or(block));
        first.read_exact(&mut left[..length])?;
        second.read_exact(&mut right[..length])?;
        if left[..length] != right[..length] {
            match changed.last_mut() {
                Some((start, run)) if *start + *run == at => *run += length as u64,
                _ => changed.push((at, length as u64)),
            }
        }
        at += length as u64;
    }
    Ok(changed)
}
