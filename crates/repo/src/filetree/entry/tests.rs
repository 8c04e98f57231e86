#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

fn metadata(kind: EntryKind) -> Metadata {
    Metadata {
        kind,
        mode: 0o4755,
        uid: 1000,
        gid: 7,
        size_bytes: 0,
        modified: FileTime {
            seconds: -3,
            nanoseconds: 999_999_999,
        },
        changed: FileTime {
            seconds: 1 << 40,
            nanoseconds: 0,
        },
        inode: u64::MAX,
        linked: kind == EntryKind::File,
        device: (0, 0),
    }
}

fn chunk(byte: u8) -> ChunkId {
    ChunkId([byte; 32])
}

fn records() -> Vec<Record> {
    let list = NodeRef {
        level: 2,
        id: chunk(1),
    };
    let pieces = vec![
        Piece {
            id: chunk(9),
            bytes: 5,
        },
        Piece {
            id: ChunkId::ZERO,
            bytes: 1 << 40,
        },
    ];
    let held = [
        (EntryKind::File, Held::Pieces(vec![]), 0),
        (EntryKind::File, Held::Pieces(pieces), (1 << 40) + 5),
        (EntryKind::File, Held::PieceList(list), 77),
        (EntryKind::Directory, Held::Directory(list), 0),
        (EntryKind::Symlink, Held::Target(b"../a".to_vec()), 0),
        (EntryKind::Fifo, Held::Nothing, 0),
        (EntryKind::Socket, Held::Nothing, 0),
        (EntryKind::CharacterDevice, Held::Nothing, 0),
        (EntryKind::BlockDevice, Held::Nothing, 0),
    ];
    let records = held.into_iter().map(|(kind, held, size_bytes)| {
        let mut metadata = metadata(kind);
        metadata.size_bytes = size_bytes;
        if is_device(kind) {
            metadata.device = (8, 1 << 20);
        }
        let xattr = |name: &[u8], value: &[u8]| Xattr {
            name: name.to_vec(),
            value: value.to_vec(),
        };
        let xattrs = vec![xattr(b"user.a", b""), xattr(b"user.b", b"\0\xff")];
        Record {
            metadata,
            xattrs,
            held,
        }
    });
    records.collect()
}

fn decode(bytes: &[u8]) -> Result<Record, Malformed> {
    let mut reader = Reader::new(bytes);
    let record = Record::decode(&mut reader)?;
    reader.finish()?;
    Ok(record)
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

#[test]
fn every_kind_is_read_as_it_was_written() {
    for record in records() {
        assert_eq!(decode(&encoded(&record)), Ok(record));
    }
}

#[test]
fn no_cut_and_no_longer_record_is_read() {
    for record in records() {
        let mut bytes = encoded(&record);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{record:?} at {length}");
        }
        bytes.push(0);
        assert!(decode(&bytes).is_err());
    }
}

/// There is one encoding only of each record: a byte that is read as the same is the same.
#[test]
fn every_byte_means_something() {
    for record in records() {
        let bytes = encoded(&record);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x41;
            if let Ok(read) = decode(&other) {
                assert_ne!(read, record, "byte {at}");
                assert_eq!(encoded(&read), other, "byte {at}");
            }
        }
    }
}

#[test]
fn names_that_lead_out_of_a_directory_are_refused() {
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc", b"a\0b"] {
        let mut bytes = Vec::new();
        encode_name(name, &mut bytes);
        assert!(decode_name(&mut Reader::new(&bytes)).is_err(), "{name:?}");
    }
}

#[test]
fn what_no_writer_makes_is_refused() {
    let forge = |change: fn(&mut Record)| {
        let mut record = records().remove(1);
        change(&mut record);
        decode(&encoded(&record))
    };
    assert!(forge(|_| {}).is_ok());
    assert!(forge(|record| record.metadata.size_bytes += 1).is_err());
    assert!(forge(|record| record.metadata.mode = 0o10000).is_err());
    assert!(forge(|record| record.metadata.modified.nanoseconds = 1_000_000_000).is_err());
    assert!(forge(|record| record.xattrs.swap(0, 1)).is_err());
    assert!(forge(|record| record.xattrs[1].name = b"user.a".to_vec()).is_err());
    assert!(forge(|record| record.xattrs[0].value = vec![0; XATTR_BYTES_MAX]).is_err());
    let piece = |id, bytes| Held::Pieces(vec![Piece { id, bytes }]);
    let sized = |held, size_bytes| {
        let mut record = records().remove(1);
        (record.held, record.metadata.size_bytes) = (held, size_bytes);
        decode(&encoded(&record))
    };
    assert!(sized(piece(chunk(1), 0), 0).is_err());
    let too_long = PIECE_BYTES_MAX as u64 + 1;
    assert!(sized(piece(chunk(1), too_long), too_long).is_err());
    assert!(sized(piece(ChunkId::ZERO, too_long), too_long).is_ok());
    let two = |bytes| {
        Held::Pieces(vec![
            Piece {
                id: chunk(0),
                bytes
            };
            2
        ])
    };
    assert!(
        sized(two(u64::MAX), u64::MAX - 1).is_err(),
        "the sum overflows"
    );
}
