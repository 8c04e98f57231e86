//! A stored disk read at any place, and copied into another project.

use std::sync::Arc;

use cairn_repo::{Project, WriteDisk};
use cairn_testkit::{MemoryDisk, backup_info};
use cairn_types::disk::{DiskError, DiskReader};
use cairn_types::{BackupId, Kind, Progress, ProjectId};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;

use crate::common::{BLOCK, World, job, kind, noise};

/// Two nodes of level 1 and a part, with holes of every sort and a short last block.
fn disk() -> Vec<u8> {
    let mut bytes = noise(3, 600 * BLOCK + 77);
    bytes[..2 * BLOCK].fill(0);
    bytes[10 * BLOCK + 5..20 * BLOCK].fill(0);
    bytes[250 * BLOCK..520 * BLOCK].fill(0);
    bytes
}

/// Asks a disk something where it may block.
async fn on<T: Send + 'static>(
    disk: &Arc<dyn DiskReader>,
    ask: impl FnOnce(&dyn DiskReader) -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    let disk = Arc::clone(disk);
    tokio::task::spawn_blocking(move || ask(&*disk))
        .await
        .unwrap()
}

#[tokio::test]
async fn any_part_reads_as_it_was_saved() {
    let world = World::new().await;
    let bytes = disk();
    let (backup, _) = world
        .write(&Arc::new(MemoryDisk::with(&bytes)))
        .await
        .unwrap();
    let stored = world
        .reopen()
        .await
        .project
        .open_disk(backup)
        .await
        .unwrap();
    assert_eq!(stored.size_bytes(), bytes.len() as u64);
    let end = bytes.len();
    let ranges = [
        (0, 1),
        (BLOCK - 3, 6),
        (2 * BLOCK - 1, 2),
        (10 * BLOCK, 11 * BLOCK),
        (249 * BLOCK + 9, 3 * BLOCK),
        (300 * BLOCK, 7),
        (255 * BLOCK, 300 * BLOCK),
        (end - 80, 80),
        (end, 0),
        (0, end),
    ];
    for (start, length) in ranges {
        let read = on(&stored, move |disk| {
            let mut buffer = vec![0xee; length];
            disk.read_at(start as u64, &mut buffer)?;
            Ok(buffer)
        });
        let read = read.await.unwrap();
        assert!(
            read == bytes[start..start + length],
            "{length} bytes at {start}"
        );
    }
    let beyond = on(&stored, move |disk| {
        disk.read_at(end as u64 - 1, &mut [0; 2])
    });
    assert!(beyond.await.is_err());
}

#[tokio::test]
async fn holes_stay_holes() {
    let world = World::new().await;
    let bytes = disk();
    let (backup, _) = world
        .write(&Arc::new(MemoryDisk::with(&bytes)))
        .await
        .unwrap();
    let stored = world.project.open_disk(backup).await.unwrap();
    let runs = on(&stored, |disk| {
        let (mut at, mut runs) = (0, Vec::new());
        while at < disk.size_bytes() {
            let extent = disk.extent_at(at)?;
            assert_eq!(extent.offset, at);
            at = extent.end();
            match runs.last_mut() {
                Some((data, end)) if *data == extent.data => *end = at,
                _ => runs.push((extent.data, at)),
            }
        }
        Ok(runs)
    });
    let block = BLOCK as u64;
    let expected = [
        (false, 2 * block),
        (true, 11 * block),
        (false, 20 * block),
        (true, 250 * block),
        (false, 520 * block),
        (true, bytes.len() as u64),
    ];
    assert_eq!(runs.await.unwrap(), expected);
    // Inside a hole the run begins where it was asked for.
    let inside = on(&stored, move |disk| disk.extent_at(300 * block + 5))
        .await
        .unwrap();
    assert_eq!((inside.offset, inside.data), (300 * block + 5, false));
}

