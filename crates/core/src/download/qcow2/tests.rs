//! Images that are made of disks in memory, and read back by the letter of the format.

use cairn_testkit::MemoryDisk;
use proptest::prelude::*;

use super::*;

fn image(disk: Arc<MemoryDisk>) -> Image {
    let map = Map::of(&*disk).unwrap();
    Image::new(Arc::new(map), disk)
}

/// A range of an image, in parts of at most `limit` bytes.
fn read(image: &Image, range: Range<u64>, limit: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while range.start + (bytes.len() as u64) < range.end {
        let at = range.start + bytes.len() as u64;
        let limit = limit.min(range.end - at);
        let start = bytes.len();
        match image.part(at, limit).unwrap() {
            Part::Made(made) => bytes.extend(made),
            Part::Zeros(count) => bytes.resize(start + count as usize, 0),
            Part::Disk(range) => {
                bytes.resize(start + (range.end - range.start) as usize, 0);
                image
                    .disk
                    .read_at(range.start, &mut bytes[start..])
                    .unwrap();
            }
        }
        let length = (bytes.len() - start) as u64;
        assert!((1..=limit).contains(&length), "{length} bytes of {limit}");
    }
    bytes
}

fn all(image: &Image) -> Vec<u8> {
    read(image, 0..image.map.image_bytes(), u64::MAX)
}

fn number(bytes: &[u8], at: u64, length: usize) -> u64 {
    let field = &bytes[at as usize..at as usize + length];
    field
        .iter()
        .fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What a guest would see of an image; everything in it must be referred to once.
fn guest_bytes(image: &[u8]) -> Vec<u8> {
    assert_eq!(&image[..4], b"QFI\xfb");
    assert_eq!((number(image, 4, 4), number(image, 20, 4)), (3, 16));
    let clusters = image.len() as u64 / CLUSTER_BYTES;
    let mut used = vec![0_u64; clusters as usize];
    let mut refer = |offset: u64| {
        assert_eq!(offset % CLUSTER_BYTES, 0);
        used[(offset / CLUSTER_BYTES) as usize] += 1;
        offset
    };
    refer(0);
    let size_bytes = number(image, 24, 8);
    let (l1_entries, l1) = (number(image, 36, 4), number(image, 40, 8));
    for cluster in 0..(l1_entries * 8).div_ceil(CLUSTER_BYTES) {
        refer(l1 + cluster * CLUSTER_BYTES);
    }
    let (counts, counts_length) = (number(image, 48, 8), number(image, 56, 4));
    for cluster in 0..counts_length {
        refer(counts + cluster * CLUSTER_BYTES);
    }
    let mut counted = Vec::new();
    for entry in 0..counts_length * TABLE_CLUSTERS {
        let block = number(image, counts + entry * 8, 8);
        if block != 0 {
            refer(block);
            counted.extend((0..BLOCK_CLUSTERS).map(|count| number(image, block + count * 2, 2)));
        }
    }
    let mut bytes = vec![0; size_bytes as usize];
    let point = |at| {
        let entry = number(image, at, 8);
        assert!(entry == 0 || entry & COPIED != 0);
        (entry != 0).then_some(entry & !COPIED)
    };
    for table in 0..l1_entries {
        let Some(l2) = point(l1 + table * 8) else {
            continue;
        };
        refer(l2);
        for cluster in 0..TABLE_CLUSTERS {
            let Some(data) = point(l2 + cluster * 8) else {
                continue;
            };
            refer(data);
            let start = table * TABLE_SPAN + cluster * CLUSTER_BYTES;
            let length = CLUSTER_BYTES.min(size_bytes - start);
            let from = &image[data as usize..(data + length) as usize];
            bytes[start as usize..(start + length) as usize].copy_from_slice(from);
        }
    }
    assert!(
        used.iter().all(|times| *times == 1),
        "something is used twice or not at all"
    );
    assert_eq!(&counted[..used.len()], used);
    assert!(counted[used.len()..].iter().all(|count| *count == 0));
    bytes
}

/// A disk with these bytes at some places.
fn disk(size_bytes: u64, places: &[u64]) -> Arc<MemoryDisk> {
    let disk = MemoryDisk::new(size_bytes);
    for place in places {
        let place = place % size_bytes;
        let length = (size_bytes - place).min(5000);
        let data: Vec<u8> = (0..length)
            .map(|at| ((place + at) % 255 + 1) as u8)
            .collect();
        disk.write(place, &data);
    }
    Arc::new(disk)
}

fn content(disk: &MemoryDisk) -> Vec<u8> {
    let mut bytes = vec![0; disk.size_bytes() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_image_holds_the_disk_and_nothing_twice(
        size_bytes in 1..3_000_000_u64,
        places in prop::collection::vec(any::<u64>(), 0..20),
        ranges in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index)>(), 8),
        limit in 1..200_000_u64,
    ) {
        let disk = disk(size_bytes, &places);
        let image = image(disk.clone());
        let bytes = all(&image);
        prop_assert_eq!(bytes.len() as u64, image.map.image_bytes());
        prop_assert_eq!(guest_bytes(&bytes), content(&disk));
        for (start, end) in ranges {
            let (one, two) = (start.index(bytes.len()), end.index(bytes.len()));
            let range = one.min(two)..one.max(two);
            let part = read(&image, range.start as u64..range.end as u64, limit);
            prop_assert_eq!(&part, &bytes[range]);
        }
    }
}

