//! A disk at the other end of a line: only what is not stored comes over, also
//! when the work is cut off and begun again.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use cairn_repo::{PackId, Project, WriteDisk, Written, block_id};
use cairn_testkit::MemoryDisk;
use cairn_types::disk::{
    BLOCKS_MAX, BlockId, DiskError, DiskOperation, DiskReader, DistantDisk, Extent, IDS_MAX,
    NoChangeMap, Point,
};
use cairn_types::{BackupId, BackupInfo, Progress};

use crate::common::{BLOCK, World, noise};

const MIB: u64 = 1 << 20;

/// A disk whose blocks come over one by one, and are counted.
struct Line {
    disk: Arc<dyn DiskReader>,
    key: [u8; 32],
    ids: AtomicU64,
    bytes: AtomicU64,
    /// The line is cut once so many bytes have come.
    cut_at: u64,
}

impl Line {
    fn new(disk: Arc<dyn DiskReader>, to: &Project) -> Arc<Self> {
        Self::cut(disk, to, u64::MAX)
    }

    fn cut(disk: Arc<dyn DiskReader>, to: &Project, cut_at: u64) -> Arc<Self> {
        Arc::new(Self {
            disk,
            key: *to.block_key(),
            ids: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            cut_at,
        })
    }

    fn came(&self) -> (u64, u64) {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (load(&self.ids), load(&self.bytes))
    }

    fn plain(&self, block: u64) -> Result<Vec<u8>, DiskError> {
        let (start, length) = (block * BLOCK as u64, BLOCK as u64);
        let length = length.min(self.disk.size_bytes() - start);
        let mut plain = vec![0; length as usize];
        self.disk.read_at(start, &mut plain)?;
        Ok(plain)
    }
}

impl DiskReader for Line {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        self.disk.extent_at(offset)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.disk.read_at(offset, buffer)
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn point(&self) -> Option<Point> {
        self.disk.point()
    }

    fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        self.disk.changes_since(earlier)
    }

    fn distant(&self) -> Option<&dyn DistantDisk> {
        Some(self)
    }
}

impl DistantDisk for Line {
    fn block_ids(&self, blocks: &[u64]) -> Result<Vec<BlockId>, DiskError> {
        assert!(blocks.len() <= IDS_MAX);
        self.ids.fetch_add(blocks.len() as u64, Ordering::Relaxed);
        let id = |block: &u64| Ok(block_id(&self.key, &self.plain(*block)?).0);
        blocks.iter().map(id).collect()
    }

    fn read_blocks(&self, blocks: &[u64]) -> Result<Vec<Vec<u8>>, DiskError> {
        assert!(blocks.len() <= BLOCKS_MAX);
        if self.came().1 >= self.cut_at {
            return Err(DiskError {
                disk: "the line".to_owned(),
                operation: DiskOperation::Read,
                offset: 0,
                length: 0,
                source: io::ErrorKind::ConnectionReset.into(),
            });
        }
        let plain: Result<Vec<_>, _> = blocks.iter().map(|block| self.plain(*block)).collect();
        let plain = plain?;
        let bytes: usize = plain.iter().map(Vec::len).sum();
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        Ok(plain)
    }
}

fn job(info: BackupInfo, reader: Arc<Line>, parent: Option<BackupId>) -> WriteDisk {
    WriteDisk {
        info,
        parent,
        reader,
        progress: Arc::new(Progress::default()),
        reread_all: false,
    }
}

