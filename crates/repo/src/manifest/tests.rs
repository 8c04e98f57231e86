use proptest::prelude::*;

use super::*;

fn info() -> BackupInfo {
    cairn_testkit::backup_info(cairn_types::ProjectId::random(), 1)
}

fn disk(parent: Option<BackupId>) -> Content {
    Content::Disk {
        geometry: Geometry::new(123_456),
        top: ChunkId([7; 32]),
        data_bytes: 65_536,
        parent,
        losses: [9; 16],
        point: parent.and_then(|parent| Point::new(&parent.to_string())),
    }
}

fn group(count: usize) -> Content {
    let child = |n| Child {
        backup: BackupId::random(),
        root: Root([n as u8; 32]),
        size_bytes: 512,
    };
    Content::Group((0..count).map(child).collect())
}

#[test]
fn a_manifest_reads_back_whole_or_not_at_all() {
    for content in [
        disk(None),
        disk(Some(BackupId::random())),
        group(0),
        group(3),
    ] {
        let manifest = Manifest {
            info: info(),
            content,
        };
        let encoded = manifest.encode();
        assert_eq!(Manifest::decode(&encoded), Ok(manifest));
        for cut in 0..encoded.len() {
            assert!(Manifest::decode(&encoded[..cut]).is_err(), "cut at {cut}");
        }
    }
}

#[test]
fn a_definition_is_a_fact_that_may_be_missing() {
    let mut manifest = Manifest {
        info: info(),
        content: group(2),
    };
    // As it was written before there were any.
    let without = manifest.encode();
    assert!(!String::from_utf8_lossy(&without).contains("definition"));
    // Every sign takes six in JSON.
    manifest.info.definition = Some("\u{1}".repeat(64 << 10));
    let with = manifest.encode();
    assert_eq!(Manifest::decode(&with), Ok(manifest.clone()));
    manifest.info.definition = None;
    assert_eq!(Manifest::decode(&without), Ok(manifest));
}

#[test]
fn roots_tell_contents_apart() {
    let hasher = Hasher::new(&[1; 32]);
    let three = group(3);
    let Content::Group(mut children) = three.clone() else {
        unreachable!()
    };
    children.swap(0, 2);
    assert_ne!(three.root(&hasher), Content::Group(children).root(&hasher));
    assert_ne!(disk(None).root(&hasher), group(0).root(&hasher));
    assert_eq!(three.size_bytes(), 3 * 512);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Manifest::decode(&bytes);
    }
}