#[test]
fn data_in_several_tables_is_found_in_each() {
    let size_bytes = 3 * TABLE_SPAN + 777;
    let disk = disk(
        size_bytes,
        &[5, TABLE_SPAN - 100, 2 * TABLE_SPAN + 70_000, size_bytes - 3],
    );
    let image = image(disk.clone());
    assert_eq!(image.map.tables.len(), 4);
    assert!(image.map.image_bytes() < 20 * CLUSTER_BYTES);
    let bytes = guest_bytes(&all(&image));
    assert!(bytes == content(&disk));
}

#[test]
fn a_disk_of_no_bytes_and_one_of_holes_are_images_too() {
    for size_bytes in [0, 1, 512, TABLE_SPAN, TABLE_SPAN + 1] {
        let disk = Arc::new(MemoryDisk::new(size_bytes));
        let bytes = guest_bytes(&all(&image(disk)));
        assert_eq!(bytes.len() as u64, size_bytes.next_multiple_of(512));
        assert!(bytes.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_disk_of_64_tib_takes_what_its_data_takes() {
    let size_bytes = 64 << 40;
    let disk = disk(size_bytes, &[0, 13 << 40, size_bytes - 4096]);
    let image = image(disk);
    assert_eq!(image.map.tables.len(), 3);
    // L1 has 16 clusters; the rest is header, refcounts, tables and data.
    assert_eq!(
        image.map.image_bytes(),
        (1 + 16 + 2 + 3 + 3) * CLUSTER_BYTES
    );
    let last = image.map.image_bytes() - CLUSTER_BYTES;
    let tail = read(&image, last..image.map.image_bytes(), u64::MAX);
    assert!(
        tail[..CLUSTER_BYTES as usize - 4096]
            .iter()
            .all(|byte| *byte == 0)
    );
    assert!(
        tail[CLUSTER_BYTES as usize - 4096..]
            .iter()
            .all(|byte| *byte != 0)
    );
}

#[test]
fn refcounts_count_themselves() {
    for data in [0, 1, 32_000, 32_768, 1 << 20, 1 << 28, 1 << 35] {
        let places = Places::new(data * CLUSTER_BYTES, data.div_ceil(TABLE_CLUSTERS), data);
        let blocks = places.l2 - places.refcount_blocks;
        let table = places.refcount_blocks - places.refcount_table;
        assert!(blocks * BLOCK_CLUSTERS >= places.end, "{data}");
        assert!((blocks - 1) * BLOCK_CLUSTERS < places.end, "{data}");
        assert_eq!(table, blocks.div_ceil(TABLE_CLUSTERS), "{data}");
    }
}
