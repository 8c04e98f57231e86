#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;

#[test]
fn the_place_among_fences_is_found_however_they_are_spread() {
    let spreads: [Vec<u32>; 6] = [
        vec![],
        vec![5],
        vec![7; 100],
        (0..1000).collect(),
        (0..1000).map(|n| u32::MAX - 1000 + n).collect(),
        (0..1000).map(|n| n * 4_000_000).collect(),
    ];
    for fences in spreads {
        let asked = fences
            .iter()
            .flat_map(|f| [f.wrapping_sub(1), *f, f.wrapping_add(1)]);
        for fence in asked.chain([0, 1 << 31, u32::MAX]) {
            let right = fences.partition_point(|other| *other <= fence);
            assert_eq!(first_above(&fences, fence), right, "{fence}");
        }
    }
}

/// Keys whose first four bytes are alike span pages, and one key has many places.
#[test]
fn keys_that_begin_alike_are_all_found() {
    let folder = tempfile::tempdir().unwrap();
    let files = Arc::new(Files::open(folder.path()).unwrap());
    let key = |n: u32| {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&(n / 700).to_be_bytes());
        key[8..12].copy_from_slice(&n.to_be_bytes());
        key
    };
    let mut writer = RunWriter::new(&files, &[3; 32], 10_000).unwrap();
    let place = |pack| Place { pack, chunk: 1 };
    for n in 0..3000 {
        // Number 1000 has places enough for three pages.
        for pack in 0..if n == 1000 { 600 } else { 1 } {
            let entry = Entry {
                key: key(n),
                place: place(pack),
            };
            writer.push(&entry).unwrap();
        }
    }
    let run = writer.finish().unwrap();
    let again = Run::open(&files, &[3; 32], run.id, run.entries, u64::MAX).unwrap();
    for run in [run, again] {
        let (mut page, mut found) = (PageBuffer::new(), Vec::new());
        for n in 0..3000 {
            found.clear();
            run.get(&key(n), &mut page, &mut found).unwrap();
            let places = if n == 1000 { 600 } else { 1 };
            assert_eq!(found, (0..places).map(place).collect::<Vec<_>>(), "{n}");
        }
        found.clear();
        run.get(&key(3001), &mut page, &mut found).unwrap();
        assert_eq!(found, []);
        let mut entries = run.iter();
        let mut count = 0;
        while let Some(entry) = entries.next().unwrap() {
            count += u64::from(entry.place.chunk);
        }
        assert_eq!(count, run.entries);
    }
}

#[test]
fn a_filter_denies_nothing_it_has_and_most_of_what_it_has_not() {
    let key = |n: u64| {
        *blake3::hash(&n.to_le_bytes())
            .as_bytes()
            .first_chunk()
            .unwrap()
    };
    let mut filter = Filter::for_keys(100_000).unwrap();
    (0..100_000).for_each(|n| filter.insert(&key(n)));
    assert!((0..100_000).all(|n| filter.may_have(&key(n))));
    let passed = (100_000..200_000)
        .filter(|n| filter.may_have(&key(*n)))
        .count();
    assert!(passed < 5000, "{passed} of 100000");
    assert!(Filter::for_keys(1 << 40).is_none(), "it would be too large");
}
