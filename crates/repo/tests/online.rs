//! Collection beside everything else, held up at each of its calls to the store
//! while others work; and the bugs of other products that belong here.

use std::sync::Arc;

use cairn_repo::{Collected, Result, WriteDisk};
use cairn_testkit::{Ending, Fault, FaultyStore, GatedDisk, MappedDisk, MemoryDisk, PausedStore};
use cairn_types::{BackupId, Kind, Progress};
use futures::TryStreamExt;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{BLOCK, World, job, kind, noise};

/// Blocks of the disks here: three frames' worth, and a part of a fourth.
const BLOCKS: usize = 50;
/// So many small packs are written together, or more.
const SMALL_PACKS: u64 = 40;

async fn collect(world: &World) -> Collected {
    world.project.collect(&[], Arc::default()).await.unwrap()
}

fn collecting(world: &World) -> BoxFuture<'static, Result<Collected>> {
    let project = world.project.clone();
    Box::pin(async move { project.collect(&[], Arc::default()).await })
}

/// A project whose store can be held up, with a disk that is saved, and much
/// that is dead: so a collection has packs to drop and packs to write anew.
struct Scene {
    store: PausedStore,
    world: World,
    disk: Arc<MemoryDisk>,
    saved: BackupId,
}

impl Scene {
    async fn new() -> Self {
        let store = PausedStore::new(Arc::new(InMemory::new()));
        let world = World::on(Arc::new(store.clone())).await;
        let disk = Arc::new(MemoryDisk::with(&noise(1, BLOCKS * BLOCK)));
        let (whole, _) = world.write(&disk).await.unwrap();
        disk.write(0, &noise(2, 30 * BLOCK));
        let half = write_mapped(&world, &disk, "one", None).await;
        let gone = Arc::new(MemoryDisk::with(&noise(3, 9 * BLOCK)));
        let (gone, _) = world.write(&gone).await.unwrap();
        for backup in [whole, gone] {
            world.project.delete(backup).await.unwrap();
        }
        Self {
            store,
            world,
            disk,
            saved: half,
        }
    }

    /// Runs a collection that is held up at a call, and something else
    /// meanwhile. False if there is no such call.
    async fn beside(&self, call: u64, work: impl Future<Output = ()>) -> bool {
        let beside = held_up(&self.store, call, collecting(&self.world), work).await;
        let more = beside.is_ok();
        beside
            .map_or_else(|alone| alone, |(collected, ())| collected)
            .unwrap();
        more
    }
}

/// Runs something that is held up at a call, and something else meanwhile. If there is no such
/// call, only what came of the first, alone.
async fn held_up<H, W>(
    store: &PausedStore,
    call: u64,
    held: impl Future<Output = H>,
    work: impl Future<Output = W>,
) -> Result<(H, W), H> {
    store.pause_at(call);
    let mut held = Box::pin(held);
    tokio::select! {
        ended = &mut held => return Err(ended),
        () = store.reached() => {}
    }
    if store.calls()[call as usize].contains("log/") {
        // Whoever acknowledges waits for his turn at the log.
        store.release();
        return Ok(tokio::join!(held, work));
    }
    let worked = work.await;
    store.release();
    Ok((held.await, worked))
}

/// Two steps of the four, in either order; the other two are the collection's
/// beginning and its end, with any of its calls between them.
#[derive(Debug, Clone, Copy)]
enum Order {
    WriteThenDelete,
    DeleteThenWrite,
    WriteByMapThenDelete,
    DeleteDuringWrite,
}