/// Copies a backup over a line; the copy, and what came over.
async fn copy(
    from: &World,
    backup: BackupId,
    to: &World,
    (info, parent): (BackupInfo, Option<BackupId>),
) -> (Written, (u64, u64)) {
    let disk = from.project.open_disk(backup).await.unwrap();
    let line = Line::new(disk, &to.project);
    let written = to.project.write_disk(job(info, line.clone(), parent)).await;
    (written.unwrap(), line.came())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_is_not_stored_comes_over() {
    let (here, there) = (World::new().await, World::new().await);
    let mut bytes = noise(1, 700 * BLOCK + 99);
    bytes[3 * BLOCK..90 * BLOCK].fill(0);
    bytes[400 * BLOCK..410 * BLOCK].fill(0);
    let disk = Arc::new(MemoryDisk::with(&bytes));
    let (first, _) = here.write(&disk).await.unwrap();
    let resource = there.info(1).resource;
    let info = |seconds| BackupInfo {
        resource,
        ..there.info(seconds)
    };
    let copy_one = info(1);
    let (written, (ids, came)) = copy(&here, first, &there, (copy_one.clone(), None)).await;
    assert_eq!((written.new_bytes > came, came), (true, written.data_bytes));
    assert_eq!(ids, 700 + 1 - 87 - 10);
    assert!(there.restore(copy_one.id).await.unwrap().0 == bytes);

    // The same again: the trees say that nothing has changed, and a few ids make sure.
    let (again, _) = here.write(&disk).await.unwrap();
    let copy_two = info(2);
    let parent = Some(copy_one.id);
    let (written, (ids, came)) = copy(&here, again, &there, (copy_two.clone(), parent)).await;
    assert_eq!((written.by_change_map, came), (Ok(()), 0));
    assert!(ids <= 8, "{ids}");

    // Another block, and one that has come to be zero; and the disk is another's base too.
    disk.write(500 * BLOCK as u64 + 7, &noise(9, 10));
    disk.write(20 * BLOCK as u64, &vec![0; BLOCK]);
    disk.write(600 * BLOCK as u64, &vec![0; BLOCK]);
    let (third, _) = here.write(&disk).await.unwrap();
    let copy_three = info(3);
    let parent = Some(copy_two.id);
    let (written, (ids, came)) = copy(&here, third, &there, (copy_three.clone(), parent)).await;
    assert_eq!((written.by_change_map, came), (Ok(()), BLOCK as u64));
    assert!(ids <= 10, "{ids}");
    assert!(there.restore(copy_three.id).await.unwrap().0 == disk.bytes());

    // Without the earlier backup at the source, ids are compared.
    here.project.delete(third).await.unwrap();
    disk.write(1, b"other");
    let (fourth, _) = here.write(&disk).await.unwrap();
    let copy_four = info(4);
    let parent = Some(copy_three.id);
    let (written, (ids, came)) = copy(&here, fourth, &there, (copy_four.clone(), parent)).await;
    assert!(written.by_change_map.is_err());
    assert_eq!((ids > 500, came), (true, BLOCK as u64));
    assert!(there.restore(copy_four.id).await.unwrap().0 == disk.bytes());
    there.must_be_whole("after four copies").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_is_not_its_ids_is_not_taken() {
    let (here, there) = (World::new().await, World::new().await);
    let disk = Arc::new(MemoryDisk::with(&noise(1, 30 * BLOCK)));
    let (backup, _) = here.write(&disk).await.unwrap();
    let stored = here.project.open_disk(backup).await.unwrap();
    // Ids of another project's key: as if others' blocks came.
    let line = Line::new(stored, &here.project);
    let written = there.project.write_disk(job(there.info(1), line, None));
    assert!(written.await.is_err());
    assert!(there.project.list().await.unwrap().is_empty());
}

/// The bytes that a second attempt fetches of a disk, where the first was cut off after
/// most of it, the process ended, and a collection went over what was left.
async fn fetched_again(held: bool) -> (u64, u64) {
    let there = World::new().await;
    let size = 200 * MIB;
    let disk = Arc::new(MemoryDisk::with(&noise(5, size as usize)));
    let info = there.info(1);
    let packs: Arc<Mutex<Vec<PackId>>> = Arc::default();
    let note = packs.clone();
    let project = there.project.telling_of_packs(Arc::new(move |pack| {
        note.lock().unwrap().push(pack);
    }));
    let line = Line::cut(disk.clone(), &project, 150 * MIB);
    let cut = project.write_disk(job(info.clone(), line.clone(), None));
    assert!(cut.await.is_err());
    let first = line.came().1;

    let there = there.reopen().await;
    let kept = match held {
        true => packs.lock().unwrap().clone(),
        false => Vec::new(),
    };
    let collected = there.project.collect_beside(&[], &kept, Arc::default());
    collected.await.unwrap();
    let line = Line::new(disk.clone(), &there.project);
    let again = there
        .project
        .write_disk(job(info.clone(), line.clone(), None));
    again.await.unwrap();
    let restored = there.restore(info.id).await.unwrap().0;
    assert!(restored == disk.bytes());
    (first, first + line.came().1 - size)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_most_64_mib_come_over_again() {
    let (first, again) = fetched_again(true).await;
    assert!(first >= 150 * MIB, "{first}");
    assert!(again <= 64 * MIB, "{again} bytes came twice");
    // Without a word to the collection all of it does.
    let (first, again) = fetched_again(false).await;
    assert_eq!(first, again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_trees_tell_exactly_what_differs() {
    let world = World::new().await;
    let sizes = [1, 300, 256 * 256 + 40].map(|blocks| (blocks * BLOCK) as u64 + 9);
    let mut backups = BTreeMap::new();
    for size in sizes {
        for seed in 0..4_u64 {
            let disk = Arc::new(MemoryDisk::new(size));
            for write in 0..seed * 3 {
                let at = noise(seed * 100 + write, 8).try_into().unwrap();
                let at = u64::from_le_bytes(at) % size;
                let length = (size - at).min(70_000) as usize;
                disk.write(at, &noise(write, length));
            }
            let (backup, _) = world.write(&disk).await.unwrap();
            backups.insert(backup, disk);
        }
    }
    for (one, before) in &backups {
        let point = world
            .project
            .open_disk(*one)
            .await
            .unwrap()
            .point()
            .unwrap();
        for (two, now) in &backups {
            let stored = world.project.open_disk(*two).await.unwrap();
            let point = point.clone();
            let told = tokio::task::spawn_blocking(move || stored.changes_since(&point));
            let told = told.await.unwrap().unwrap();
            assert!(told.is_sorted_by(|a, b| a.end <= b.start), "{told:?}");
            let covered = |block: u64| {
                let start = block * BLOCK as u64;
                told.iter().any(|range| range.contains(&start))
            };
            let blocks = now.size_bytes().div_ceil(BLOCK as u64);
            let read = |disk: &MemoryDisk, block: u64| {
                let start = block * BLOCK as u64;
                let length = disk.size_bytes().saturating_sub(start).min(BLOCK as u64);
                let mut plain = vec![0; length as usize];
                if length > 0 {
                    disk.read_at(start, &mut plain).unwrap();
                }
                plain
            };
            for block in (0..blocks).filter(|block| !covered(*block)) {
                let (then, now) = (read(before, block), read(now, block));
                let both = then.len().min(now.len());
                assert!(then[..both] == now[..both], "block {block}");
            }
            assert!(one != two || told.is_empty());
        }
    }
}
