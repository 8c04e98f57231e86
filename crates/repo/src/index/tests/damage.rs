//! Local files that are cut, flipped, lost or exchanged: found out, and not believed.

use super::*;

fn filled(lab: &Lab) {
    let index = lab.open();
    for n in 0..6 {
        let chunks: Vec<u64> = (n * 1000..n * 1000 + 1000).collect();
        index.insert(&pack(n, &chunks)).unwrap();
        index.flush().unwrap();
    }
    index.merger.join();
    // A second run, too small to be merged.
    index.insert(&pack(6, &[6000])).unwrap();
    index.flush().unwrap();
    index.merger.join();
}

/// Asks for everything: each answer is right, or an error that leaves the index unsound.
/// Returns whether all was there.
fn ask(index: &Index) -> bool {
    let mut whole = true;
    for n in 0..6001 {
        let pack = (n / 1000) as u32;
        let right = Place {
            pack,
            chunk: (n % 1000) as u32,
        };
        match index.get(&key(n)) {
            Ok(Some(place)) => assert_eq!(place, right),
            Ok(None) => whole = false,
            Err(error) => {
                assert!(index.is_unsound(), "{error}");
                whole = false;
            }
        }
    }
    for n in index.packs() {
        match index.pack(n) {
            Ok(info) => assert_eq!(info.unwrap().id, pack_id(u64::from(n))),
            Err(error) => {
                assert!(index.is_unsound(), "{error}");
                whole = false;
            }
        }
    }
    whole
}

fn damaged(damage: impl Fn(&std::path::Path, &[u8], usize) -> Option<Vec<u8>>) {
    let lab = Lab::new();
    filled(&lab);
    assert!(ask(&lab.open()));
    let mut found = 0;
    for path in lab.files() {
        let bytes = std::fs::read(&path).unwrap();
        let kept: Vec<_> = lab.files();
        let saved: Vec<_> = kept.iter().map(|p| std::fs::read(p).unwrap()).collect();
        for part in 0..16 {
            let at = bytes.len() * part / 16;
            match damage(&path, &bytes, at) {
                Some(other) => put(&path, &other),
                None => std::fs::remove_file(&path).unwrap(),
            }
            let index = lab.open();
            if !ask(&index) {
                found += 1;
                drop(index);
                let again = lab.open();
                assert_eq!(
                    again.packs(),
                    Vec::<u32>::new(),
                    "{path:?} {at}: it is made anew"
                );
                drop(again);
            } else {
                drop(index);
            }
            for path in lab.files() {
                std::fs::remove_file(path).unwrap();
            }
            for (path, bytes) in kept.iter().zip(&saved) {
                put(path, bytes);
            }
        }
    }
    assert!(found >= 40, "{found}");
}

fn put(path: &std::path::Path, bytes: &[u8]) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_is_never_believed() {
    damaged(|_, bytes, at| {
        let mut other = bytes.to_vec();
        other[at] ^= 0x10;
        Some(other)
    });
}

#[test]
fn a_file_that_is_cut_short_is_never_believed() {
    damaged(|_, bytes, at| Some(bytes[..at].to_vec()));
}

#[test]
fn a_file_that_is_lost_is_never_missed_in_silence() {
    damaged(|_, _, _| None);
}

#[test]
fn a_page_in_the_place_of_another_is_never_believed() {
    damaged(|_, bytes, at| {
        let mut other = bytes.to_vec();
        let (page, from) = (4096.min(bytes.len() / 2), at.min(bytes.len() / 2));
        let moved = bytes[from..from + page].to_vec();
        let end = other.len();
        other[end - page..].copy_from_slice(&moved);
        Some(other)
    });
}