/// PBS (PSA-2025-00019-1): its collection listed the snapshots; a new one was made from an old
/// one, sharing its chunks; the old one was pruned before the collection got to
/// read it; the chunks that both needed were swept.
#[tokio::test]
async fn pbs_psa_2025_00019_1_a_backup_outlives_the_one_it_was_made_from() {
    for order in [
        Order::WriteThenDelete,
        Order::DeleteThenWrite,
        Order::WriteByMapThenDelete,
        Order::DeleteDuringWrite,
    ] {
        for call in 0.. {
            let scene = Scene::new().await;
            let case = format!("{order:?} at {call}");
            let mut written = None;
            let world = &scene.world;
            let more = scene
                .beside(call, async {
                    let write = async || world.write(&scene.disk).await.unwrap().0;
                    let delete = async || world.project.delete(scene.saved).await.unwrap();
                    written = Some(match order {
                        Order::WriteThenDelete => {
                            let backup = write().await;
                            delete().await;
                            backup
                        }
                        Order::DeleteThenWrite => {
                            delete().await;
                            write().await
                        }
                        Order::WriteByMapThenDelete => {
                            let parent = Some((scene.saved, "one"));
                            let backup = write_mapped(world, &scene.disk, "two", parent).await;
                            delete().await;
                            backup
                        }
                        Order::DeleteDuringWrite => delete_during_write(&scene).await,
                    });
                })
                .await;
            if !more {
                assert!(call > 10, "{case}: the collection must have met some calls");
                break;
            }
            let backup = written.unwrap();
            for world in [&scene.world, &scene.world.look().await] {
                let restored = world.restore(backup).await.unwrap().0;
                assert!(restored == scene.disk.bytes(), "{case}");
            }
            world.must_be_whole(&case).await;
            collect(world).await;
            let world = world.reopen().await;
            let restored = world.restore(backup).await.unwrap().0;
            assert!(restored == scene.disk.bytes(), "{case}, collected again");
        }
    }
}

/// Saves a disk whose source names this point in time, and says that nothing
/// has changed since the one of an earlier backup.
async fn write_mapped(
    world: &World,
    disk: &Arc<MemoryDisk>,
    point: &str,
    parent: Option<(BackupId, &str)>,
) -> BackupId {
    let mut job = job(world.info(4), disk);
    let mut mapped = MappedDisk::new(disk.clone(), point);
    if let Some((parent, earlier)) = parent {
        let earlier_info = world.project.find(parent).await.unwrap().info;
        (job.info.resource, job.parent) = (earlier_info.resource, Some(parent));
        mapped = mapped.changed_since(earlier, Vec::new());
    }
    job.reader = Arc::new(mapped);
    let id = job.info.id;
    let written = world.project.write_disk(job).await.unwrap();
    assert_eq!(written.by_change_map.is_ok(), parent.is_some());
    id
}

/// Saves the disk again; the backup that it shares all with goes in the middle of it.
async fn delete_during_write(scene: &Scene) -> BackupId {
    let disk = GatedDisk::new(
        MemoryDisk::with(&scene.disk.bytes()),
        (BLOCKS * BLOCK) as u64 - 1,
    );
    let disk = Arc::new(disk);
    let info = scene.world.info(4);
    let id = info.id;
    let writing = scene.world.project.write_disk(WriteDisk {
        info,
        parent: None,
        reader: disk.clone(),
        progress: Arc::default(),
        reread_all: false,
    });
    let delete = async {
        disk.reached().await;
        scene.world.project.delete(scene.saved).await.unwrap();
        disk.end(Ending::Reads);
    };
    let (written, ()) = tokio::join!(writing, delete);
    written.unwrap();
    id
}

