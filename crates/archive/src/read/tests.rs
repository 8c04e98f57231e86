//! Archives that are written and read back, and hostile ones.

use std::io::Read;

use cairn_types::tree::{EntryKind, FileTime, Metadata, Xattr};
use proptest::prelude::*;

use super::*;
use crate::block::SMALL_MAX;
use crate::{END_BYTES, head, is_sparse, stored_bytes};

fn metadata(kind: EntryKind, size_bytes: u64) -> Metadata {
    Metadata {
        kind,
        mode: 0o640,
        uid: 1000,
        gid: 1000,
        size_bytes,
        modified: FileTime {
            seconds: 1_700_000_000,
            nanoseconds: 7,
        },
        changed: FileTime::default(),
        inode: 0,
        linked: false,
        device: (0, 0),
    }
}

fn entry(path: &[u8], content: Content) -> Entry {
    let kind = match &content {
        Content::Data(_) | Content::Link(_) => EntryKind::File,
        Content::Target(_) => EntryKind::Symlink,
        Content::Nothing => EntryKind::Directory,
    };
    Entry {
        path: path.to_vec(),
        metadata: metadata(kind, content.data_bytes()),
        xattrs: Vec::new(),
        content,
    }
}

/// Data that tells places apart.
fn data(bytes: u64) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let start = bytes.len() as u64;
        let head = head(entry);
        assert_eq!(head.len() % BLOCK_BYTES, 0);
        let end = start + stored_bytes(head.len(), entry);
        bytes.extend(head);
        bytes.extend(data(entry.content.data_bytes()));
        bytes.resize(end as usize, 0);
    }
    bytes.resize(bytes.len() + END_BYTES as usize, 0);
    bytes
}

fn read_all(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        let wanted = entry.content.data_bytes();
        Read::by_ref(&mut reader)
            .take(wanted)
            .read_to_end(&mut data)
            .map_err(Error::Read)?;
        found.push((entry, data));
    }
    Ok(found)
}

prop_compose! {
    fn any_entry()(
        names in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..120), 0..5),
        kind in prop::sample::select(vec![
            EntryKind::File, EntryKind::Directory, EntryKind::Symlink, EntryKind::Fifo,
            EntryKind::CharacterDevice, EntryKind::BlockDevice,
        ]),
        link in prop::option::of(1..300_usize),
        parts in prop::collection::vec((0..3_u64, 1..2000_u64), 0..5),
        tail in 0..3_u64,
        (mode, uid, gid) in (0..=0o7777_u16, any::<u32>(), any::<u32>()),
        (seconds, nanoseconds) in (any::<i64>(), prop::sample::select(vec![0, 1, 999_999_999_u32])),
        xattrs in prop::collection::btree_map(
            prop::collection::vec(1..=255_u8, 1..40), prop::collection::vec(any::<u8>(), 0..200), 0..3,
        ),
        device in (0..4096_u32, 0..1_048_576_u32),
    ) -> Entry {
        let names: Vec<_> = names.into_iter().filter(|name| is_entry_name(name)).collect();
        let names = if names.is_empty() && kind != EntryKind::Directory { vec![b"x".to_vec()] } else { names };
        let mut end = 0;
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (hole, length) in parts {
            let start = end + hole * 4096;
            end = start + length;
            match ranges.last_mut() {
                Some(last) if last.end == start => last.end = end,
                _ => ranges.push(start..end),
            }
        }
        let content = match kind {
            EntryKind::File => match link {
                Some(length) if length < 100 => Content::Link(vec![b'y'; length]),
                _ => Content::Data(ranges),
            },
            EntryKind::Symlink => Content::Target(vec![b'/'; link.unwrap_or(1)]),
            _ => Content::Nothing,
        };
        let is_data = matches!(content, Content::Data(_));
        let is_device = matches!(kind, EntryKind::CharacterDevice | EntryKind::BlockDevice);
        Entry {
            path: names.join(&b'/'),
            metadata: Metadata {
                mode, uid, gid,
                modified: FileTime { seconds, nanoseconds },
                device: if is_device { device } else { (0, 0) },
                ..metadata(kind, if is_data { end + tail * 512 } else { 0 })
            },
            xattrs: xattrs.into_iter().map(|(name, value)| Xattr { name, value }).collect(),
            content,
        }
    }
}

proptest! {
    #[test]
    fn every_entry_reads_back(entries in prop::collection::vec(any_entry(), 0..6)) {
        let read = read_all(&archive(&entries)).unwrap();
        prop_assert_eq!(read.len(), entries.len());
        for ((found, bytes), wanted) in read.iter().zip(&entries) {
            prop_assert_eq!(found, wanted);
            prop_assert_eq!(bytes, &data(wanted.content.data_bytes()));
        }
    }

    #[test]
    fn no_archive_can_do_harm(
        entries in prop::collection::vec(any_entry(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = archive(&entries);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()));
        if let Ok(read) = read_all(&bytes) {
            for (entry, _) in read {
                prop_assert!(entry.path.is_empty() || entry.path.split(|b| *b == b'/').all(is_entry_name));
            }
        }
    }
}

#[test]
fn an_archive_that_breaks_off_is_an_error() {
    let bytes = archive(&[
        entry(b"", Content::Nothing),
        entry(b"a", Content::Data(vec![0..700])),
    ]);
    for length in 0..bytes.len() {
        assert!(read_all(&bytes[..length]).is_err(), "{length}");
    }
    assert_eq!(read_all(&bytes).unwrap().len(), 2);
}

#[test]
fn names_that_lead_out_are_refused() {
    for bad in [
        &b"../a"[..],
        b"..",
        b"a/../../b",
        b"/etc/passwd",
        b"a//b",
        b"a/./b",
        b".",
        b"a/..",
    ] {
        let file = entry(bad, Content::Data(vec![]));
        assert!(
            matches!(read_all(&archive(&[file])), Err(Error::BadName { .. })),
            "{bad:?}"
        );
        let link = entry(b"a", Content::Link(bad.to_vec()));
        assert!(
            matches!(read_all(&archive(&[link])), Err(Error::BadName { .. })),
            "{bad:?}"
        );
        // A long one is in a record.
        let long = [&[b'x'; 200][..], b"/", bad].concat();
        let file = entry(&long, Content::Data(vec![]));
        assert!(
            matches!(read_all(&archive(&[file])), Err(Error::BadName { .. })),
            "{bad:?}"
        );
    }
}

#[test]
fn what_is_large_or_odd_is_in_records() {
    let mut large = entry(&[b'n'; 101], Content::Data(vec![]));
    large.metadata.uid = SMALL_MAX as u32 + 1;
    large.metadata.size_bytes = 1 << 50;
    large.content = Content::Data(vec![5..(1 << 49)]);
    assert!(is_sparse(&[5..1 << 49], 1 << 50));
    let bytes = head(&large);
    let mut reader = Reader::new(&bytes[..]);
    assert_eq!(reader.next_entry().unwrap(), Some(large));
}
