//! Another master key: one object is written, whatever the repository holds,
//! and the old key opens nothing; whoever is late writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use std::time::Duration;

use cairn_repo::{Creation, MasterKey, RemoteStore, Repository, Result, RetryPolicy};
use cairn_testkit::{
    AilingStore, Ailment, Course, Fate, Fault, FaultyStore, MemoryDisk, PausedStore,
};
use cairn_types::{Kind, Progress};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use crate::common::{BLOCK, World, kind, master, noise};

/// Packs that a rotation must not touch.
const PACKS: usize = 10_000;

async fn objects(store: &dyn ObjectStore) -> BTreeMap<Path, Vec<u8>> {
    let found: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut objects = BTreeMap::new();
    for meta in found {
        let bytes = store.get(&meta.location).await.unwrap().bytes().await;
        objects.insert(meta.location, bytes.unwrap().to_vec());
    }
    objects
}

#[tokio::test]
async fn a_rotation_writes_one_object_however_many_packs_there_are() {
    let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let store = FaultyStore::new(inner.clone());
    let world = World::on(Arc::new(store.clone())).await;
    let disk = Arc::new(MemoryDisk::with(&noise(1, 5 * BLOCK)));
    let (backup, _) = world.write(&disk).await.unwrap();
    for number in 0..PACKS {
        let path = format!(
            "projects/{}/packs/{:02x}/{number:032x}",
            world.project_id,
            number % 256
        );
        let bytes = (number as u64).to_le_bytes().to_vec();
        inner.put(&Path::from(path), bytes.into()).await.unwrap();
    }
    let before = objects(&inner).await;
    let (from, to) = (master(), MasterKey::generate());
    store.set(None);
    let rotated = Repository::rotate_master_key(Arc::new(store.clone()), &from, &to);
    rotated.await.unwrap();
    assert_eq!(store.calls(), 6, "read, try out, write, read back");

    let mut after = objects(&inner).await;
    let config = Path::from("config");
    assert_ne!(before[&config], after[&config]);
    after.insert(config.clone(), before[&config].clone());
    assert!(before == after, "nothing else has changed");

    let old = Repository::open(inner.clone(), &master()).await.map(drop);
    assert_eq!(kind(old), Kind::Denied);
    let repository = Repository::open(inner.clone(), &to).await.unwrap();
    let project = repository.existing_project(world.project_id).await.unwrap();
    let target = Arc::new(MemoryDisk::new(5 * BLOCK as u64));
    let restored = project.restore_disk(backup, target.clone(), Arc::new(Progress::default()));
    restored.await.unwrap();
    assert!(target.bytes() == disk.bytes());
}

#[tokio::test]
async fn a_rotation_by_a_key_that_does_not_open_changes_nothing() {
    let world = World::new().await;
    let before = objects(&world.store).await;
    let (stranger, to) = (MasterKey::generate(), MasterKey::generate());
    let rotated = Repository::rotate_master_key(world.store.clone(), &stranger, &to).await;
    assert_eq!(kind(rotated), Kind::Denied);
    assert!(objects(&world.store).await == before);
}

#[tokio::test]
async fn who_has_the_repository_open_works_on_through_a_rotation() {
    let world = World::new().await;
    let to = MasterKey::generate();
    let rotated = Repository::rotate_master_key(world.store.clone(), &master(), &to).await;
    rotated.unwrap();
    let disk = Arc::new(MemoryDisk::with(&noise(2, BLOCK)));
    let (backup, _) = world.write(&disk).await.unwrap();
    let (bytes, _) = world.restore(backup).await.unwrap();
    assert!(bytes == disk.bytes());
}

/// A bucket with a repository in it: nothing locks it, and it creates and
/// replaces on conditions.
struct Bucket {
    ailing: AilingStore,
    faulty: FaultyStore,
    paused: PausedStore,
}