/// Duplicacy (#323, #98, #212): a prune beside a backup removed what the
/// backup had found there, dead until then, and relied on.
#[tokio::test]
async fn duplicacy_323_a_backup_of_what_is_dead_outlives_a_collection() {
    for call in 0.. {
        let scene = Scene::new().await;
        let dead = Arc::new(MemoryDisk::with(&noise(1, BLOCKS * BLOCK)));
        let (mut before, mut during) = (None, None);
        // One has found all that it needs before the collection begins.
        let gated = GatedDisk::new(
            MemoryDisk::with(&dead.bytes()),
            dead.bytes().len() as u64 - 1,
        );
        let gated = Arc::new(gated);
        let mut early = job(scene.world.info(5), &dead);
        early.reader = gated.clone();
        let early_id = early.info.id;
        let project = scene.world.project.clone();
        let mut writing = Box::pin(async move { project.write_disk(early).await });
        tokio::select! {
            _ = &mut writing => panic!("the disk cannot be read yet"),
            () = gated.reached() => {}
        }
        let more = scene
            .beside(call, async {
                gated.end(Ending::Reads);
                writing.await.unwrap();
                before = Some(early_id);
                during = Some(scene.world.write(&dead).await.unwrap().0);
            })
            .await;
        if !more {
            assert!(call > 10);
            gated.end(Ending::Reads);
            return;
        }
        let mut world = scene.world;
        for _ in 0..2 {
            for backup in [before.unwrap(), during.unwrap()] {
                let restored = world.restore(backup).await.unwrap().0;
                assert!(restored == dead.bytes(), "at {call}");
            }
            world.must_be_whole(&format!("at {call}")).await;
            collect(&world).await;
            world = world.reopen().await;
        }
    }
}

/// What is open stays readable, wherever its chunks move: opened before the
/// collection or in the middle of it, read before, during and after, and its backup deleted.
#[tokio::test]
async fn an_open_disk_stays_readable_through_a_collection() {
    for call in 0.. {
        let scene = Scene::new().await;
        let bytes = scene.disk.bytes();
        let open = async || scene.world.project.open_disk(scene.saved).await.unwrap();
        let read = async |disk: &Arc<dyn cairn_types::disk::DiskReader>, at: usize| {
            let (disk, length) = (disk.clone(), 10 * BLOCK);
            let part = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; length];
                disk.read_at((at * BLOCK) as u64, &mut buffer)
                    .map(|()| buffer)
            });
            assert!(part.await.unwrap().unwrap() == bytes[at * BLOCK..][..length]);
        };
        let early = open().await;
        read(&early, 0).await;
        let mut late = None;
        let more = scene
            .beside(call, async {
                let opened = open().await;
                read(&opened, 5).await;
                read(&early, 15).await;
                scene.world.project.delete(scene.saved).await.unwrap();
                late = Some(opened);
            })
            .await;
        if !more {
            assert!(call > 10);
            return;
        }
        collect(&scene.world).await;
        for disk in [early, late.unwrap()] {
            read(&disk, 25).await;
            read(&disk, 40).await;
            read(&disk, 0).await;
        }
        assert_eq!(
            collect(&scene.world).await.stored_bytes,
            0,
            "nothing is open"
        );
    }
}

/// A restore is held up at each of its calls while a collection moves what it
/// needs and its backup goes.
#[tokio::test]
async fn a_restore_survives_a_collection_at_any_call() {
    for call in 0.. {
        let scene = Scene::new().await;
        let bytes = scene.disk.bytes();
        let target = Arc::new(MemoryDisk::with(&vec![9; bytes.len()]));
        scene.store.pause_at(call);
        let project = scene.world.project.clone();
        let (saved, disk) = (scene.saved, target.clone());
        let mut restoring =
            Box::pin(async move { project.restore_disk(saved, disk, Arc::default()).await });
        tokio::select! {
            ended = &mut restoring => {
                ended.unwrap();
                assert!(call > 5);
                return;
            }
            () = scene.store.reached() => {}
        }
        let moved = collect(&scene.world).await.packs_rewritten;
        assert!(moved > 0);
        scene.world.project.delete(scene.saved).await.unwrap();
        collect(&scene.world).await;
        scene.store.release();
        match restoring.await {
            Ok(_) => assert!(target.bytes() == bytes, "at {call}"),
            // It had not found out yet that the backup was there.
            Err(error) => assert_eq!(error.kind(), Kind::NotFound, "at {call}: {error}"),
        }
    }
}

