//! What the repository asks of an object store.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    UpdateVersion,
};

use super::noise;

pub async fn read(store: &dyn ObjectStore, path: &str) -> Result<Vec<u8>, StoreError> {
    let got = store.get(&Path::from(path)).await?;
    Ok(got.bytes().await?.to_vec())
}

pub async fn names(store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
    let listed = store.list(Some(&Path::from(prefix)));
    let metas: Vec<_> = listed.try_collect().await.unwrap();
    let mut names: Vec<_> = metas.iter().map(|meta| meta.location.to_string()).collect();
    names.sort();
    names
}

/// Held against a store that is empty at first.
pub async fn conforms(store: &dyn ObjectStore) {
    writes_replace_and_creations_do_not(store).await;
    what_was_seen_is_replaced_and_nothing_else(store).await;
    reads_give_the_range_asked_for(store).await;
    uploads_appear_when_they_are_complete(store).await;
    lists_go_by_whole_names(store).await;
    deletions_may_be_repeated(store).await;
}

async fn writes_replace_and_creations_do_not(store: &dyn ObjectStore) {
    let path = Path::from("w/one");
    assert!(matches!(
        store.get(&path).await,
        Err(StoreError::NotFound { .. })
    ));
    store.put(&path, "first".into()).await.unwrap();
    let parts = PutPayload::from_iter(["sec", "", "ond"].map(bytes::Bytes::from));
    store.put(&path, parts).await.unwrap();
    assert_eq!(read(store, "w/one").await.unwrap(), b"second");
    let create = PutOptions::from(PutMode::Create);
    let refused = store.put_opts(&path, "third".into(), create.clone()).await;
    assert!(
        matches!(refused, Err(StoreError::AlreadyExists { .. })),
        "{refused:?}"
    );
    assert_eq!(read(store, "w/one").await.unwrap(), b"second");
    store
        .put_opts(&Path::from("w/deep/two"), "".into(), create)
        .await
        .unwrap();
    assert_eq!(read(store, "w/deep/two").await.unwrap(), b"");
}

/// Where a store can tell; whoever asks knows what to do where it cannot.
async fn what_was_seen_is_replaced_and_nothing_else(store: &dyn ObjectStore) {
    let path = Path::from("v/one");
    store.put(&path, "first".into()).await.unwrap();
    let meta = store.get(&path).await.unwrap().meta;
    let seen = UpdateVersion {
        e_tag: meta.e_tag,
        version: meta.version,
    };
    let replace = |text: &'static str| {
        let options = PutOptions::from(PutMode::Update(seen.clone()));
        store.put_opts(&path, text.into(), options)
    };
    match replace("second").await {
        Ok(_) => {}
        Err(StoreError::NotSupported { .. }) => {
            return assert_eq!(read(store, "v/one").await.unwrap(), b"first");
        }
        Err(error) => panic!("{error}"),
    }
    let late = replace("third").await;
    assert!(
        matches!(late, Err(StoreError::Precondition { .. })),
        "{late:?}"
    );
    assert_eq!(read(store, "v/one").await.unwrap(), b"second");
}

async fn reads_give_the_range_asked_for(store: &dyn ObjectStore) {
    let (path, bytes) = (Path::from("r/big"), noise(1, 9 << 20));
    store.put(&path, bytes.clone().into()).await.unwrap();
    assert!(read(store, "r/big").await.unwrap() == bytes);
    for range in [
        0..1,
        5..5 << 20,
        (4 << 20) - 1..(8 << 20) + 1,
        (9 << 20) - 1..9 << 20,
    ] {
        let part = store.get_range(&path, range.clone()).await.unwrap();
        assert!(
            part[..] == bytes[range.start as usize..range.end as usize],
            "{range:?}"
        );
    }
    assert_eq!(store.head(&path).await.unwrap().size, 9 << 20);
    let behind = store.get_range(&path, 10 << 20..11 << 20).await;
    assert!(behind.is_err(), "a range behind the end");
    let over = store.get_range(&path, (9 << 20) - 2..10 << 20).await;
    assert!(
        over.is_ok_and(|part| part.len() == 2),
        "a range over the end is cut"
    );
}

async fn uploads_appear_when_they_are_complete(store: &dyn ObjectStore) {
    let path = Path::from("u/upload");
    let parts = [noise(2, 5 << 20), noise(3, 5 << 20), noise(4, 77)];
    let mut upload = store.put_multipart(&path).await.unwrap();
    let sent: Vec<_> = parts
        .iter()
        .map(|part| upload.put_part(part.clone().into()))
        .collect();
    // Parts may end in any order.
    for part in sent.into_iter().rev() {
        part.await.unwrap();
    }
    assert!(matches!(
        store.get(&path).await,
        Err(StoreError::NotFound { .. })
    ));
    upload.complete().await.unwrap();
    assert!(read(store, "u/upload").await.unwrap() == parts.concat());
    let mut given_up = store.put_multipart(&Path::from("u/never")).await.unwrap();
    given_up.put_part("x".into()).await.unwrap();
    given_up.abort().await.unwrap();
    drop(given_up);
    assert_eq!(names(store, "u").await, ["u/upload"]);
}

async fn lists_go_by_whole_names(store: &dyn ObjectStore) {
    for name in ["l/a/1", "l/a/2", "l/ab/3", "l/b"] {
        store.put(&Path::from(name), "x".into()).await.unwrap();
    }
    assert_eq!(names(store, "l/a").await, ["l/a/1", "l/a/2"]);
    assert_eq!(names(store, "l").await, ["l/a/1", "l/a/2", "l/ab/3", "l/b"]);
    assert_eq!(names(store, "nothing").await, Vec::<String>::new());
    let level = store
        .list_with_delimiter(Some(&Path::from("l")))
        .await
        .unwrap();
    let mut folders: Vec<_> = level.common_prefixes.iter().map(Path::as_ref).collect();
    folders.sort_unstable();
    assert_eq!(folders, ["l/a", "l/ab"]);
    assert_eq!(
        level
            .objects
            .iter()
            .map(|o| o.location.as_ref())
            .collect::<Vec<_>>(),
        ["l/b"]
    );
}

async fn deletions_may_be_repeated(store: &dyn ObjectStore) {
    store.put(&Path::from("d/1"), "x".into()).await.unwrap();
    for _ in 0..2 {
        let paths = ["d/1", "d/2"].map(|name| Ok(Path::from(name)));
        let deleted = store.delete_stream(stream::iter(paths).boxed());
        for answer in deleted.collect::<Vec<_>>().await {
            assert!(
                matches!(answer, Ok(_) | Err(StoreError::NotFound { .. })),
                "{answer:?}"
            );
        }
        assert_eq!(names(store, "d").await, Vec::<String>::new());
    }
}
