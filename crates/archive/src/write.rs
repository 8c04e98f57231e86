//! Entries as the bytes that stand before their data.

use cairn_types::tree::{EntryKind, Metadata};

use crate::block::{BLOCK_BYTES, Block, LARGE_MAX, NAME_BYTES, SMALL_MAX, padding};
use crate::entry::{Content, Entry};
use crate::{acl, pax, sparse};

/// Bytes of zeros at an archive's end.
pub const END_BYTES: u64 = 2 * BLOCK_BYTES as u64;

/// The prefix of an extended attribute's record.
pub(crate) const XATTR: &[u8] = b"SCHILY.xattr.";

/// What stands before an entry's data: its headers, and the map of a file with holes. A multiple of
/// [`BLOCK_BYTES`], by the entry alone.
///
/// A socket has none in an archive: it is the caller's to leave it out.
pub fn head(entry: &Entry) -> Vec<u8> {
    let mut records = Vec::new();
    let (mut block, map) = describe(entry, &mut records);
    let path = tar_path(entry);
    if block.name.is_empty() {
        if path.len() > NAME_BYTES {
            pax::push(&mut records, b"path", &path);
        }
        block.name = path;
    }
    for xattr in &entry.xattrs {
        let key = pax::xattr_key(XATTR, &xattr.name);
        pax::push(&mut records, &key, &xattr.value);
        let list = acl::RECORDS.iter().find(|(name, _)| *name == xattr.name);
        if let Some((_, key)) = list
            && let Some(text) = acl::text(&xattr.value)
        {
            pax::push(&mut records, key, text.as_bytes());
        }
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let named = Block {
            name: [b"./PaxHeaders/", last_name(&entry.path)].concat(),
            mode: 0o644,
            size: records.len() as u64,
            kind: b'x',
            ..Block::default()
        };
        bytes.extend_from_slice(&named.write());
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len() + padding(records.len() as u64) as usize, 0);
    }
    bytes.extend_from_slice(&block.write());
    bytes.extend_from_slice(&map);
    bytes
}

/// Bytes of an entry in an archive whose head is so long.
pub fn stored_bytes(head_bytes: usize, entry: &Entry) -> u64 {
    let data = entry.content.data_bytes();
    head_bytes as u64 + data + padding(data)
}

/// The header of an entry, without its name unless that is to stay, and a map of its parts. What
/// does not fit into the header goes to the records.
fn describe(entry: &Entry, records: &mut Vec<u8>) -> (Block, Vec<u8>) {
    let metadata = &entry.metadata;
    let mut block = Block {
        mode: metadata.mode.into(),
        uid: metadata.uid.into(),
        gid: metadata.gid.into(),
        time: u64::try_from(metadata.modified.seconds).unwrap_or(0),
        kind: kind(metadata),
        device: (metadata.device.0.into(), metadata.device.1.into()),
        ..Block::default()
    };
    let mut map = Vec::new();
    let modified = metadata.modified;
    let fits = (0..=LARGE_MAX as i64).contains(&modified.seconds) && modified.nanoseconds == 0;
    if !fits {
        pax::push(records, b"mtime", pax::write_time(modified).as_bytes());
    }
    for (key, number) in [(b"uid", block.uid), (b"gid", block.gid)] {
        if number > SMALL_MAX {
            pax::push(records, key, number.to_string().as_bytes());
        }
    }
    let link = match &entry.content {
        Content::Target(target) => target.clone(),
        Content::Link(path) => {
            block.kind = b'1';
            [b"./", &path[..]].concat()
        }
        Content::Data(ranges) => {
            block.size = entry.content.data_bytes();
            if sparse::is_sparse(ranges, metadata.size_bytes) {
                map = sparse::write_map(ranges, metadata.size_bytes);
                block.size += map.len() as u64;
                block.name = [b"./GNUSparseFile.0/", last_name(&entry.path)].concat();
                let size = metadata.size_bytes.to_string();
                for (key, value) in [
                    (&b"GNU.sparse.major"[..], &b"1"[..]),
                    (b"GNU.sparse.minor", b"0"),
                    (b"GNU.sparse.name", &tar_path(entry)),
                    (b"GNU.sparse.realsize", size.as_bytes()),
                ] {
                    pax::push(records, key, value);
                }
            }
            Vec::new()
        }
        Content::Nothing => Vec::new(),
    };
    if link.len() > NAME_BYTES {
        pax::push(records, b"linkpath", &link);
    }
    if block.size > LARGE_MAX {
        pax::push(records, b"size", block.size.to_string().as_bytes());
    }
    block.link = link;
    (block, map)
}

/// An entry's path as it is written: from `./` on, a directory's with `/` at its end.
fn tar_path(entry: &Entry) -> Vec<u8> {
    let end = entry.metadata.kind == EntryKind::Directory && !entry.path.is_empty();
    let end: &[u8] = if end { b"/" } else { b"" };
    [b"./", &entry.path[..], end].concat()
}

fn last_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

const fn kind(metadata: &Metadata) -> u8 {
    match metadata.kind {
        EntryKind::File | EntryKind::Socket => b'0',
        EntryKind::Symlink => b'2',
        EntryKind::CharacterDevice => b'3',
        EntryKind::BlockDevice => b'4',
        EntryKind::Directory => b'5',
        EntryKind::Fifo => b'6',
    }
}