/// Borg (#9748): a compaction that was cut off had removed chunks and not saved the index;
/// later backups took the chunks for stored, and ended without an error.
#[tokio::test]
async fn borg_9748_what_a_collection_was_at_when_it_failed_is_never_relied_on() {
    for fault in [Fault::Once, Fault::Before, Fault::After] {
        for call in 0.. {
            let store = FaultyStore::new(Arc::new(InMemory::new()));
            let world = World::on(Arc::new(store.clone())).await;
            let dead = Arc::new(MemoryDisk::with(&noise(1, 40 * BLOCK)));
            let (gone, _) = world.write(&dead).await.unwrap();
            let disk = MemoryDisk::with(&dead.bytes());
            disk.write(0, &noise(2, 20 * BLOCK));
            let disk = Arc::new(disk);
            let (kept, _) = world.write(&disk).await.unwrap();
            world.project.delete(gone).await.unwrap();
            store.set(Some(fault(call)));
            let ended = world.project.collect(&[], Arc::default()).await;
            let calls = store.calls();
            store.set(None);
            // The same process goes on, and after it another.
            let mut world = world;
            for _ in 0..2 {
                let (again, _) = world.write(&dead).await.unwrap();
                for (backup, disk) in [(again, &dead), (kept, &disk)] {
                    let restored = world.restore(backup).await.unwrap().0;
                    assert!(restored == disk.bytes(), "call {call}");
                }
                collect(&world).await;
                world.must_be_whole(&format!("{:?}", fault(call))).await;
                world.project.delete(again).await.unwrap();
                collect(&world).await;
                world.must_be_whole(&format!("{:?}", fault(call))).await;
                world = world.reopen().await;
            }
            if ended.is_ok() && calls <= call {
                assert!(call > 10);
                break;
            }
        }
    }
}

/// What a collection takes away is named by no index object any more, though the object came
/// after the collection had begun to read them: it begins with what the one before the
/// restart had condemned.
#[tokio::test]
async fn a_backup_that_comes_and_goes_beside_a_collection_leaves_no_name_of_its_packs() {
    for call in 0.. {
        let mut scene = Scene::new().await;
        collect(&scene.world).await;
        scene.world = scene.world.reopen().await;
        scene.world.must_be_whole("before").await;
        let disk = Arc::new(MemoryDisk::with(&noise(5, 9 * BLOCK)));
        let more = scene
            .beside(call, async {
                let (backup, _) = scene.world.write(&disk).await.unwrap();
                scene.world.project.delete(backup).await.unwrap();
            })
            .await;
        if !more {
            assert!(call > 10);
            return;
        }
        scene.world.must_be_whole(&format!("at {call}")).await;
    }
}

/// A backup has written its packs and not yet the index object that names them, while a
/// collection writes all small packs together: it leaves those.
#[tokio::test]
async fn a_collection_leaves_the_packs_that_a_backup_is_about_to_name() {
    for call in 0.. {
        let store = PausedStore::new(Arc::new(InMemory::new()));
        let world = World::on(Arc::new(store.clone())).await;
        for seed in 0..SMALL_PACKS {
            let disk = Arc::new(MemoryDisk::with(&noise(seed, BLOCK)));
            world.write(&disk).await.unwrap();
        }
        let disk = Arc::new(MemoryDisk::with(&noise(SMALL_PACKS, BLOCK)));
        let beside = held_up(&store, call, world.write(&disk), collecting(&world)).await;
        let (written, collected) = match beside {
            Ok(beside) => beside,
            Err(alone) => {
                alone.unwrap();
                assert!(call > 5);
                return;
            }
        };
        assert!(collected.unwrap().packs_rewritten > 0, "at {call}");
        world.must_be_whole(&format!("at {call}")).await;
        let restored = world.restore(written.unwrap().0).await.unwrap().0;
        assert!(restored == disk.bytes(), "at {call}");
    }
}

/// Borg (#6687, #6781): compacting what was compact lost what marks deletions.
#[tokio::test]
async fn borg_6687_a_second_collection_has_nothing_to_do() {
    let scene = Scene::new().await;
    collect(&scene.world).await;
    scene.store.pause_at(u64::MAX);
    let again = collect(&scene.world).await;
    assert_eq!((again.packs_removed, again.index_objects_removed), (0, 0));
    let writes = |call: &String| call.starts_with("put") || call.starts_with("delete");
    assert_eq!(scene.store.calls().into_iter().find(writes), None);
}

