//! Sessions that work on one project at the same time.

use std::sync::Arc;

use cairn_repo::{VerifyLevel, WriteDisk};
use cairn_testkit::{Ending, GatedDisk, MemoryDisk};
use cairn_types::{BackupInfo, Kind, Progress};

use crate::common::{BLOCK, World, job, kind, noise};

/// A backup of a disk with a gate.
fn gated_job(info: BackupInfo, disk: &Arc<GatedDisk>) -> WriteDisk {
    let progress = Arc::new(Progress::default());
    WriteDisk {
        info,
        parent: None,
        reader: disk.clone(),
        progress,
        reread_all: false,
    }
}

/// A disk of these bytes that stops its reader at the last block.
fn gated(bytes: &[u8]) -> Arc<GatedDisk> {
    Arc::new(GatedDisk::new(
        MemoryDisk::with(bytes),
        bytes.len() as u64 - 1,
    ))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_writers_of_the_same_disk_store_it_once() {
    let world = World::new().await;
    let bytes = noise(3, 400 * BLOCK);
    let (one, two) = (
        Arc::new(MemoryDisk::with(&bytes)),
        Arc::new(MemoryDisk::with(&bytes)),
    );
    let (one, two) = tokio::join!(world.write(&one), world.write(&two));
    let ((first, one), (second, two)) = (one.unwrap(), two.unwrap());
    let blocks = bytes.len() as u64;
    let new = one.new_bytes + two.new_bytes;
    assert!(
        (blocks..blocks + blocks / 20).contains(&new),
        "{new} of {blocks}"
    );
    let world = world.reopen().await;
    for backup in [first, second] {
        assert!(world.restore(backup).await.unwrap().0 == bytes);
    }
}

/// One session holds claims on all blocks of a disk when another saves the
/// same disk; then the first ends.
async fn second_waits_for_first(ending: Ending) {
    let world = World::new().await;
    let bytes = noise(8, 120 * BLOCK);
    let (slow, disk) = (gated(&bytes), Arc::new(MemoryDisk::with(&bytes)));
    let (first, second) = (world.info(1), world.info(2));
    let (first_id, second_id) = (first.id, second.id);
    let one = world.project.write_disk(gated_job(first, &slow));
    let job = job(second, &disk);
    let progress = job.progress.clone();
    let two = async {
        slow.reached().await;
        world.project.write_disk(job).await
    };
    let release = async {
        // The second has read everything, and can do no more than wait.
        while progress.total() == 0 || progress.done() < progress.total() {
            tokio::task::yield_now().await;
        }
        slow.end(ending);
    };
    let (one, two, ()) = tokio::join!(one, two, release);
    let two = two.unwrap();
    let world = world.reopen().await;
    assert!(world.restore(second_id).await.unwrap().0 == bytes);
    match ending {
        Ending::Reads => {
            one.unwrap();
            assert!(world.restore(first_id).await.unwrap().0 == bytes);
            assert!(two.new_bytes < 40 * BLOCK as u64, "{two:?}");
            assert_eq!(
                disk.read_bytes(),
                bytes.len() as u64,
                "nothing is read twice"
            );
        }
        Ending::Fails => {
            assert_eq!(kind(one), Kind::Corrupt);
            assert!(two.new_bytes >= 120 * BLOCK as u64, "{two:?}");
            assert_eq!(kind(world.project.find(first_id).await), Kind::NotFound);
        }
    }
    let progress = Arc::new(Progress::default());
    assert!(
        world
            .project
            .verify(VerifyLevel::Full, progress)
            .await
            .unwrap()
            .is_clean()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_relies_on_what_another_has_stored() {
    second_waits_for_first(Ending::Reads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_stores_what_another_gave_up() {
    second_waits_for_first(Ending::Fails).await;
}

#[tokio::test]
async fn a_caller_who_goes_away_stops_the_work_and_a_collection_finds_what_it_left() {
    let world = World::new().await;
    let disk = gated(&noise(7, 1200 * BLOCK));
    let info = world.info(1);
    let id = info.id;
    tokio::select! {
        biased;
        _ = world.project.write_disk(gated_job(info, &disk)) => panic!("the disk cannot be read yet"),
        () = disk.reached() => {}
    }
    let collect = async || {
        let progress = Arc::new(Progress::default());
        world.project.collect(&[], progress).await.unwrap()
    };
    // A thread still works for the backup.
    collect().await;
    disk.end(Ending::Reads);
    while collect().await.stored_bytes > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(kind(world.project.find(id).await), Kind::NotFound);
}

#[tokio::test]
async fn a_backup_is_written_by_one_session_and_not_deleted_meanwhile() {
    let world = World::new().await;
    let disk = gated(&noise(9, 3 * BLOCK));
    let info = world.info(1);
    let write = world.project.write_disk(gated_job(info.clone(), &disk));
    let others = async {
        disk.reached().await;
        let again = world
            .project
            .write_disk(gated_job(info.clone(), &disk))
            .await;
        assert_eq!(kind(again), Kind::Conflict);
        assert_eq!(kind(world.project.delete(info.id).await), Kind::Conflict);
        assert_eq!(kind(world.project.find(info.id).await), Kind::NotFound);
        disk.end(Ending::Reads);
    };
    let (written, ()) = tokio::join!(write, others);
    written.unwrap();
    world.project.find(info.id).await.unwrap();
}
