//! Trees of files: what is saved comes back, what has not changed is not read,
//! what cannot be read is named.

use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use cairn_repo::{ProblemKind, VerifyLevel, WriteDisk, WriteTree, WrittenTree};
use cairn_testkit::{Ending, GatedDisk, MemoryDisk, MemoryTree, TreeFault};
use cairn_types::tree::TreeReader;
use cairn_types::{BackupId, Kind, Progress};
use object_store::ObjectStoreExt;

use crate::common::{BLOCK, World, kind, noise, text};
use crate::trees::{
    Files, assert_same, fill, folder, packs, restore, restore_part, save, snapshot,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_of_every_kind_comes_back() {
    let (world, source, target) = (World::new().await, Files::new(), Files::new());
    fill(source.path());
    let (backup, written) = save(&world, folder(&source), None).await.unwrap();
    assert_eq!(written.summary.problems, 0, "{:?}", written.summary);
    let restored = restore(&world.reopen().await, backup, &target)
        .await
        .unwrap();
    assert_eq!(restored, written.summary);
    assert_same(source.path(), target.path());
    let sparse = std::fs::metadata(target.path().join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{sparse:?}");
    let report = world
        .project
        .verify(VerifyLevel::Full, Arc::default())
        .await;
    let report = report.unwrap();
    assert!(report.is_clean(), "{report:?}");
    let listed = world.project.find(backup).await.unwrap();
    assert_eq!(listed.tree, Some(written.summary));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_comes_back_alone() {
    let (world, source) = (World::new().await, Files::new());
    fill(source.path());
    let (backup, _) = save(&world, folder(&source), None).await.unwrap();
    let target = Files::new();
    restore_part(&world, backup, b"many", &target)
        .await
        .unwrap();
    assert_same(&source.path().join("many"), target.path());
    let target = Files::new();
    let restored = restore_part(&world, backup, b"many/0077", &target)
        .await
        .unwrap();
    assert_eq!((restored.files, restored.directories), (1, 0));
    let found = std::fs::read(target.path().join("0077")).unwrap();
    assert_eq!(
        found,
        std::fs::read(source.path().join("many/0077")).unwrap()
    );
    for missing in [
        &b"many/none"[..],
        b"none",
        b"many/0077/below",
        b"zzz",
        b"many/..",
    ] {
        let lost = restore_part(&world, backup, missing, &Files::new()).await;
        assert_eq!(kind(lost), Kind::NotFound, "{missing:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_not_changed_is_not_read_and_stores_nothing() {
    let (world, tree) = (World::new().await, MemoryTree::default());
    tree.set_time(100);
    for number in 0..2000_u64 {
        tree.write(
            &format!("d{:02}/f{number}", number % 37),
            &noise(number, 100),
        );
    }
    tree.write("large", &noise(7, 3 << 20));
    let (first, written) = save(&world, tree.clone(), None).await.unwrap();
    assert_eq!(written.summary.files, 2001);
    tree.take_opened();
    let (second, again) = save(&world, tree.clone(), Some(first)).await.unwrap();
    assert_eq!(tree.take_opened(), Vec::<String>::new());
    assert_eq!(again.written.root, written.written.root);
    assert_eq!(again.written.new_bytes, 0);
    assert_eq!(again.summary, written.summary);
    tree.set_time(200);
    tree.write("d05/f5", b"other");
    tree.remove("d06");
    let (third, changed) = save(&world, tree.clone(), Some(second)).await.unwrap();
    assert_eq!(tree.take_opened(), ["d05/f5"]);
    assert!(changed.written.new_bytes < 64 << 10, "{changed:?}");
    let target = Files::new();
    restore(&world, third, &target).await.unwrap();
    assert_eq!(
        std::fs::read(target.path().join("d05/f5")).unwrap(),
        b"other"
    );
    assert!(!target.path().join("d06").exists());
    assert_eq!(
        std::fs::read(target.path().join("large")).unwrap(),
        noise(7, 3 << 20)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn borg_3536_same_second_edit() {
    let (world, tree) = (World::new().await, MemoryTree::default());
    // The backup starts at second 1000; the file is edited in that second, both times to one length.
    tree.set_time(crate::trees::STARTED_AT);
    tree.write("f", b"before");
    let (first, _) = save(&world, tree.clone(), None).await.unwrap();
    tree.set_time(crate::trees::STARTED_AT);
    tree.write("f", b"behind");
    let (second, _) = save(&world, tree, Some(first)).await.unwrap();
    let target = Files::new();
    restore(&world, second, &target).await.unwrap();
    assert_eq!(std::fs::read(target.path().join("f")).unwrap(), b"behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_named_and_the_rest_is_saved() {
    let (world, tree) = (World::new().await, MemoryTree::default());
    for path in [
        "a/closed", "a/broken", "a/gone", "a/good", "shut/in", "moving", "settling",
    ] {
        tree.write(path, path.as_bytes());
    }
    let (eacces, eio) = (13, 5);
    tree.fail("a/closed", Some(TreeFault::Opening(eacces)));
    tree.fail("a/broken", Some(TreeFault::Reading(eio)));
    tree.fail("a/gone", Some(TreeFault::Vanished));
    tree.fail("shut", Some(TreeFault::Opening(eacces)));
    tree.fail("moving", Some(TreeFault::Changing(9)));
    tree.fail("settling", Some(TreeFault::Changing(1)));
    let (backup, written) = save(&world, tree, None).await.unwrap();
    let named: Vec<_> = written
        .summary
        .listed
        .iter()
        .map(|problem| (problem.path.as_slice(), problem.kind))
        .collect();
    let expected = [
        (&b"a/broken"[..], ProblemKind::Unreadable),
        (b"a/closed", ProblemKind::Unreadable),
        (b"moving", ProblemKind::Changed),
        (b"shut", ProblemKind::Unreadable),
    ];
    assert_eq!(named, expected);
    assert_eq!(written.summary.problems, 4);
    assert_eq!(written.summary.files, 3);
    let target = Files::new();
    restore(&world, backup, &target).await.unwrap();
    let names: Vec<_> = snapshot(target.path()).into_keys().collect();
    assert_eq!(names, ["", "a", "a/good", "moving", "settling"]);
    assert_eq!(
        std::fs::read(target.path().join("settling")).unwrap(),
        b"settling!"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_open_files_fail_the_backup() {
    let (world, tree) = (World::new().await, MemoryTree::default());
    tree.write("f", b"bytes");
    let emfile = 24;
    tree.fail("f", Some(TreeFault::Opening(emfile)));
    let failed = save(&world, tree, None).await;
    assert_eq!(kind(failed), Kind::Exhausted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_pack_is_healed_by_the_next_backup() {
    let (world, tree) = (World::new().await, MemoryTree::default());
    tree.set_time(100);
    for number in 0..50 {
        tree.write(&format!("d/f{number}"), &noise(number, 50_000));
    }
    tree.write("large", &text(1, 9 << 20));
    let (first, _) = save(&world, tree.clone(), None).await.unwrap();
    crate::trees::remove_packs(&world).await;
    let world = world.reopen().await;
    assert_eq!(
        kind(restore(&world, first, &Files::new()).await),
        Kind::Corrupt
    );
    let (second, _) = save(&world, tree, Some(first)).await.unwrap();
    for backup in [first, second] {
        restore(&world, backup, &Files::new()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn collection_keeps_what_trees_need_and_nothing_else() {
    let (world, tree) = (World::new().await, MemoryTree::default());
    tree.set_time(100);
    for number in 0..200 {
        tree.write(&format!("d/f{number}"), &noise(number, 20_000));
    }
    tree.write("large", &noise(9, 4 << 20));
    let (first, _) = save(&world, tree.clone(), None).await.unwrap();
    tree.remove("large");
    let (second, _) = save(&world, tree.clone(), Some(first)).await.unwrap();
    world.project.delete(first).await.unwrap();
    let collected = world.project.collect(&[], Arc::default()).await.unwrap();
    assert!(collected.freed_bytes > 4_000_000, "{collected:?}");
    let target = Files::new();
    restore(&world, second, &target).await.unwrap();
    assert_eq!(
        std::fs::read(target.path().join("d/f9")).unwrap(),
        noise(9, 20_000)
    );
    world.project.delete(second).await.unwrap();
    world.project.collect(&[], Arc::default()).await.unwrap();
    assert_eq!(crate::trees::packs(&world).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_backup_leaves_no_backup() {
    let (world, tree) = (World::new().await, MemoryTree::default());
    tree.write("f", b"bytes");
    let job = crate::trees::job(&world, tree, None);
    job.progress.cancel();
    assert_eq!(kind(world.project.write_tree(job).await), Kind::Cancelled);
    assert_eq!(world.project.list().await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_replaces_files_and_leaves_what_the_backup_does_not_have() {
    let (world, source, target) = (World::new().await, Files::new(), Files::new());
    std::fs::create_dir(source.path().join("d")).unwrap();
    crate::trees::put(&source.path().join("d/f"), b"saved");
    let (backup, _) = save(&world, folder(&source), None).await.unwrap();
    std::fs::create_dir(target.path().join("d")).unwrap();
    let (outside, other) = (Files::new(), target.path().join("d/other"));
    crate::trees::put(&outside.path().join("f"), b"outside");
    crate::trees::put(&other, b"other");
    std::os::unix::fs::symlink(outside.path().join("f"), target.path().join("d/f")).unwrap();
    restore(&world, backup, &target).await.unwrap();
    assert_eq!(std::fs::read(target.path().join("d/f")).unwrap(), b"saved");
    assert_eq!(std::fs::read(other).unwrap(), b"other");
    assert_eq!(std::fs::read(outside.path().join("f")).unwrap(), b"outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_tells_how_many_entries_it_has_replaced() {
    let (world, source, target) = (World::new().await, Files::new(), Files::new());
    for folder in ["a", "b"] {
        std::fs::create_dir(source.path().join(folder)).unwrap();
    }
    for link in ["c", "d", "e"] {
        std::os::unix::fs::symlink("new", source.path().join(link)).unwrap();
    }
    let (backup, _) = save(&world, folder(&source), None).await.unwrap();
    // It stays as it is; a file makes way for a directory, and no directory for a link.
    std::fs::create_dir(target.path().join("a")).unwrap();
    crate::trees::put(&target.path().join("b"), b"old");
    std::os::unix::fs::symlink("old", target.path().join("c")).unwrap();
    std::fs::create_dir(target.path().join("d")).unwrap();
    let job = crate::trees::restore_job(backup, b"", &target);
    let progress = job.progress.clone();
    let failed = world.project.restore_tree(job).await.unwrap_err();
    assert_eq!(failed.to_string(), "cannot create \"d\"");
    assert_eq!((progress.entries(), progress.done()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_is_done_when_all_of_it_is() {
    let (world, source) = (World::new().await, Files::new());
    crate::trees::fill(source.path());
    let (backup, _) = save(&world, folder(&source), None).await.unwrap();
    for part in [&b""[..], b"a", b"large"] {
        let target = Files::new();
        let job = crate::trees::restore_job(backup, part, &target);
        let progress = job.progress.clone();
        let restored = world.project.restore_tree(job).await.unwrap();
        assert_eq!(progress.done(), progress.total(), "{part:?}");
        assert_eq!(progress.total(), restored.size_bytes, "{part:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_place_of_a_directory_is_not_followed() {
    let (world, source, target) = (World::new().await, Files::new(), Files::new());
    std::fs::create_dir(source.path().join("d")).unwrap();
    crate::trees::put(&source.path().join("d/f"), b"saved");
    let (backup, _) = save(&world, folder(&source), None).await.unwrap();
    let outside = Files::new();
    std::os::unix::fs::symlink(outside.path(), target.path().join("d")).unwrap();
    restore(&world, backup, &target).await.unwrap();
    assert_eq!(snapshot(target.path()).len(), 3);
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// A disk that stands still holds claims on what a tree holds too; then it ends.
async fn tree_waits_for_disk(ending: Ending) {
    let world = World::new().await;
    let bytes = noise(8, 20 * BLOCK);
    let disk = GatedDisk::new(MemoryDisk::with(&bytes), bytes.len() as u64 - 1);
    let disk = Arc::new(disk);
    let tree = MemoryTree::default();
    for (number, block) in bytes.chunks(BLOCK).take(10).enumerate() {
        tree.write(&number.to_string(), block);
    }
    let (slow, progress) = (disk.clone(), Arc::new(Progress::default()));
    let one = world.project.write_disk(WriteDisk {
        info: world.info(1),
        parent: None,
        reader: slow,
        progress,
        reread_all: false,
    });
    let job = crate::trees::job(&world, tree.clone(), None);
    let (id, progress) = (job.info.id, job.progress.clone());
    let two = async {
        disk.reached().await;
        world.project.write_tree(job).await
    };
    let release = async {
        // All of the tree has been read, and it can do no more than wait.
        while progress.done() < 10 * BLOCK as u64 {
            tokio::task::yield_now().await;
        }
        disk.end(ending);
    };
    let (one, two, ()) = tokio::join!(one, two, release);
    match ending {
        Ending::Reads => {
            one.unwrap();
            let two = two.unwrap();
            assert!(two.written.new_bytes < BLOCK as u64, "{two:?}");
            let target = Files::new();
            restore(&world.reopen().await, id, &target).await.unwrap();
            assert_eq!(
                std::fs::read(target.path().join("3")).unwrap(),
                bytes[3 * BLOCK..4 * BLOCK]
            );
        }
        Ending::Fails => {
            assert!(one.is_err());
            assert_eq!(kind(two), Kind::Transient);
            save(&world, tree, None).await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_another_backup_stores_is_stored_once() {
    tree_waits_for_disk(Ending::Reads).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_another_backup_gives_up_is_not_taken_for_stored() {
    tree_waits_for_disk(Ending::Fails).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_is_no_tree_and_a_tree_no_disk() {
    let (world, tree) = (World::new().await, MemoryTree::default());
    let disk = Arc::new(MemoryDisk::with(&text(1, 100_000)));
    let (disk_backup, _) = world.write(&disk).await.unwrap();
    let (tree_backup, _) = save(&world, tree, None).await.unwrap();
    let lost = restore(&world, disk_backup, &Files::new()).await;
    assert_eq!(kind(lost), Kind::Invalid);
    let lost = world
        .project
        .restore_disk(tree_backup, disk, Arc::new(Progress::default()));
    assert_eq!(kind(lost.await), Kind::Invalid);
}

async fn copy(
    world: &World,
    reader: Arc<dyn TreeReader>,
) -> cairn_repo::Result<(BackupId, WrittenTree)> {
    let info = world.info(crate::trees::STARTED_AT);
    let (id, started_at) = (info.id, info.created_at);
    let job = WriteTree {
        info,
        parent: None,
        reader,
        started_at,
        progress: Arc::default(),
        reread_all: false,
    };
    Ok((id, world.project.write_tree(job).await?))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_tree_is_copied_into_another_project() {
    let (world, source, target) = (World::new().await, Files::new(), Files::new());
    fill(source.path());
    let (backup, written) = save(&world, folder(&source), None).await.unwrap();
    let (disk, _) = world
        .write(&Arc::new(MemoryDisk::with(&noise(1, BLOCK))))
        .await
        .unwrap();
    // From here on it writes, and the first does no more.
    let other = world.neighbour().await;
    let reading = world.look().await;
    let reader = reading.project.open_tree(backup).await.unwrap();
    let (copy, copied) = copy(&other, reader).await.unwrap();
    assert_eq!(copied.summary, written.summary);
    restore(&other.reopen().await, copy, &target).await.unwrap();
    assert_same(source.path(), target.path());
    let report = other.project.verify(VerifyLevel::Full, Arc::default());
    assert!(report.await.unwrap().is_clean());

    let opened = world.project.open_backup(backup).await.unwrap();
    opened.open_tree(backup).await.unwrap();
    let others = opened.open_tree(BackupId::random()).await;
    assert_eq!(kind(others.map(drop)), Kind::NotFound);
    let tree = world.project.open_tree(disk).await;
    assert_eq!(kind(tree.map(drop)), Kind::Invalid);
}

/// What of a stored tree cannot be read fails the copy: nothing is left out.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_tree_is_not_copied() {
    let (world, source) = (World::new().await, Files::new());
    fill(source.path());
    let (backup, _) = save(&world, folder(&source), None).await.unwrap();
    let other = world.neighbour().await;
    let reader = world.project.open_tree(backup).await.unwrap();
    for pack in packs(&world).await {
        let pack = pack.into();
        let object = world.store.get(&pack).await.unwrap();
        let mut bytes = object.bytes().await.unwrap().to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        world.store.put(&pack, bytes.into()).await.unwrap();
    }
    let copied = copy(&other, reader).await;
    assert_eq!(kind(copied.map(drop)), Kind::Corrupt);
    assert!(other.project.list().await.unwrap().is_empty());
}