/// Duplicacy (#686): chunks went before the snapshots that named them, and a
/// prune that was cut off left snapshots without data.
#[tokio::test]
async fn duplicacy_686_what_refers_goes_before_what_is_referred_to() {
    let scene = Scene::new().await;
    scene.store.pause_at(u64::MAX);
    scene.world.project.delete(scene.saved).await.unwrap();
    collect(&scene.world).await;
    let calls = scene.store.calls();
    let first = |start: &str, part: &str| {
        let found = |call: &String| call.starts_with(start) && call.contains(part);
        calls.iter().position(found).expect(part)
    };
    let last = |start: &str, part: &str| {
        let found = |call: &String| call.starts_with(start) && call.contains(part);
        calls.iter().rposition(found).expect(part)
    };
    let order = [
        first("delete", "/receipts/"),
        first("delete", "/manifests/"),
        first("put", "log/"),
        last("delete", "/index/"),
        first("delete", "/packs/"),
    ];
    assert!(order.is_sorted(), "{order:?}: {calls:#?}");
}

/// Kopia (#5057): metadata grew for ever, to tens of thousands of objects.
#[tokio::test]
async fn kopia_5057_the_number_of_objects_is_bounded() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(1, BLOCKS * BLOCK)));
    let mut backups = Vec::new();
    let mut most = 0;
    for day in 0..200 {
        disk.write(day % BLOCKS as u64 * BLOCK as u64, &noise(day + 2, BLOCK));
        backups.push(world.write(&disk).await.unwrap().0);
        if backups.len() > 3 {
            world.project.delete(backups.remove(0)).await.unwrap();
        }
        if day % 5 == 0 {
            collect(&world).await;
            let objects: Vec<_> = world.store.list(None).try_collect().await.unwrap();
            most = most.max(objects.len());
        }
    }
    assert!(most < 200, "{most} objects for three backups");
    let restored = world.restore(backups[2]).await.unwrap().0;
    assert!(restored == disk.bytes());
}

/// Velero (#5940): what failed in part was never removed.
#[tokio::test]
async fn velero_5940_what_a_failed_backup_left_goes() {
    for call in 0.. {
        let store = FaultyStore::new(Arc::new(InMemory::new()));
        let world = World::on(Arc::new(store.clone())).await;
        let disk = Arc::new(MemoryDisk::with(&noise(1, 20 * BLOCK)));
        let job = job(world.info(1), &disk);
        let id = job.info.id;
        store.set(Some(Fault::Once(call)));
        let ended = world.project.write_disk(job).await;
        store.set(None);
        if ended.is_ok() {
            assert!(call > 5);
            return;
        }
        world.project.delete(id).await.unwrap();
        assert_eq!(collect(&world).await.stored_bytes, 0, "call {call}");
        let left: Vec<_> = world.store.list(None).try_collect().await.unwrap();
        let left = left.iter().map(|found| found.location.to_string());
        let left = left.filter(|path| path.contains("projects/") && !path.contains("/keys/"));
        assert_eq!(
            left.collect::<Vec<_>>(),
            Vec::<String>::new(),
            "call {call}"
        );
    }
}

