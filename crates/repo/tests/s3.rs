//! The store in a bucket, against a real S3 server where `CAIRN_TEST_S3` names
//! one, as `scripts/with_s3.sh` does.

use std::sync::Arc;
use std::time::Duration;

use cairn_repo::{
    Creation, Error, LimitedStore, Limits, Repository, Result, RetryPolicy, S3Config,
    S3Credentials, S3Store, VerifyLevel,
};
use cairn_testkit::MemoryDisk;
use cairn_types::{Kind, Progress, ProjectId};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions};

use crate::common::{BLOCK, World, conformance, kind, master, noise};

/// A place of its own in the test server's bucket; nothing where there is no server.
fn bucket() -> Option<S3Config> {
    let endpoint = std::env::var("CAIRN_TEST_S3").ok()?;
    let variable = |name| std::env::var(name).expect("it comes with CAIRN_TEST_S3");
    Some(S3Config {
        bucket: "cairn".to_owned(),
        prefix: format!("{}/deep", ProjectId::random()),
        endpoint: Some(endpoint),
        region: "us-east-1".to_owned(),
        credentials: S3Credentials {
            access_key: variable("AWS_ACCESS_KEY_ID"),
            secret_key: variable("AWS_SECRET_ACCESS_KEY").into(),
            session_token: None,
        },
        path_style: true,
        checksums: true,
        creation: Creation::Conditional,
        ca_file: None,
        retry: RetryPolicy {
            attempts: 3,
            first_pause: Duration::from_millis(10),
            ..RetryPolicy::default()
        },
    })
}

#[tokio::test]
async fn a_bucket_conforms() {
    let Some(config) = bucket() else { return };
    let store = S3Store::open(&config).await.unwrap();
    let left: Vec<_> = store.list(None).try_collect().await.unwrap();
    assert!(left.is_empty(), "trying out leaves something: {left:?}");
    conformance::conforms(&store).await;
}

#[tokio::test]
async fn a_bucket_without_checksums_and_conditions_conforms() {
    let Some(mut config) = bucket() else { return };
    config.checksums = false;
    config.creation = Creation::Alone;
    conformance::conforms(&S3Store::open(&config).await.unwrap()).await;
}

#[tokio::test]
async fn of_many_that_create_the_same_object_one_does() {
    let Some(config) = bucket() else { return };
    let store = S3Store::open(&config).await.unwrap();
    for round in 0..5 {
        let path = Path::from(format!("log/{round}"));
        let attempts = (0..8).map(|writer| {
            let options = PutOptions::from(PutMode::Create);
            let own = format!("opened by writer {writer}");
            store.put_opts(&path, own.into(), options)
        });
        let answers = futures::future::join_all(attempts).await;
        let winners = answers.iter().filter(|answer| answer.is_ok()).count();
        let refused = answers
            .iter()
            .filter(|answer| matches!(answer, Err(StoreError::AlreadyExists { .. })));
        assert_eq!((winners, refused.count()), (1, 7), "{answers:?}");
    }
}

#[tokio::test]
async fn a_listing_of_several_pages_is_whole() {
    let Some(config) = bucket() else { return };
    let store = S3Store::open(&config).await.unwrap();
    let names: Vec<Path> = (0..1234).map(|n| Path::from(format!("n/{n:04}"))).collect();
    let puts = names.iter().map(|name| store.put(name, "x".into()));
    let put: Vec<_> = futures::stream::iter(puts)
        .buffered(16)
        .try_collect()
        .await
        .unwrap();
    assert_eq!(put.len(), names.len());
    let listed: Vec<_> = store
        .list(Some(&Path::from("n")))
        .try_collect()
        .await
        .unwrap();
    let mut listed: Vec<Path> = listed.into_iter().map(|meta| meta.location).collect();
    listed.sort();
    assert_eq!(listed, names);
    let behind: Vec<_> = store
        .list_with_offset(Some(&Path::from("n")), &names[999])
        .try_collect()
        .await
        .unwrap();
    assert_eq!(
        behind.len(),
        234,
        "a listing that broke off goes on behind a name"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_in_a_bucket_is_written_deleted_collected_verified_and_restored() {
    let Some(config) = bucket() else { return };
    let store = S3Store::open(&config).await.unwrap();
    let limits = Limits {
        requests: 4,
        ..Limits::default()
    };
    let store = Arc::new(LimitedStore::new(Arc::new(store), limits));
    let world = World::on(store).await;
    // More than one part of an upload, and more than one pack.
    let disk = Arc::new(MemoryDisk::with(&noise(5, 1200 * BLOCK + 9)));
    let (dead, _) = world.write(&disk).await.unwrap();
    disk.write(0, &noise(6, 800 * BLOCK));
    let (backup, _) = world.write(&disk).await.unwrap();
    world.project.delete(dead).await.unwrap();
    let progress = || Arc::new(Progress::default());
    let done = world.project.collect(&[], progress()).await.unwrap();
    assert!(done.packs_rewritten > 0, "{done:?}");
    let read_only: Arc<dyn ObjectStore> = Arc::new(S3Store::open_read_only(&config).await.unwrap());
    let repository = Repository::open(read_only, &master()).await.unwrap();
    let project = repository.existing_project(world.project_id).await.unwrap();
    let report = project.verify(VerifyLevel::Full, progress()).await.unwrap();
    assert!(report.is_clean() && report.backups == 1, "{report:?}");
    let target = Arc::new(MemoryDisk::new(1200 * BLOCK as u64 + 9));
    project
        .restore_disk(backup, target.clone(), progress())
        .await
        .unwrap();
    assert!(target.bytes() == disk.bytes());
    assert_eq!(kind(project.delete(backup).await), Kind::Denied);
}

fn message(opened: Result<S3Store>) -> (Kind, String) {
    let error: Error = opened.map(drop).unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    (error.kind(), text)
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let Some(config) = bucket() else { return };
    let mut stranger = config.clone();
    stranger.credentials.access_key = "nobody".to_owned();
    let mut liar = config.clone();
    liar.credentials.secret_key = "another".to_owned().into();
    for wrong in [stranger, liar] {
        let (kind, text) = message(S3Store::open(&wrong).await);
        assert_eq!(kind, Kind::Denied, "{text}");
        assert!(text.contains("s3://cairn/"), "{text}");
        assert!(!text.contains("cairn-test-secret"), "{text}");
    }
    let mut nowhere = config.clone();
    nowhere.bucket = "not-there".to_owned();
    for opened in [
        S3Store::open(&nowhere).await,
        S3Store::open_read_only(&nowhere).await,
    ] {
        let (kind, text) = message(opened);
        assert_eq!(kind, Kind::Transient, "{text}");
        assert!(text.contains("NoSuchBucket"), "{text}");
    }
    let mut silent = config;
    silent.endpoint = Some("http://127.0.0.1:1".to_owned());
    let (kind, text) = message(S3Store::open(&silent).await);
    assert_eq!(kind, Kind::Transient, "{text}");
}
