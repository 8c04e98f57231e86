//! Disks go in, and the same disks come out.

use std::sync::Arc;

use cairn_repo::{MasterKey, Repository};
use cairn_testkit::MemoryDisk;
use cairn_types::disk::{DiskError, DiskReader, DiskWriter, Extent};
use cairn_types::{BackupId, Kind, Progress, ProjectId};

use crate::common::{BLOCK, World, job, kind, master, noise, text};

#[tokio::test]
async fn disks_of_any_size_come_back_as_they_were() {
    let world = World::new().await;
    for size in [
        0,
        1,
        512,
        BLOCK - 1,
        BLOCK,
        BLOCK + 1,
        3 * BLOCK + 512,
        40 * BLOCK + 7,
    ] {
        for bytes in [
            vec![0; size],
            noise(size as u64, size),
            text(size as u64, size),
        ] {
            let (backup, written) = world
                .write(&Arc::new(MemoryDisk::with(&bytes)))
                .await
                .unwrap();
            let (restored, report) = world.restore(backup).await.unwrap();
            assert!(
                restored == bytes,
                "a disk of {size} bytes came back as another"
            );
            assert_eq!(report.root, written.root);
            assert_eq!(
                (report.size_bytes, written.size_bytes),
                (size as u64, size as u64)
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_of_many_packs_comes_back_after_a_restart() {
    let world = World::new().await;
    let mut bytes = noise(1, 150 << 20);
    bytes[40 << 20..70 << 20].fill(0);
    let (backup, written) = world
        .write(&Arc::new(MemoryDisk::with(&bytes)))
        .await
        .unwrap();
    assert!(written.stored_bytes > 120 << 20);
    let (restored, _) = world.reopen().await.restore(backup).await.unwrap();
    assert!(restored == bytes);
}

#[tokio::test]
async fn an_empty_hole_of_16_tib_costs_nothing() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::new(16 << 40));
    let (empty, written) = world.write(&disk).await.unwrap();
    assert_eq!((written.data_bytes, written.new_bytes), (0, 0));
    disk.write((16 << 40) - 3, b"end");
    disk.write(9 << 40, b"middle");
    let (backup, written) = world.write(&disk).await.unwrap();
    assert!(written.stored_bytes < 100_000, "{written:?}");
    let target = Arc::new(MemoryDisk::new(16 << 40));
    target.write(5 << 40, b"to be cleared");
    let progress = Arc::new(Progress::default());
    let restored = world
        .project
        .restore_disk(backup, target.clone(), progress.clone())
        .await
        .unwrap();
    assert_eq!(restored.root, written.root);
    assert_eq!(progress.percent(), 100);
    let restored = world
        .project
        .restore_disk(empty, target, progress)
        .await
        .unwrap();
    assert_eq!(restored.data_bytes, 0);
}

#[tokio::test]
async fn what_is_stored_already_is_not_stored_again() {
    let world = World::new().await;
    let mut bytes = noise(2, 100 * BLOCK);
    let disk = Arc::new(MemoryDisk::with(&bytes));
    let (first, _) = world.write(&disk).await.unwrap();
    let (_, same) = world.write(&disk).await.unwrap();
    assert_eq!(same.new_bytes, 0);
    disk.write(5 * BLOCK as u64 + 100, b"changed");
    let (second, changed) = world.reopen().await.write(&disk).await.unwrap();
    assert!(changed.new_bytes < 2 * BLOCK as u64, "{changed:?}");
    assert_eq!(world.restore(first).await.unwrap().0, bytes);
    bytes[5 * BLOCK + 100..][..7].copy_from_slice(b"changed");
    assert_eq!(world.reopen().await.restore(second).await.unwrap().0, bytes);
}

#[tokio::test]
async fn a_group_names_its_disks() {
    let world = World::new().await;
    let (one, a) = world
        .write(&Arc::new(MemoryDisk::with(b"system")))
        .await
        .unwrap();
    let (two, b) = world
        .write(&Arc::new(MemoryDisk::with(b"data")))
        .await
        .unwrap();
    let info = world.info(2);
    let group = world
        .project
        .write_group(info.clone(), vec![one, two])
        .await
        .unwrap();
    assert_eq!(group.size_bytes, 10);
    let found = world.reopen().await.project.find(info.id).await.unwrap();
    assert_eq!(found.info, info);
    let children: Vec<_> = found.children.iter().map(|c| (c.backup, c.root)).collect();
    assert_eq!(children, [(one, a.root), (two, b.root)]);
    assert_eq!(kind(world.restore(info.id).await), Kind::Invalid);
    let strangers = world
        .project
        .write_group(world.info(3), vec![BackupId::random()])
        .await;
    assert_eq!(kind(strangers), Kind::NotFound);
}

#[tokio::test]
async fn backups_are_listed_found_and_deleted() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(b"bytes"));
    let (later, sooner) = (world.info(20), world.info(10));
    world
        .project
        .write_disk(job(later.clone(), &disk))
        .await
        .unwrap();
    let mut second = job(sooner.clone(), &disk);
    second.parent = Some(later.id);
    world.project.write_disk(second).await.unwrap();
    let again = world.project.write_disk(job(later.clone(), &disk)).await;
    assert_eq!(kind(again), Kind::Conflict);
    let listed = world.look().await.project.list().await.unwrap();
    assert_eq!(
        listed.iter().map(|l| &l.info).collect::<Vec<_>>(),
        [&sooner, &later]
    );
    assert_eq!(listed[0].parent, Some(later.id));
    for _ in 0..2 {
        world.project.delete(later.id).await.unwrap();
    }
    assert_eq!(kind(world.project.find(later.id).await), Kind::NotFound);
    assert_eq!(world.project.list().await.unwrap().len(), 1);
    assert_eq!(world.restore(sooner.id).await.unwrap().0, b"bytes");
}