/// Duplicacy (#20): a listing that was behind said that nothing was there.
#[tokio::test]
async fn duplicacy_20_a_listing_that_lacks_a_backup_is_not_believed() {
    let scene = Scene::new().await;
    let project = &scene.world.project;
    let before: Vec<_> = scene.store.list(None).try_collect().await.unwrap();
    scene.store.hide(Some(format!("/receipts/{}", scene.saved)));
    // This process has acknowledged it itself.
    let refused = project.collect(&[], Arc::default()).await;
    assert_eq!(kind(refused), Kind::Transient);
    // Another only knows what the catalogue says.
    let world = scene.world.reopen().await;
    let refused = world.project.collect(&[scene.saved], Arc::default()).await;
    assert_eq!(kind(refused), Kind::Transient);
    scene.store.hide(None);
    let path = format!("projects/{}/receipts/{}", world.project_id, scene.saved);
    let path = Path::from(path);
    let receipt = world.store.get(&path).await.unwrap().bytes().await.unwrap();
    world.store.delete(&path).await.unwrap();
    let refused = world.project.collect(&[scene.saved], Arc::default()).await;
    assert_eq!(
        kind(refused),
        Kind::Corrupt,
        "it is gone, and nobody has deleted it"
    );
    world.store.put(&path, receipt.into()).await.unwrap();
    let after: Vec<_> = scene.store.list(None).try_collect().await.unwrap();
    let data = |found: &[object_store::ObjectMeta]| {
        let paths = found.iter().map(|found| found.location.to_string());
        paths
            .filter(|path| path.contains("/packs/"))
            .collect::<Vec<_>>()
    };
    assert_eq!(data(&before), data(&after), "nothing was removed");
    let done = world.project.collect(&[scene.saved], Arc::default()).await;
    assert!(done.unwrap().packs_removed > 0);
    assert!(world.restore(scene.saved).await.unwrap().0 == scene.disk.bytes());
}

/// A deletion while the caller of a collection already had his list is no damage: the
/// collection tells him that the list is wrong and removes nothing, and goes on with another.
#[tokio::test]
async fn a_collection_refuses_a_list_with_a_deleted_backup_and_takes_the_next() {
    for call in 0.. {
        let scene = Scene::new().await;
        let promised = [scene.saved];
        scene.store.pause_at(call);
        let project = scene.world.project.clone();
        let mut collecting =
            Box::pin(async move { project.collect(&promised, Arc::default()).await });
        tokio::select! {
            ended = &mut collecting => {
                ended.unwrap();
                assert!(call > 10);
                return;
            }
            () = scene.store.reached() => {}
        }
        let delete = scene.world.project.delete(scene.saved);
        let ended = if scene.store.calls()[call as usize].contains("log/") {
            scene.store.release();
            let (ended, deleted) = tokio::join!(collecting, delete);
            deleted.unwrap();
            ended
        } else {
            delete.await.unwrap();
            scene.store.release();
            collecting.await
        };
        if let Err(error) = ended {
            assert_eq!(error.kind(), Kind::Corrupt, "at {call}: {error}");
            assert!(error.to_string().contains("receipts"), "at {call}: {error}");
        }
        for _ in 0..3 {
            assert_eq!(collect(&scene.world).await.stored_bytes, 0, "at {call}");
        }
        let refused = scene.world.project.collect(&promised, Arc::default()).await;
        assert_eq!(kind(refused), Kind::Corrupt, "however long ago it was");
    }
}

/// It stops between two frames, leaves everything usable, and can be done again.
#[tokio::test]
async fn a_collection_can_be_cancelled_at_any_call() {
    for call in 0.. {
        let scene = Scene::new().await;
        let progress = Arc::new(Progress::default());
        scene.store.pause_at(call);
        let (project, seen) = (scene.world.project.clone(), progress.clone());
        let mut collecting = Box::pin(async move { project.collect(&[], seen).await });
        tokio::select! {
            ended = &mut collecting => {
                ended.unwrap();
                assert_eq!(progress.percent(), 100);
                assert!(call > 10);
                return;
            }
            () = scene.store.reached() => {}
        }
        progress.cancel();
        scene.store.release();
        if let Err(error) = collecting.await {
            assert_eq!(error.kind(), Kind::Cancelled, "at {call}: {error}");
        }
        let (again, _) = scene.world.write(&scene.disk).await.unwrap();
        collect(&scene.world).await;
        scene.world.must_be_whole(&format!("at {call}")).await;
        for backup in [again, scene.saved] {
            let restored = scene.world.restore(backup).await.unwrap().0;
            assert!(restored == scene.disk.bytes(), "at {call}");
        }
    }
}
