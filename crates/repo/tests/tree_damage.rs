//! Every object that a tree needs, lost, cut and changed: a restore gives the
//! right bytes or an error, and a verification says so.

use cairn_repo::VerifyLevel;
use cairn_types::Kind;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use crate::common::{World, noise, text};
use crate::trees::{Files, assert_same, folder, put, restore, save};

#[derive(Debug, Clone, Copy)]
enum Damage {
    Lose,
    Cut,
    /// One bit, at this share of the object.
    Flip(usize),
}

const DAMAGES: [Damage; 5] = [
    Damage::Lose,
    Damage::Cut,
    Damage::Flip(10),
    Damage::Flip(50),
    Damage::Flip(99),
];

async fn objects(store: &dyn ObjectStore) -> Vec<(Path, Vec<u8>)> {
    let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
    let mut objects = Vec::new();
    for found in listed {
        let bytes = store
            .get(&found.location)
            .await
            .unwrap()
            .bytes()
            .await
            .unwrap();
        objects.push((found.location, bytes.to_vec()));
    }
    objects
}

async fn damage(store: &dyn ObjectStore, path: &Path, bytes: &[u8], how: Damage) {
    let mut bytes = bytes.to_vec();
    match how {
        Damage::Lose => return store.delete(path).await.unwrap(),
        Damage::Cut => bytes.truncate(bytes.len() / 2),
        Damage::Flip(percent) => {
            let at = bytes.len() * percent / 100;
            bytes[at] ^= 4;
        }
    }
    store.put(path, PutPayload::from(bytes)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn no_damage_gives_other_bytes() {
    let (world, source) = (World::new().await, Files::new());
    std::fs::create_dir_all(source.path().join("d/e")).unwrap();
    for number in 0..100 {
        put(
            &source.path().join(format!("d/{number}")),
            &text(number, 500),
        );
    }
    put(&source.path().join("d/e/large"), &noise(1, 5 << 20));
    std::os::unix::fs::symlink("d/0", source.path().join("link")).unwrap();
    let (backup, _) = save(&world, folder(&source), None).await.unwrap();
    for (path, bytes) in objects(&*world.store).await {
        for how in DAMAGES {
            damage(&*world.store, &path, &bytes, how).await;
            let opened = World::open(world.store.clone(), world.project_id).await;
            if let Ok(reopened) = opened {
                let context = format!("{path} {how:?}");
                check(&reopened, backup, &source, &context).await;
            }
            let whole = PutPayload::from(bytes.clone());
            world.store.put(&path, whole).await.unwrap();
        }
    }
    check(&world.reopen().await, backup, &source, "mended").await;
}

/// What is restored is right, or the verification knew that it would not be.
async fn check(world: &World, backup: cairn_types::BackupId, source: &Files, context: &str) {
    let target = Files::new();
    let restored = restore(world, backup, &target).await;
    let report = world
        .project
        .verify(VerifyLevel::Full, Default::default())
        .await;
    match restored {
        Ok(_) => assert_same(source.path(), target.path()),
        Err(error) => {
            let kinds = [Kind::Corrupt, Kind::NotFound, Kind::Invalid];
            assert!(kinds.contains(&error.kind()), "{context}: {error:?}");
            let clean = report.is_ok_and(|report| report.is_clean() && report.backups == 1);
            assert!(
                !clean,
                "{context}: {error}, and the verification finds nothing"
            );
        }
    }
}