impl Bucket {
    async fn new() -> Self {
        let ailing = AilingStore::new();
        let policy = RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_micros(100),
            longest_pause: Duration::from_micros(200),
            answer: Duration::from_millis(200),
            ..RetryPolicy::default()
        };
        let remote = RemoteStore::new(ailing.clone(), policy, Creation::Conditional);
        let faulty = FaultyStore::new(Arc::new(remote));
        let paused = PausedStore::new(Arc::new(faulty.clone()));
        let bucket = Self {
            ailing,
            faulty,
            paused,
        };
        Repository::create(bucket.store(), &master()).await.unwrap();
        bucket
    }

    fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::new(self.paused.clone())
    }

    async fn rotate(&self, from: &MasterKey, to: &MasterKey) -> Result<()> {
        Repository::rotate_master_key(self.store(), from, to).await
    }

    async fn opens_with(&self, key: &MasterKey) -> bool {
        match Repository::open(self.store(), key).await {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.kind(), Kind::Denied, "{error}");
                false
            }
        }
    }
}

#[tokio::test]
async fn a_rotation_that_dies_at_any_call_leaves_one_key() {
    for fault in [Fault::Once, Fault::Before, Fault::After] {
        let mut unheard = 0;
        for call in 0.. {
            let (bucket, to) = (Bucket::new().await, MasterKey::generate());
            bucket.faulty.set(Some(fault(call)));
            let ended = bucket.rotate(&master(), &to).await;
            let calls = bucket.faulty.calls();
            bucket.faulty.set(None);
            let (old, new) = (
                bucket.opens_with(&master()).await,
                bucket.opens_with(&to).await,
            );
            assert!(old != new, "one of them opens it, at {call}");
            assert!(new || ended.is_err(), "at {call}");
            unheard += u32::from(new && ended.is_err());
            if old {
                bucket.rotate(&master(), &to).await.unwrap();
            }
            assert!(bucket.opens_with(&to).await);
            if calls <= call {
                break;
            }
        }
        assert!(unheard > 0, "what was done was not always said");
    }
}

/// One is paused at each of its calls, for as long as it takes another to
/// rotate, and to rotate again: the key that nobody else knows any more must
/// not become the only one that opens the repository.
#[tokio::test]
async fn a_rotation_that_was_paused_replaces_no_later_key() {
    let mut late = 0;
    for call in 0.. {
        let bucket = Bucket::new().await;
        let keys = [(); 3].map(|()| MasterKey::generate());
        let [forgotten, second, third] = &keys;
        bucket.paused.pause_at(call);
        let (store, to) = (
            bucket.store(),
            MasterKey::from_hex(&forgotten.to_hex()).unwrap(),
        );
        let mut paused =
            Box::pin(async move { Repository::rotate_master_key(store, &master(), &to).await });
        tokio::select! {
            ended = &mut paused => {
                ended.unwrap();
                assert!(late > 0, "it was held up before it wrote");
                return;
            }
            () = bucket.paused.reached() => {}
        }
        let mut newest = forgotten;
        if bucket.opens_with(&master()).await {
            bucket.rotate(&master(), second).await.unwrap();
            bucket.rotate(second, third).await.unwrap();
            newest = third;
        }
        bucket.paused.release();
        match paused.await {
            Ok(()) => assert!(std::ptr::eq(newest, forgotten), "at {call}"),
            Err(error) => {
                assert!(
                    matches!(error.kind(), Kind::Conflict | Kind::Denied),
                    "at {call}: {error}"
                );
                late += u32::from(error.kind() == Kind::Conflict);
            }
        }
        assert!(bucket.opens_with(newest).await, "at {call}");
    }
}

/// Of every ailment of the requests that a rotation makes: it succeeds, or
/// whoever has both keys goes on.
#[tokio::test]
async fn a_rotation_meets_every_ailment() {
    let mut met = 0;
    for ailment in Ailment::ALL {
        for course in [Course::Once(0), Course::Once(1), Course::From(0)] {
            if course == Course::From(0) && matches!(ailment.fate, Fate::Hangs | Fate::Stalls) {
                continue;
            }
            let (bucket, to) = (Bucket::new().await, MasterKey::generate());
            bucket.ailing.fall_ill(*ailment, course).await;
            let ended = bucket.rotate(&master(), &to).await;
            met += bucket.ailing.recover();
            let what = format!("{ailment:?} {course:?}: {ended:?}");
            let (old, new) = (
                bucket.opens_with(&master()).await,
                bucket.opens_with(&to).await,
            );
            assert!(old != new, "{what}");
            let passes = matches!(course, Course::Once(_)) && !ailment.is_lie();
            assert!(ended.is_ok() || !passes, "{what}");
            assert!(new || ended.is_err(), "{what}");
        }
    }
    assert!(met > 20, "{met} requests were met");
}
