//! The peers, each as its users would run it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::compare::{copy_tree, same_below, update_tree};
use super::figure::{Figure, Figures};
use super::process::{Took, run};
use super::{Generations, Workload, folder_bytes, place_image};

/// What is backed up lies here, whichever generation it is.
const SUBJECT: &str = "subject";

/// A peer's commands, each ready to run in the place.
struct Peer<'a> {
    init: Command,
    backup: &'a dyn Fn(&str) -> Command,
    restore: &'a dyn Fn(&Path) -> Command,
    verify: Command,
    delete_first: Vec<Command>,
}

/// restic at its defaults.
pub fn restic(workload: Workload, generations: &Generations, place: &Path) -> Result<Figures> {
    let restic = |arguments: &[&str]| {
        let mut command = Command::new("restic");
        command
            .env("RESTIC_PASSWORD", "benchmark")
            .env("RESTIC_CACHE_DIR", place.join("cache"))
            .current_dir(place)
            .args(["--repo", "repository"])
            .args(arguments);
        command
    };
    let peer = Peer {
        init: restic(&["init"]),
        backup: &|name| restic(&["backup", "--tag", name, SUBJECT]),
        restore: &|target| {
            let mut command = restic(&["restore", "latest", "--sparse", "--target"]);
            command.arg(target);
            command
        },
        verify: restic(&["check", "--read-data"]),
        delete_first: vec![restic(&[
            "forget",
            "--prune",
            "--group-by",
            "paths",
            "--keep-tag",
            "second",
        ])],
    };
    measure(peer, workload, generations, place)
}

/// rustic at its defaults; removed packs go at once.
pub fn rustic(workload: Workload, generations: &Generations, place: &Path) -> Result<Figures> {
    let rustic = |arguments: &[&str]| {
        let mut command = Command::new("rustic");
        command
            .env("RUSTIC_PASSWORD", "benchmark")
            .env("RUSTIC_CACHE_DIR", place.join("cache"))
            .env("RUSTIC_REPOSITORY", "repository")
            .env("HOME", place)
            .current_dir(place)
            .args(arguments);
        command
    };
    let peer = Peer {
        init: rustic(&["init"]),
        backup: &|name| rustic(&["backup", "--tag", name, SUBJECT]),
        restore: &|target| {
            let mut command = rustic(&["restore", "latest"]);
            command.arg(target);
            command
        },
        verify: rustic(&["check", "--read-data"]),
        delete_first: vec![rustic(&[
            "forget",
            "--prune",
            "--instant-delete",
            "--keep-tags",
            "second",
        ])],
    };
    measure(peer, workload, generations, place)
}

/// borg 1 with its default chunker, zstd level 3, and encryption.
pub fn borg(workload: Workload, generations: &Generations, place: &Path) -> Result<Figures> {
    let repository = place.join("repository");
    let borg = |arguments: &[&str]| {
        let mut command = Command::new("borg");
        command
            .env("BORG_PASSPHRASE", "benchmark")
            .env("BORG_BASE_DIR", place.join("base"))
            .env("BORG_REPO", &repository)
            .current_dir(place)
            .args(arguments);
        command
    };
    let peer = Peer {
        init: borg(&["init", "--encryption", "repokey-blake2"]),
        backup: &|name| {
            let archive = format!("::{name}-{{now:%s}}");
            borg(&["create", "--compression", "zstd,3", &archive, SUBJECT])
        },
        restore: &|target| {
            let last = Command::new("borg")
                .env("BORG_PASSPHRASE", "benchmark")
                .env("BORG_BASE_DIR", place.join("base"))
                .env("BORG_REPO", &repository)
                .args(["list", "--short", "--last", "1"])
                .output();
            let name = last.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
            let mut command = borg(&["extract", "--sparse"]);
            command
                .arg(format!("::{}", name.unwrap_or_default()))
                .current_dir(target);
            command
        },
        verify: borg(&["check", "--verify-data"]),
        delete_first: vec![
            borg(&["delete", "--glob-archives", "first-*"]),
            borg(&["compact"]),
        ],
    };
    measure(peer, workload, generations, place)
}

fn measure(
    mut peer: Peer<'_>,
    workload: Workload,
    generations: &Generations,
    place: &Path,
) -> Result<Figures> {
    let (repository, target) = (place.join("repository"), place.join("restored"));
    let mut figures = Figures::new();
    run(&mut peer.init)?;
    let empty = folder_bytes(&repository)?;
    let subject = place.join(SUBJECT);
    match workload {
        Workload::Disk => place_image(&generations.first, &subject)?,
        Workload::Tree => copy_tree(&generations.first, &subject)?,
    }
    let full = run(&mut (peer.backup)("first"))?;
    note(&mut figures, (Figure::Full, Figure::FullPeak), full);
    let full_bytes = folder_bytes(&repository)?;
    figures.insert(Figure::FullBytes, (full_bytes - empty) as f64);
    if workload == Workload::Tree {
        let again = run(&mut (peer.backup)("first"))?;
        figures.insert(Figure::Again, again.seconds);
    }
    let before = folder_bytes(&repository)?;
    match workload {
        Workload::Disk => place_image(&generations.second, &subject)?,
        Workload::Tree => update_tree(&generations.first, &generations.second, &subject)?,
    }
    let incremental = run(&mut (peer.backup)("second"))?;
    note(
        &mut figures,
        (Figure::Incremental, Figure::IncrementalPeak),
        incremental,
    );
    let growth = folder_bytes(&repository)? - before;
    figures.insert(Figure::Growth, growth as f64);
    fs::create_dir(&target)?;
    let restore = run(&mut (peer.restore)(&target))?;
    note(
        &mut figures,
        (Figure::Restore, Figure::RestorePeak),
        restore,
    );
    ensure!(
        same_below(&target, &subject)?,
        "something else was restored"
    );
    let verify = run(&mut peer.verify)?;
    note(&mut figures, (Figure::Verify, Figure::VerifyPeak), verify);
    let mut delete = Took {
        seconds: 0.0,
        peak_bytes: 0,
    };
    for command in &mut peer.delete_first {
        let took = run(command)?;
        delete.seconds += took.seconds;
        delete.peak_bytes = delete.peak_bytes.max(took.peak_bytes);
    }
    note(&mut figures, (Figure::Delete, Figure::DeletePeak), delete);
    Ok(figures)
}

fn note(figures: &mut Figures, (time, peak): (Figure, Figure), took: Took) {
    figures.insert(time, took.seconds);
    figures.insert(peak, took.peak_bytes as f64);
}