/// Copies a backup into another project; the copy's id.
async fn copy(from: &Project, backup: BackupId, to: (&Project, ProjectId)) -> BackupId {
    let info = backup_info(to.1, 5);
    let id = info.id;
    let job = WriteDisk {
        info,
        parent: None,
        reader: from.open_disk(backup).await.unwrap(),
        progress: Arc::new(Progress::default()),
        reread_all: false,
    };
    to.0.write_disk(job).await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_another_project_stands_alone() {
    let world = World::new().await;
    let other = world.neighbour().await;
    for size in [0, 1, BLOCK, disk().len()] {
        let bytes = disk()[..size].to_vec();
        let (backup, written) = world
            .write(&Arc::new(MemoryDisk::with(&bytes)))
            .await
            .unwrap();
        let copied = copy(&world.project, backup, (&other.project, other.project_id)).await;
        world.project.delete(backup).await.unwrap();
        world
            .project
            .collect(&[], Arc::new(Progress::default()))
            .await
            .unwrap();
        let (restored, report) = other.look().await.restore(copied).await.unwrap();
        assert!(restored == bytes, "a disk of {size} bytes");
        // Each project's keys give the same bytes another name.
        assert!(size == 0 || report.root != written.root);
    }
}

#[tokio::test]
async fn an_open_disk_outlives_its_backup_and_keeps_what_it_needs() {
    let world = World::new().await;
    let bytes = disk();
    let (backup, _) = world
        .write(&Arc::new(MemoryDisk::with(&bytes)))
        .await
        .unwrap();
    let stored = world.project.open_disk(backup).await.unwrap();
    world.project.delete(backup).await.unwrap();
    let collect = async || {
        let progress = Arc::new(Progress::default());
        world.project.collect(&[], progress).await.unwrap()
    };
    assert_eq!(collect().await.packs_removed, 0);
    let end = bytes.len();
    let read = on(&stored, move |disk| {
        let mut buffer = vec![0; end];
        disk.read_at(0, &mut buffer)?;
        Ok(buffer)
    });
    assert!(read.await.unwrap() == bytes);
    drop(stored);
    assert_eq!(collect().await.stored_bytes, 0);
    let gone = world.project.open_disk(backup).await;
    assert_eq!(gone.err().unwrap().kind(), Kind::NotFound);
}

#[tokio::test]
async fn a_damaged_backup_is_not_copied() {
    let world = World::new().await;
    let bytes = noise(9, 40 * BLOCK);
    let (backup, _) = world
        .write(&Arc::new(MemoryDisk::with(&bytes)))
        .await
        .unwrap();
    let packs: Vec<_> = world.store.list(None).try_collect().await.unwrap();
    let pack = packs
        .iter()
        .find(|found| found.location.to_string().contains("/packs/"))
        .unwrap();
    let object = world.store.get(&pack.location).await.unwrap();
    let mut object = object.bytes().await.unwrap().to_vec();
    let middle = object.len() / 2;
    object[middle] ^= 1;
    world
        .store
        .put(&pack.location, object.into())
        .await
        .unwrap();

    let again = world.reopen().await;
    let other = again.neighbour().await;
    let mut job = job(other.info(5), &Arc::new(MemoryDisk::new(0)));
    let copied = job.info.id;
    job.reader = again.project.open_disk(backup).await.unwrap();
    assert_eq!(kind(other.project.write_disk(job).await), Kind::Corrupt);
    assert_eq!(kind(other.project.find(copied).await), Kind::NotFound);
}

#[tokio::test]
async fn a_group_is_no_disk() {
    let world = World::new().await;
    let (disk, _) = world.write(&Arc::new(MemoryDisk::new(9))).await.unwrap();
    let info = world.info(2);
    let group = info.id;
    world.project.write_group(info, vec![disk]).await.unwrap();
    let opened = world.project.open_disk(group).await;
    assert_eq!(opened.err().unwrap().kind(), Kind::Invalid);
}

/// What is lent is one backup with its disks: whoever has it opens nothing else,
/// neither another backup nor another server's disk.
#[tokio::test]
async fn an_open_backup_opens_itself_and_its_disks_and_nothing_else() {
    let world = World::new().await;
    let bytes = disk();
    let source = Arc::new(MemoryDisk::with(&bytes));
    let mut disks = Vec::new();
    for _ in 0..4 {
        disks.push(world.write(&source).await.unwrap().0);
    }
    let mut groups = Vec::new();
    for pair in disks.chunks(2) {
        let info = world.info(2);
        groups.push(info.id);
        let written = world.project.write_group(info, pair.to_vec()).await;
        written.unwrap();
    }
    let opened = world.project.open_backup(groups[0]).await.unwrap();
    assert_eq!(opened.listed().info.id, groups[0]);
    let target = || Arc::new(MemoryDisk::with(&vec![0xee; bytes.len()]));
    for disk in &disks[..2] {
        assert_eq!(opened.find(*disk).await.unwrap().info.id, *disk);
        opened.open_disk(*disk).await.unwrap();
        let target = target();
        let restored = opened.restore_disk(*disk, target.clone(), Arc::default());
        restored.await.unwrap();
        assert!(target.bytes() == bytes);
        let compared = opened.compare_disk(*disk, target, Arc::default());
        compared.await.unwrap();
    }
    let alone = world.project.open_backup(disks[0]).await.unwrap();
    for (opened, other) in [
        (&opened, disks[2]),
        (&opened, groups[1]),
        (&opened, BackupId::random()),
        (&alone, disks[1]),
        (&alone, groups[0]),
    ] {
        assert_eq!(kind(opened.find(other).await), Kind::NotFound);
        assert_eq!(
            kind(opened.open_disk(other).await.map(drop)),
            Kind::NotFound
        );
        let target = target();
        let restored = opened.restore_disk(other, target.clone(), Arc::default());
        assert_eq!(kind(restored.await), Kind::NotFound);
        let compared = opened.compare_disk(other, target.clone(), Arc::default());
        assert_eq!(kind(compared.await), Kind::NotFound);
        assert!(
            target.bytes().iter().all(|byte| *byte == 0xee),
            "nothing was written"
        );
    }
    // Another backup in a disk's place is not the server's disk.
    world.project.delete(disks[0]).await.unwrap();
    let mut info = world.info(3);
    info.id = disks[0];
    let other = Arc::new(MemoryDisk::with(&noise(9, BLOCK)));
    world.project.write_disk(job(info, &other)).await.unwrap();
    let opened = world.project.open_backup(groups[0]).await.unwrap();
    assert_eq!(
        kind(opened.open_disk(disks[0]).await.map(drop)),
        Kind::Corrupt
    );
    // A backup that is gone is gone for whoever has it open.
    world.project.delete(disks[1]).await.unwrap();
    assert_eq!(kind(opened.find(disks[1]).await), Kind::NotFound);
}
