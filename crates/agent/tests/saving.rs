//! Files of a host saved by its agent: what comes back, and what goes over the line.

use std::fs;
use std::io::Write;
use std::sync::atomic::Ordering;

use cairn_agent::Rules;
use cairn_link::Instance;

use crate::common::files::{assert_same, generate, put};
use crate::common::{Link, Server, noise};

/// Later than any file of a test was changed.
const LATER: i64 = 100_000_000_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_trees_come_back_as_they_were() {
    let server = Server::new().await;
    for seed in 0..12 {
        let (files, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        generate(files.path(), seed);
        let link = Link::connected(&server).await;
        let (backup, written) = server
            .save(link.tree(&[files.path()]), None, LATER)
            .await
            .unwrap();
        assert_eq!(written.summary.listed, [], "seed {seed}");
        server
            .restore(backup, files.path(), target.path())
            .await
            .unwrap();
        assert_same(files.path(), target.path(), &format!("seed {seed}"));
        link.line.close();
    }
}

/// Else a backup could hold files of two hosts, one of which was cloned from the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_takes_the_answers_of_one_host() {
    let server = Server::new().await;
    let link = Link::new(&server, Rules::default());
    let [this, other] = [b"this", b"else"].map(|host| Instance::of(host));
    link.connect_as(this, 600).await.unwrap();
    link.line.lost().await;
    let refused = link.connect_as(other, u64::MAX).await;
    assert!(matches!(refused, Err(cairn_link::Error::OtherInstance)));
    assert!(!link.line.is_live());
    link.connect_as(this, u64::MAX).await.unwrap();
    assert!(link.line.is_live());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_breaks_all_the_time_carries_everything() {
    let server = Server::new().await;
    for seed in 100..106 {
        let (files, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        generate(files.path(), seed);
        let link = Link::new(&server, Rules::default());
        let connecting = link.keep_connecting(seed, 2 << 20);
        let (backup, _) = server
            .save(link.tree(&[files.path()]), None, LATER)
            .await
            .unwrap();
        drop(connecting);
        server
            .restore(backup, files.path(), target.path())
            .await
            .unwrap();
        assert_same(files.path(), target.path(), &format!("seed {seed}"));
        link.line.close();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_listings_and_what_is_new_come_over() {
    let (server, files) = (Server::new().await, tempfile::tempdir().unwrap());
    let large = noise(1, 64 << 20);
    put(&files.path().join("large"), &large);
    for number in 0..2000 {
        let folder = files.path().join(format!("{:02}", number / 100));
        fs::create_dir_all(&folder).unwrap();
        put(&folder.join(format!("{number}")), &noise(number, 700));
    }
    let link = Link::connected(&server).await;
    let tree = || link.tree(&[files.path()]);
    let (first, written) = server.save(tree(), None, LATER).await.unwrap();
    assert_eq!(written.summary.files, 2001);
    let sent = link.take_sent();
    assert!(sent > 65 << 20, "{sent}");

    // Nothing has changed: some bytes for each name.
    let (second, written) = server.save(tree(), Some(first), LATER).await.unwrap();
    assert_eq!(written.written.read_bytes, 0);
    let sent = link.take_sent();
    assert!(sent < 2001 * 60, "{sent}");

    // One byte more in the middle of a large file.
    let mut file = fs::File::create(files.path().join("large")).unwrap();
    file.write_all(&large[..32 << 20]).unwrap();
    file.write_all(b"!").unwrap();
    file.write_all(&large[32 << 20..]).unwrap();
    drop(file);
    let (third, written) = server.save(tree(), Some(second), LATER).await.unwrap();
    let sent = link.take_sent();
    assert!(sent < 3 << 19, "{sent}");
    assert!(written.written.read_bytes > 0);
    let target = tempfile::tempdir().unwrap();
    server
        .restore(third, files.path(), target.path())
        .await
        .unwrap();
    assert_same(files.path(), target.path(), "after an insertion");

    // A copy of what is stored already: its ids alone.
    fs::copy(files.path().join("large"), files.path().join("copy")).unwrap();
    server.save(tree(), Some(third), LATER).await.unwrap();
    let sent = link.take_sent();
    assert!(sent < 1 << 18, "{sent}");
    let asked = link.to_agent.load(Ordering::Relaxed);
    assert!(asked < 2 << 20, "{asked}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_directory_comes_in_parts() {
    let (server, files) = (Server::new().await, tempfile::tempdir().unwrap());
    let folder = files.path().join("many");
    fs::create_dir(&folder).unwrap();
    for number in 0..20_000 {
        put(&folder.join(format!("{number:05}")), b"");
    }
    let link = Link::connected(&server).await;
    let (backup, written) = server
        .save(link.tree(&[files.path()]), None, LATER)
        .await
        .unwrap();
    assert_eq!(written.summary.files, 20_000);
    let target = tempfile::tempdir().unwrap();
    server
        .restore(backup, files.path(), target.path())
        .await
        .unwrap();
    assert_same(files.path(), target.path(), "a large directory");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_a_problem_and_not_a_failure() {
    let (server, files) = (Server::new().await, tempfile::tempdir().unwrap());
    put(&files.path().join("there"), b"there");
    let (there, gone) = (files.path().join("there"), files.path().join("gone"));
    let link = Link::connected(&server).await;
    let tree = link.tree(&[&there, &gone]);
    let (_, written) = server.save(tree, None, LATER).await.unwrap();
    assert_eq!((written.summary.files, written.summary.problems), (1, 1));
    assert!(written.summary.listed[0].path.ends_with(b"gone"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_line_that_is_lost_fails_the_backup_and_not_its_files() {
    let (server, files) = (Server::new().await, tempfile::tempdir().unwrap());
    for number in 0..50 {
        put(
            &files.path().join(format!("{number}")),
            &noise(number, 90_000),
        );
    }
    let link = Link::new(&server, Rules::default());
    link.connect(1 << 20).await;
    let line = link.line.clone();
    let saving = server.save(link.tree(&[files.path()]), None, LATER);
    let closing = async {
        while line.is_live() {
            tokio::task::yield_now().await;
        }
        line.close();
    };
    let (saved, ()) = tokio::join!(saving, closing);
    assert_eq!(saved.unwrap_err().kind(), cairn_types::Kind::Transient);
}