#[tokio::test]
async fn an_unreadable_or_changing_disk_is_no_backup() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(4, 30 * BLOCK)));
    let (before, _) = world.write(&disk).await.unwrap();
    disk.watch();
    disk.write(0, b"meanwhile");
    world
        .write(&disk)
        .await
        .expect_err("the disk was written to");
    disk.fail_reads_at(20 * BLOCK as u64);
    assert_eq!(kind(world.write(&disk).await), Kind::Corrupt);
    let listed = world.project.list().await.unwrap();
    assert_eq!(
        listed.iter().map(|l| l.info.id).collect::<Vec<_>>(),
        [before]
    );
}

#[tokio::test]
async fn a_cancelled_backup_or_restore_ends_as_cancelled() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(5, 30 * BLOCK)));
    let cancelled = job(world.info(1), &disk);
    cancelled.progress.cancel();
    let progress = cancelled.progress.clone();
    assert_eq!(
        kind(world.project.write_disk(cancelled).await),
        Kind::Cancelled
    );
    let (backup, _) = world.write(&disk).await.unwrap();
    let restored = world.project.restore_disk(backup, disk, progress).await;
    assert_eq!(kind(restored), Kind::Cancelled);
}

/// A disk whose writes arrive changed, as behind a bad cable.
struct Liar(MemoryDisk);

impl DiskReader for Liar {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }
    fn extent_at(&self, at: u64) -> Result<Extent, DiskError> {
        self.0.extent_at(at)
    }
    fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.0.read_at(at, buffer)
    }
    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

impl DiskWriter for Liar {
    fn write_at(&self, at: u64, data: &[u8]) -> Result<(), DiskError> {
        let mut data = data.to_vec();
        data[0] ^= 1;
        self.0.write_at(at, &data)
    }
    fn write_zeroes(&self, at: u64, length: u64) -> Result<(), DiskError> {
        self.0.write_zeroes(at, length)
    }
    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_disk_that_reads_back_as_something_else_is_an_error() {
    let world = World::new().await;
    let (backup, _) = world
        .write(&Arc::new(MemoryDisk::with(b"bytes")))
        .await
        .unwrap();
    let progress = Arc::new(Progress::default());
    let target = Arc::new(Liar(MemoryDisk::new(5)));
    let project = &world.project;
    let restored = project.restore_disk(backup, target.clone(), progress.clone());
    restored.await.unwrap();
    let compared = project.compare_disk(backup, target, progress.clone());
    assert_eq!(kind(compared.await), Kind::Corrupt);
    let small = Arc::new(MemoryDisk::new(4));
    let restored = world
        .project
        .restore_disk(backup, small, progress.clone())
        .await;
    assert_eq!(kind(restored), Kind::Invalid);
    let large = Arc::new(MemoryDisk::with(b"123456789"));
    world
        .project
        .restore_disk(backup, large.clone(), progress)
        .await
        .unwrap();
    assert_eq!(large.bytes(), b"bytes6789");
}

#[tokio::test]
async fn a_repository_opens_with_its_own_key_only() {
    let world = World::new().await;
    let denied = Repository::open(world.store.clone(), &MasterKey::generate()).await;
    assert_eq!(kind(denied.map(|_| ())), Kind::Denied);
    let exists = Repository::create(world.store.clone(), &master()).await;
    assert_eq!(kind(exists.map(|_| ())), Kind::Conflict);
    let empty = Arc::new(object_store::memory::InMemory::new());
    assert_eq!(
        kind(Repository::open(empty, &master()).await.map(|_| ())),
        Kind::NotFound
    );
    let repository = Repository::open(world.store.clone(), &master())
        .await
        .unwrap();
    let stranger = repository.existing_project(ProjectId::random()).await;
    assert_eq!(kind(stranger.map(|_| ())), Kind::NotFound);
    assert_eq!(repository.projects().await.unwrap(), [world.project_id]);
    repository.existing_project(world.project_id).await.unwrap();
}

#[tokio::test]
async fn projects_share_nothing() {
    let world = World::new().await;
    let other = world.neighbour().await;
    let disk = Arc::new(MemoryDisk::with(&noise(6, 10 * BLOCK)));
    let (backup, first) = world.write(&disk).await.unwrap();
    let (_, second) = other.write(&disk).await.unwrap();
    assert_eq!(first.new_bytes, second.new_bytes);
    assert_ne!(first.root, second.root);
    assert_eq!(kind(other.project.find(backup).await), Kind::NotFound);
}
