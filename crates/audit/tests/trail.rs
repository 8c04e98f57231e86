//! The trail as it is written, tampered with, cut off and shared.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

use cairn_audit::{Head, Stage, Trace, Trail, TrailKey, Verified, verify};
use cairn_types::{Kind, Timestamp, UserId};

/// What somebody does to the text of a file.
type Change = fn(&str) -> String;

fn key() -> TrailKey {
    TrailKey::new(&[9; 32])
}

fn trace(name: &str) -> Trace {
    Trace {
        time: Timestamp::from_micros(1),
        stage: Stage::Answered,
        trace_name: name.to_owned(),
        resource_type: "vault".to_owned(),
        resource_id: None,
        method: "POST".to_owned(),
        target: "/v3/x/vaults".to_owned(),
        request_id: "req-1".to_owned(),
        user_id: Some(UserId::random()),
        access_key: None,
        project_id: None,
        source_ip: Some("127.0.0.1".to_owned()),
        forwarded_for: None,
        status: Some(200),
        error_code: None,
    }
}

async fn written(folder: &Path, names: &[&str]) {
    let trail = Trail::open(folder, key()).unwrap();
    for name in names {
        trail.add(&trace(name)).await.unwrap();
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names = Vec::new();
    verify(folder, &key(), None, |trace| names.push(trace.trace_name)).unwrap();
    names
}

fn check(folder: &Path, kept: Option<Head>) -> cairn_audit::Result<Verified> {
    verify(folder, &key(), kept, drop)
}

fn file(folder: &Path) -> std::path::PathBuf {
    folder.join("000001.jsonl")
}

#[tokio::test]
async fn traces_are_read_back_in_their_order_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), &["a", "b"]).await;
    written(folder.path(), &["c"]).await;
    assert_eq!(names(folder.path()), ["a", "b", "c"]);
}

#[tokio::test]
async fn two_writers_share_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let one = Trail::open(folder.path(), key()).unwrap();
    let other = Trail::open(folder.path(), key()).unwrap();
    for round in 0..20 {
        one.add(&trace(&format!("one {round}"))).await.unwrap();
        other.add(&trace(&format!("other {round}"))).await.unwrap();
    }
    assert_eq!(names(folder.path()).len(), 40);
}

#[tokio::test]
async fn traces_added_at_once_are_all_there() {
    let folder = tempfile::tempdir().unwrap();
    let trail = Trail::open(folder.path(), key()).unwrap();
    let adding = (0..500).map(|number| {
        let trail = trail.clone();
        async move { trail.add(&trace(&number.to_string())).await }
    });
    let mut running = tokio::task::JoinSet::new();
    adding.for_each(|add| drop(running.spawn(add)));
    while let Some(added) = running.join_next().await {
        added.unwrap().unwrap();
    }
    assert_eq!(names(folder.path()).len(), 500);
}

#[tokio::test]
async fn every_way_to_tamper_is_noticed() {
    let tamper: [(&str, Change); 6] = [
        ("a word changed", |text| {
            text.replacen("vaults", "vaulls", 1)
        }),
        ("a line removed", |text| {
            text.split_inclusive('\n').skip(1).collect()
        }),
        ("a line in the middle removed", |text| {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            [lines[0], lines[2]].concat()
        }),
        ("two lines exchanged", |text| {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            [lines[1], lines[0], lines[2]].concat()
        }),
        ("a line doubled", |text| {
            let lines: Vec<&str> = text.split_inclusive('\n').collect();
            [lines[0], lines[0], lines[1], lines[2]].concat()
        }),
        ("a line of another kind", |text| format!("{{}}\n{text}")),
    ];
    for (name, change) in tamper {
        let folder = tempfile::tempdir().unwrap();
        written(folder.path(), &["a", "b", "c"]).await;
        let text = fs::read_to_string(file(folder.path())).unwrap();
        fs::File::create(file(folder.path())).unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(file(folder.path()))
            .map(|mut file| std::io::Write::write_all(&mut file, change(&text).as_bytes()))
            .unwrap()
            .unwrap();
        let error = check(folder.path(), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt, "{name}: {error}");
    }
}

#[tokio::test]
async fn a_chain_made_with_another_key_does_not_pass() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), &["a"]).await;
    let other = TrailKey::new(&[1; 32]);
    assert!(verify(folder.path(), &other, None, drop).is_err());
}

#[tokio::test]
async fn lines_cut_off_the_end_are_noticed_by_a_head_that_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), &["a", "b"]).await;
    let head = check(folder.path(), None).unwrap().head;
    written(folder.path(), &["c"]).await;
    assert!(check(folder.path(), Some(head)).is_ok());
    let text = fs::read_to_string(file(folder.path())).unwrap();
    let first = text.find('\n').unwrap() as u64 + 1;
    let opened = fs::OpenOptions::new()
        .write(true)
        .open(file(folder.path()))
        .unwrap();
    opened.set_len(first).unwrap();
    assert!(check(folder.path(), None).is_ok());
    let head: Head = head.to_string().parse().unwrap();
    assert!(check(folder.path(), Some(head)).is_err());
}

#[tokio::test]
async fn a_line_that_was_never_finished_is_taken_away() {
    let folder = tempfile::tempdir().unwrap();
    written(folder.path(), &["a", "b"]).await;
    let length = fs::metadata(file(folder.path())).unwrap().len();
    let opened = fs::OpenOptions::new()
        .write(true)
        .open(file(folder.path()))
        .unwrap();
    opened.set_len(length - 5).unwrap();
    let verified = check(folder.path(), None).unwrap();
    assert!(verified.torn_end && verified.traces == 1);
    written(folder.path(), &["c"]).await;
    assert_eq!(names(folder.path()), ["a", "c"]);
}

#[tokio::test]
async fn lines_removed_under_a_writer_leave_a_gap() {
    type Removal = fn(&Path);
    let removals: [Removal; 2] = [
        |file| fs::remove_file(file).unwrap(),
        |file| drop(fs::File::create(file).unwrap()),
    ];
    for remove in removals {
        let folder = tempfile::tempdir().unwrap();
        let trail = Trail::open(folder.path(), key()).unwrap();
        trail.add(&trace("a")).await.unwrap();
        remove(&file(folder.path()));
        trail.add(&trace("b")).await.unwrap();
        let error = check(folder.path(), None).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }
}

#[tokio::test]
async fn while_the_trail_cannot_be_written_nobody_goes_on_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("audit");
    let trail = Trail::open(&place, key()).unwrap();
    fs::remove_dir_all(&place).unwrap();
    trail.add(&trace("a")).await.unwrap_err();
    trail.add_later(&trace("b")).await.unwrap_err();
    fs::create_dir(&place).unwrap();
    trail.add_later(&trace("c")).await.unwrap();
}
