#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::convert::Infallible;

use cairn_types::tree::{EntryKind, FileTime, Metadata};

use super::*;
use crate::filetree::entry::Held;

/// Nodes by their ids, as a store would have them.
#[derive(Default)]
struct Nodes(BTreeMap<[u8; 32], Vec<u8>>);

impl Nodes {
    fn emit(&mut self) -> impl FnMut(&[u8]) -> Result<ChunkId, Infallible> {
        |node| {
            let id = *blake3::hash(node).as_bytes();
            self.0.insert(id, node.to_vec());
            Ok(ChunkId(id))
        }
    }

    fn leaves(&self, kind: ListKind, top: NodeRef) -> Vec<&[u8]> {
        let bytes = &self.0[&top.id.0][..];
        if top.level == 0 {
            return vec![bytes];
        }
        let below = decode_branch(kind, top.level, bytes).unwrap();
        assert!(below.len() > 1, "a branch of one");
        below
            .iter()
            .flat_map(|below| self.leaves(kind, below.node))
            .collect()
    }
}

fn entry(name: &str) -> Vec<u8> {
    let record = Record {
        metadata: Metadata {
            kind: EntryKind::Fifo,
            mode: 0,
            uid: 0,
            gid: 0,
            size_bytes: 0,
            modified: FileTime::default(),
            changed: FileTime::default(),
            inode: 0,
            linked: false,
            device: (0, 0),
        },
        xattrs: Vec::new(),
        held: Held::Nothing,
    };
    let mut bytes = Vec::new();
    encode_name(name.as_bytes(), &mut bytes);
    record.encode(&mut bytes);
    bytes
}

fn directory(names: &[String]) -> (Nodes, NodeRef) {
    let (mut nodes, mut list) = (Nodes::default(), ListBuilder::new(ListKind::Entries));
    for name in names {
        list.push_entry(&entry(name), &mut nodes.emit()).unwrap();
    }
    let top = list.finish(&mut nodes.emit()).unwrap();
    (nodes, top)
}

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|number| format!("file {number:07}"))
        .collect()
}

#[test]
fn entries_come_back_in_order_and_nodes_keep_their_limit() {
    for count in [0, 1, 2, 300, 50_000] {
        let names = names(count);
        let (nodes, top) = directory(&names);
        let mut found = Vec::new();
        for leaf in nodes.leaves(ListKind::Entries, top) {
            assert!(leaf.len() <= NODE_BYTES_MAX + ENTRY_BYTES_MAX);
            for entry in entries(leaf).unwrap() {
                found.push(String::from_utf8(entry.unwrap().name.to_vec()).unwrap());
            }
        }
        assert_eq!(found, names, "{count}");
        assert_eq!(top.level > 0, count == 50_000, "{count}");
    }
}

#[test]
fn pieces_come_back_in_order() {
    let (mut nodes, mut list) = (Nodes::default(), ListBuilder::new(ListKind::Pieces));
    let all: Vec<Piece> = (0..30_000_u64)
        .map(|number| Piece {
            id: ChunkId(*blake3::hash(&number.to_le_bytes()).as_bytes()),
            bytes: 1 + number % 1000,
        })
        .collect();
    for piece in &all {
        list.push_piece(piece, &mut nodes.emit()).unwrap();
    }
    let top = list.finish(&mut nodes.emit()).unwrap();
    assert_eq!(top.level, 1);
    let branch = decode_branch(ListKind::Pieces, 1, &nodes.0[&top.id.0]).unwrap();
    let covered: u64 = branch.iter().map(|below| below.bytes).sum();
    assert_eq!(covered, all.iter().map(|piece| piece.bytes).sum::<u64>());
    let leaves = nodes.leaves(ListKind::Pieces, top);
    let found: Vec<Piece> = leaves
        .iter()
        .flat_map(|leaf| pieces(leaf).unwrap())
        .collect();
    assert_eq!(found, all);
}

#[test]
fn an_added_entry_changes_few_nodes_of_a_large_directory() {
    let mut names = names(50_000);
    let (before, _) = directory(&names);
    names.insert(25_000, "file 0024999 and a half".to_owned());
    let (after, _) = directory(&names);
    let new = after.0.keys().filter(|id| !before.0.contains_key(*id));
    assert!(before.0.len() > 20 && new.count() <= 3);
}

#[test]
fn forged_nodes_are_refused() {
    let leaf = |items: &[Vec<u8>]| [&[0x80, 0][..], &items.concat()].concat();
    let all = |bytes: &[u8]| {
        entries(bytes)?
            .collect::<Result<Vec<_>, _>>()
            .map(|all| all.len())
    };
    assert_eq!(all(&leaf(&[entry("a"), entry("b")])), Ok(2));
    assert!(
        all(&leaf(&[entry("b"), entry("a")])).is_err(),
        "out of order"
    );
    assert!(all(&leaf(&[entry("a"), entry("a")])).is_err(), "twice");
    assert!(all(&leaf(&[entry("..")])).is_err());
    assert!(all(&[0x80, 1]).is_err(), "another level");
    assert!(all(&[0x81, 0]).is_err(), "another list");
    assert!(all(&[]).is_err());
    let child = |id: u8, name: &str| [&[id; 32][..], &[name.len() as u8], name.as_bytes()].concat();
    let branch = |items: &[Vec<u8>]| {
        let bytes = [&[0x80, 1][..], &items.concat()].concat();
        decode_branch(ListKind::Entries, 1, &bytes).map(|below| below.len())
    };
    assert_eq!(branch(&[child(1, "a"), child(2, "b")]), Ok(2));
    assert!(branch(&[child(1, "b"), child(2, "a")]).is_err());
    assert!(
        branch(&[child(0, "a"), child(2, "b")]).is_err(),
        "zeros are no node"
    );
    assert!(branch(&[]).is_err());
    assert!(branch(&[child(1, "a/b")]).is_err());
    assert!(decode_branch(ListKind::Entries, 0, &[0x80, 0]).is_err());
    assert!(decode_branch(ListKind::Entries, LEVEL_MAX + 1, &[0x80, LEVEL_MAX + 1, 0]).is_err());
}
