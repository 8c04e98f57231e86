//! How much a restore reads for what it needs, and that it stays little.

use std::collections::HashSet;
use std::sync::Arc;

use cairn_repo::{Collected, Restored};
use cairn_testkit::MemoryDisk;
use cairn_types::{BackupId, ResourceId};

use crate::common::{BLOCK, World, job, noise};

#[tokio::test]
async fn a_restore_says_what_it_read() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(21, 200 * BLOCK)));
    let (first, _) = world.write(&disk).await.unwrap();
    let (_, all) = world.restore(first).await.unwrap();
    let (data, plain) = (200 * BLOCK as u64, 1 << 20);
    assert_eq!(all.data_bytes, data);
    assert!((data..data + plain).contains(&all.opened_bytes), "{all:?}");
    assert!((data..data + plain).contains(&all.read_bytes), "{all:?}");
    assert!((4..40).contains(&all.requests), "{all:?}");
    // Of another disk a few blocks are in frames full of what it does not need.
    let few = Arc::new(MemoryDisk::with(&disk.bytes()[..3 * BLOCK]));
    let (second, _) = world.write(&few).await.unwrap();
    let (_, some) = world.restore(second).await.unwrap();
    assert_eq!(some.data_bytes, 3 * BLOCK as u64);
    assert!(some.opened_bytes > 10 * some.data_bytes, "{some:?}");
}

/// A disk that is backed up, changed and collected again and again.
struct Aging {
    world: World,
    disk: Arc<MemoryDisk>,
    resource: ResourceId,
    backups: Vec<BackupId>,
    /// Every block that any backup has.
    blocks: HashSet<Vec<u8>>,
}

impl Aging {
    async fn new(blocks: usize) -> Self {
        let world = World::new().await;
        let mut aging = Self {
            resource: world.info(1).resource,
            world,
            disk: Arc::new(MemoryDisk::with(&noise(31, blocks * BLOCK))),
            backups: Vec::new(),
            blocks: HashSet::new(),
        };
        aging.back_up().await;
        aging
    }

    async fn back_up(&mut self) {
        let mut info = self.world.info(self.backups.len() as i64);
        info.resource = self.resource;
        self.backups.push(info.id);
        let written = self.world.project.write_disk(job(info, &self.disk)).await;
        written.unwrap();
        let bytes = self.disk.bytes();
        let blocks = bytes.chunks(BLOCK).map(|block| block[..16].to_vec());
        self.blocks.extend(blocks);
    }

    /// Changes some blocks here and there, backs up and collects.
    async fn live_a_day(&mut self, blocks: usize, changes: u64) -> Collected {
        let day = self.backups.len() as u64;
        for n in 0..changes {
            let block = (day * 7919 + n * 104_729) % blocks as u64;
            let content = noise(1_000 + day * 100 + n, BLOCK);
            self.disk.write(block * BLOCK as u64, &content);
        }
        self.back_up().await;
        let collected = self.world.project.collect(&[], Arc::default()).await;
        collected.unwrap()
    }

    async fn restore_newest(&self) -> Restored {
        let newest = *self.backups.last().unwrap();
        let (bytes, restored) = self.world.restore(newest).await.unwrap();
        assert!(bytes == self.disk.bytes(), "the disk came back as another");
        restored
    }
}

#[tokio::test]
async fn after_a_hundred_incrementals_a_restore_opens_little_for_nothing() {
    let blocks = 800;
    let mut aging = Aging::new(blocks).await;
    let mut stored = 0;
    for day in 1..=100 {
        stored = aging.live_a_day(blocks, 16).await.stored_bytes;
        if day % 20 == 0 {
            let restored = aging.restore_newest().await;
            let limit = restored.data_bytes * 3 / 2;
            assert!(restored.opened_bytes < limit, "day {day}: {restored:?}");
        }
    }
    // However often a chunk was moved, it lies in one place.
    let unique = (aging.blocks.len() * BLOCK) as u64;
    assert!(stored < unique * 4 / 3, "{stored} bytes for {unique}");
    // All is in order, so nothing more is copied.
    let again = aging.world.project.collect(&[], Arc::default()).await;
    assert_eq!(again.unwrap().packs_rewritten, 0);
    let world = aging.world.reopen().await;
    world.must_be_whole("after a hundred days").await;
    let (oldest, _) = world.restore(aging.backups[0]).await.unwrap();
    assert!(
        oldest == noise(31, blocks * BLOCK),
        "the first day came back as another"
    );
}

#[tokio::test]
async fn a_chunk_of_many_disks_stays_one_when_it_moves() {
    let blocks = 400;
    let mut aging = Aging::new(blocks).await;
    // The twin keeps what the first disk loses, and both are newest backups.
    let twin = Arc::new(MemoryDisk::with(&aging.disk.bytes()));
    let (twin_backup, _) = aging.world.write(&twin).await.unwrap();
    let mut stored = 0;
    for _ in 0..20 {
        stored = aging.live_a_day(blocks, 20).await.stored_bytes;
    }
    let unique = (aging.blocks.len() * BLOCK) as u64;
    assert!(stored < unique * 4 / 3, "{stored} bytes for {unique}");
    let (bytes, restored) = aging.world.restore(twin_backup).await.unwrap();
    assert!(bytes == twin.bytes(), "the twin came back as another");
    assert!(
        restored.opened_bytes < restored.data_bytes * 3 / 2,
        "{restored:?}"
    );
    aging.restore_newest().await;
}
