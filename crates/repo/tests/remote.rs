//! The store behind a network, with every ailment in turn, on a clock that
//! jumps; and limits on what is asked of a store.

use std::sync::Arc;
use std::time::Duration;

use cairn_repo::{Creation, LimitedStore, Limits, RemoteStore, RetryPolicy};
use cairn_testkit::{AilingStore, Ailment, Course, Fate, Request};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, Result};
use tokio::time::Instant;

use crate::common::conformance::{self, names, read};

fn remote(inner: AilingStore) -> RemoteStore<AilingStore> {
    RemoteStore::new(inner, RetryPolicy::default(), Creation::Conditional)
}

fn path(name: &str) -> Path {
    Path::from(name)
}

async fn create(store: &dyn ObjectStore, name: &str, text: &'static str) -> Result<()> {
    let options = PutOptions::from(PutMode::Create);
    store
        .put_opts(&path(name), text.into(), options)
        .await
        .map(drop)
}

/// Everything that a repository does with its store. What is answered must be
/// right; any request may fail.
async fn everything(store: &dyn ObjectStore, lists_may_lie: bool) -> Result<()> {
    store.put(&path("a/1"), "replaced".into()).await?;
    assert_eq!(read(store, "a/1").await?, b"replaced");
    create(store, "a/new", "mine").await?;
    assert_eq!(read(store, "a/new").await?, b"mine");
    match create(store, "a/new", "else").await {
        Err(StoreError::AlreadyExists { .. }) => {}
        Err(error) => return Err(error),
        Ok(()) => panic!("it was created twice"),
    }
    assert_eq!(read(store, "a/new").await?, b"mine");
    let mut upload = store.put_multipart(&path("u/p")).await?;
    for part in ["one ", "two ", "three"] {
        upload.put_part(part.into()).await?;
    }
    upload.complete().await?;
    assert_eq!(read(store, "u/p").await?, b"one two three");
    let mut given_up = store.put_multipart(&path("u/never")).await?;
    given_up.put_part("x".into()).await?;
    given_up.abort().await?;
    let listed: Vec<_> = store.list(Some(&path("a"))).try_collect().await?;
    let listed: Vec<_> = listed.iter().map(|meta| meta.location.as_ref()).collect();
    assert!(
        lists_may_lie || listed == ["a/1", "a/2", "a/3", "a/new"],
        "{listed:?}"
    );
    store.delete(&path("a/2")).await?;
    match store.get(&path("a/2")).await {
        Err(StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => panic!("it was deleted"),
    }
}

/// What no store can notice: the repository above it does, by seals, or does
/// not rely on it.
fn goes_unnoticed(ailment: Ailment) -> bool {
    matches!(
        ailment.fate,
        Fate::Flipped | Fate::Other | Fate::Stale | Fate::Partial | Fate::Empty | Fate::Twice
    )
}

/// What is found done when it is asked for again, however often the answer is lost.
fn is_found_done(ailment: Ailment) -> bool {
    let once = matches!(ailment.request, Request::Create | Request::Complete);
    once && matches!(ailment.fate, Fate::AnswerLost | Fate::Hangs)
}

#[tokio::test(start_paused = true)]
async fn every_ailment_passes_unseen_if_it_passes_and_is_an_error_if_it_stays() {
    let visible = Ailment::ALL
        .iter()
        .filter(|ailment| !goes_unnoticed(**ailment));
    for ailment in visible {
        for course in [Course::Once(0), Course::Once(1), Course::From(0)] {
            let inner = AilingStore::new();
            for name in ["a/1", "a/2", "a/3"] {
                inner.put(&path(name), name.into()).await.unwrap();
            }
            inner.fall_ill(*ailment, course).await;
            let began = Instant::now();
            let done = everything(&remote(inner.clone()), false).await;
            let met = inner.recover();
            let shown = match course {
                Course::Once(at) | Course::From(at) => met > at,
            };
            let what = format!("{ailment:?} {course:?}, met {met} times: {done:?}");
            assert!(met > 0, "{what}");
            let stays = course == Course::From(0) && !is_found_done(*ailment);
            // Found out when the upload is complete, and then it is too late to mend.
            let beyond_mending = (ailment.request, ailment.fate) == (Request::Part, Fate::Cut);
            assert_eq!(done.is_err(), shown && (stays || beyond_mending), "{what}");
            // Each request has its patience, and the last answer takes its time.
            assert!(began.elapsed() < Duration::from_secs(2 * 180), "{what}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_bytes_and_names_are_handed_on_as_they_are() {
    for ailment in Ailment::ALL
        .iter()
        .filter(|ailment| goes_unnoticed(**ailment))
    {
        let inner = AilingStore::new();
        inner.put(&path("a/1"), "a/1".into()).await.unwrap();
        inner.fall_ill(*ailment, Course::From(0)).await;
        let store = remote(inner.clone());
        match ailment.request {
            Request::Get => assert_ne!(read(&store, "a/1").await.unwrap(), b"a/1"),
            _ => assert!(names(&store, "a").await.len() <= 2),
        }
        assert!(inner.recover() > 0, "{ailment:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_made_dependable_conforms() {
    conformance::conforms(&remote(AilingStore::new())).await;
    let alone = RemoteStore::new(AilingStore::new(), RetryPolicy::default(), Creation::Alone);
    conformance::conforms(&alone).await;
}

#[tokio::test(start_paused = true)]
async fn what_another_created_is_never_taken_for_ones_own() {
    let inner = AilingStore::new();
    let (one, two) = (remote(inner.clone()), remote(inner.clone()));
    // The first create of either takes effect and its answer is lost.
    let lost = Ailment {
        request: Request::Create,
        fate: Fate::AnswerLost,
    };
    inner.fall_ill(lost, Course::Once(0)).await;
    create(&one, "log/1", "opened by one").await.unwrap();
    let refused = create(&two, "log/1", "opened by two").await;
    assert!(
        matches!(refused, Err(StoreError::AlreadyExists { .. })),
        "{refused:?}"
    );
    assert_eq!(read(&one, "log/1").await.unwrap(), b"opened by one");
}

#[tokio::test(start_paused = true)]
async fn restic_4612_list_error_is_not_empty() {
    for fate in [Fate::Refused, Fate::Breaks] {
        let inner = AilingStore::new();
        for name in ["a/1", "a/2", "a/3"] {
            inner.put(&path(name), name.into()).await.unwrap();
        }
        let request = Request::List;
        inner
            .fall_ill(Ailment { request, fate }, Course::From(0))
            .await;
        let store = remote(inner.clone());
        let listed: Result<Vec<_>> = store.list(Some(&path("a"))).try_collect().await;
        assert!(listed.is_err(), "{listed:?}");
        let folders = store.list_with_delimiter(Some(&path("a"))).await;
        assert!(folders.is_err(), "{folders:?}");
        inner
            .fall_ill(Ailment { request, fate }, Course::Once(0))
            .await;
        assert_eq!(names(&store, "a").await, ["a/1", "a/2", "a/3"]);
    }
}

#[tokio::test(start_paused = true)]
async fn refusals_are_not_repeated() {
    let inner = AilingStore::new();
    let list = Ailment {
        request: Request::Head,
        fate: Fate::Refused,
    };
    inner.fall_ill(list, Course::Once(u64::MAX)).await;
    let store = remote(inner.clone());
    let missing = store.head(&path("nowhere")).await;
    assert!(matches!(missing, Err(StoreError::NotFound { .. })));
    assert_eq!(inner.recover(), 2, "absence is said twice and no more");
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_is_free_at_once() {
    let inner = AilingStore::new();
    let hangs = Ailment {
        request: Request::Put,
        fate: Fate::Hangs,
    };
    inner.fall_ill(hangs, Course::From(0)).await;
    let store = remote(inner);
    let began = Instant::now();
    let name = path("x");
    let put = store.put(&name, "x".into());
    let stopped = tokio::time::timeout(Duration::from_millis(5), put).await;
    assert!(stopped.is_err() && began.elapsed() < Duration::from_millis(10));
}

fn limited(limits: Limits) -> LimitedStore {
    LimitedStore::new(Arc::new(InMemory::new()), limits)
}

const MIB: usize = 1 << 20;

#[tokio::test(start_paused = true)]
async fn bytes_flow_at_their_rate_each_way() {
    let store = limited(Limits {
        upload_bytes_per_second: Some(MIB as u64),
        download_bytes_per_second: Some(4 * MIB as u64),
        requests: 8,
    });
    let began = Instant::now();
    let puts = (0..5).map(|n| {
        let store = store.clone();
        async move { store.put(&path(&n.to_string()), vec![0; MIB].into()).await }
    });
    futures::future::try_join_all(puts).await.unwrap();
    let mut upload = store.put_multipart(&path("u")).await.unwrap();
    let parts: Vec<_> = (0..3)
        .map(|_| upload.put_part(vec![0; 2 * MIB].into()))
        .collect();
    futures::future::try_join_all(parts).await.unwrap();
    upload.complete().await.unwrap();
    // 11 MiB; nobody waits behind the last two.
    let took = began.elapsed().as_secs_f64();
    assert!((8.9..9.2).contains(&took), "{took}");
    let began = Instant::now();
    for _ in 0..9 {
        store.get(&path("0")).await.unwrap().bytes().await.unwrap();
    }
    let took = began.elapsed().as_secs_f64();
    assert!((1.95..2.1).contains(&took), "{took}");
}

#[tokio::test(start_paused = true)]
async fn a_transfer_given_up_costs_the_others_nothing() {
    let store = limited(Limits {
        upload_bytes_per_second: Some(MIB as u64),
        ..Limits::default()
    });
    let put = |mib: usize| {
        let store = store.clone();
        async move {
            store
                .put(&path("x"), vec![0; mib * MIB].into())
                .await
                .map(drop)
        }
    };
    put(1).await.unwrap();
    let began = Instant::now();
    assert!(put(1000).now_or_never().is_none(), "it has to wait");
    put(1).await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(1100),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_under_way_than_allowed() {
    let inner = AilingStore::new();
    let hangs = Ailment {
        request: Request::Put,
        fate: Fate::Hangs,
    };
    inner.fall_ill(hangs, Course::From(0)).await;
    let limits = Limits {
        requests: 3,
        ..Limits::default()
    };
    let store = LimitedStore::new(Arc::new(inner.clone()), limits);
    let puts = (0..10).map(|n| {
        let store = store.clone();
        async move { store.put(&path(&n.to_string()), "x".into()).await }
    });
    let all = futures::future::join_all(puts);
    assert!(
        tokio::time::timeout(Duration::from_secs(1), all)
            .await
            .is_err()
    );
    assert_eq!(inner.recover(), 3);
    // Those that were given up have left their places.
    store.put(&path("after"), "x".into()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_listing_leaves_room_for_work_on_what_it_names() {
    let store = limited(Limits {
        requests: 1,
        ..Limits::default()
    });
    for n in 0..3 {
        store
            .put(&path(&format!("l/{n}")), "x".into())
            .await
            .unwrap();
    }
    let mut listed = store.list(Some(&path("l")));
    let mut read = 0;
    while let Some(meta) = listed.next().await {
        store.get(&meta.unwrap().location).await.unwrap();
        read += 1;
    }
    assert_eq!(read, 3);
}

#[tokio::test]
async fn a_limited_store_conforms() {
    conformance::conforms(&limited(Limits {
        requests: 4,
        ..Limits::default()
    }))
    .await;
}
