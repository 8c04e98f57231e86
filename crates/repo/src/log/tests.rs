#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use cairn_types::Kind;
use object_store::memory::InMemory;

use super::*;

fn store() -> Objects {
    Objects::new(Arc::new(InMemory::new()))
}

async fn open(objects: &Objects) -> Log {
    try_open(objects).await.unwrap()
}

async fn try_open(objects: &Objects) -> Result<Log> {
    Log::open(
        objects.clone(),
        Zeroizing::new([7; 32]),
        RepositoryId([1; 16]),
    )
    .await
}

fn packs(project: ProjectId, byte: u8) -> Condemned {
    Condemned {
        project,
        packs: vec![PackId([byte; 16]), PackId([byte + 1; 16])],
    }
}

#[test]
fn an_entry_survives_its_bytes_and_nothing_else_is_one() {
    let project = ProjectId::random();
    for act in [Act::Opened, Act::Condemned(packs(project, 3))] {
        let entry = Entry {
            writer: [9; 16],
            from: 12,
            act,
        };
        let bytes = entry.encode();
        assert_eq!(Entry::decode(&bytes).unwrap(), entry);
        assert!(Entry::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(Entry::decode(&[&bytes[..], &[0]].concat()).is_err());
    }
}

#[tokio::test]
async fn who_opens_last_is_the_writer() {
    let objects = store();
    let first = open(&objects).await;
    first.check().await.unwrap();
    let second = open(&objects).await;
    second.check().await.unwrap();
    assert_eq!(first.check().await.unwrap_err().kind(), Kind::Conflict);
    let late = first.condemn(packs(ProjectId::random(), 1)).await;
    assert_eq!(late.unwrap_err().kind(), Kind::Conflict);
    let third = open(&objects).await;
    let condemned = third.state.lock().await.condemned.len();
    assert_eq!(condemned, 0, "a fenced writer has condemned nothing");
}

#[tokio::test]
async fn what_is_condemned_stays_so_until_it_is_settled() {
    let objects = store();
    let (one, other) = (ProjectId::random(), ProjectId::random());
    let log = open(&objects).await;
    let slot = log.condemn(packs(one, 1)).await.unwrap();
    log.condemn(packs(other, 5)).await.unwrap();
    log.check().await.unwrap();
    // The next writer finds both, settles one; the one behind it finds the other.
    let log = open(&objects).await;
    assert_eq!(
        log.condemned(one).await,
        vec![(slot, packs(one, 1).packs)],
        "it is found again"
    );
    log.settle(slot).await;
    log.condemn(packs(one, 9)).await.unwrap();
    let log = open(&objects).await;
    assert_eq!(log.condemned(one).await[0].1, packs(one, 9).packs);
    assert_eq!(log.condemned(other).await[0].1, packs(other, 5).packs);
}

#[tokio::test]
async fn the_log_stays_short_and_an_old_writer_finds_itself_fenced_for_ever() {
    let objects = store();
    let project = ProjectId::random();
    let old = open(&objects).await;
    let log = open(&objects).await;
    for _ in 0..3 * KEPT {
        let slot = log.condemn(packs(project, 1)).await.unwrap();
        log.settle(slot).await;
    }
    let slots = objects.log_slots().await.unwrap();
    assert!(slots.len() as u64 <= KEPT + 2, "{} entries", slots.len());
    assert!(slots[0] > 2, "the slot that fences the old writer is free");
    assert_eq!(old.check().await.unwrap_err().kind(), Kind::Conflict);

    // So does one that wakes up in the middle of making its entry.
    let objects = store();
    let (old, log) = (open(&objects).await, open(&objects).await);
    for _ in 0..3 * KEPT {
        let slot = log.condemn(packs(project, 1)).await.unwrap();
        log.settle(slot).await;
    }
    let late = old.condemn(packs(project, 77)).await;
    assert_eq!(late.unwrap_err().kind(), Kind::Conflict);
    let next = open(&objects).await;
    let condemned = next.condemned(project).await;
    assert!(
        condemned
            .iter()
            .all(|(_, c)| *c != packs(project, 77).packs),
        "its entry is void"
    );
    assert_eq!(log.check().await.unwrap_err().kind(), Kind::Conflict);
}

#[tokio::test]
async fn of_two_that_open_at_once_one_is_the_writer() {
    let objects = store();
    let opened = futures::future::join_all((0..4).map(|_| try_open(&objects))).await;
    let mut writers = 0;
    for log in opened.iter().flatten() {
        writers += u32::from(log.check().await.is_ok());
    }
    assert_eq!(writers, 1);
}

#[tokio::test]
async fn a_damaged_entry_that_counts_is_no_empty_log() {
    let objects = store();
    open(&objects).await;
    let mut bytes = objects.get(&log_path(1)).await.unwrap().unwrap().to_vec();
    bytes[40] ^= 1;
    objects.put(&log_path(1), bytes).await.unwrap();
    let refused = try_open(&objects).await.map(drop);
    assert_eq!(refused.unwrap_err().kind(), Kind::Corrupt);
}
