//! Cairn itself: a server of its own, driven by the client verbs.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::compare::{changed_blocks, copy_tree, same, update_tree};
use super::figure::{Figure, Figures};
use super::process::{peak_bytes, reset_peak};
use super::{Generations, folder_bytes, place_image};
use crate::server::Server;

const CONFIG: &str = "[[source]]\nkind = \"images\"\nname = \"bench\"\npath = \"images\"\n";
const TREE_CONFIG: &str = "[[source]]\nkind = \"share\"\nname = \"subject\"\npath = \"subject\"\n\
    [[source]]\nkind = \"share\"\nname = \"target\"\npath = \"target\"\n";
const BLOCK_BYTES: usize = 64 << 10;
/// How long a collection may take to come to an end.
const COLLECTION_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(5);

/// One round with a disk: once with nothing to tell what has changed, and once
/// more, in a repository of its own, with change files.
pub fn disk(program: &Path, generations: &Generations, place: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    for (name, part) in [
        (
            "plain",
            unhinted as fn(&mut Figures, &Bench, &Generations, &Path) -> Result<()>,
        ),
        ("hinted", hinted),
    ] {
        let place = place.join(name);
        fs::create_dir_all(place.join("images"))?;
        let bench = Bench::start(program, &place, CONFIG)?;
        part(&mut figures, &bench, generations, &place)?;
        drop(bench);
        fs::remove_dir_all(&place)?;
    }
    Ok(figures)
}

/// One round with a tree: a share, and another one to restore to.
pub fn tree(program: &Path, generations: &Generations, place: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    let (subject, target) = (place.join("subject"), place.join("target"));
    copy_tree(&generations.first, &subject)?;
    fs::create_dir(&target)?;
    let bench = Bench::start(program, place, TREE_CONFIG)?;
    let empty = bench.stored()?;
    bench.vault("bench", "subject", &["--type", "turbo"])?;
    bench.backup(&mut figures, "first", (Figure::Full, Figure::FullPeak))?;
    let full = bench.stored()?;
    figures.insert(Figure::FullBytes, (full - empty) as f64);
    let mut unwanted = Figures::new();
    bench.backup(&mut unwanted, "again", (Figure::Full, Figure::FullPeak))?;
    figures.insert(Figure::Again, unwanted[&Figure::Full]);
    let before = bench.stored()?;
    update_tree(&generations.first, &generations.second, &subject)?;
    let second = (Figure::Incremental, Figure::IncrementalPeak);
    bench.backup(&mut figures, "second", second)?;
    figures.insert(Figure::Growth, (bench.stored()? - before) as f64);
    bench.restore(&mut figures, "second", &["--to", "target"])?;
    ensure!(
        same(&target, &generations.second)?,
        "something else was restored"
    );
    bench.verify(&mut figures)?;
    Ok(figures)
}

fn unhinted(
    figures: &mut Figures,
    bench: &Bench,
    generations: &Generations,
    place: &Path,
) -> Result<()> {
    let disk = place.join("images/disk.img");
    let empty = bench.stored()?;
    place_image(&generations.first, &disk)?;
    bench.vault("bench", "disk.img", &[])?;
    bench.backup(figures, "first", (Figure::Full, Figure::FullPeak))?;
    let full = bench.stored()?;
    figures.insert(Figure::FullBytes, (full - empty) as f64);
    place_image(&generations.second, &disk)?;
    let second = (Figure::Incremental, Figure::IncrementalPeak);
    bench.backup(figures, "second", second)?;
    figures.insert(Figure::Growth, (bench.stored()? - full) as f64);
    fs::remove_file(&disk)?;
    File::create(&disk)?.set_len(fs::metadata(&generations.second)?.len())?;
    bench.restore(figures, "second", &[])?;
    ensure!(
        same(&disk, &generations.second)?,
        "something else was restored"
    );
    bench.verify(figures)?;
    delete_beside_a_backup(figures, bench, &generations.first, place)
}

/// Deletes the first generation while another disk is backed up for the first
/// time, and waits until a collection has given its space back.
fn delete_beside_a_backup(
    figures: &mut Figures,
    bench: &Bench,
    first: &Path,
    place: &Path,
) -> Result<()> {
    write_other(first, &place.join("images/other.img"))?;
    bench.vault("other", "other.img", &[])?;
    let collected = || -> Result<usize> {
        let log = fs::read_to_string(place.join("log"))?;
        Ok(log.matches("a collection is done").count())
    };
    let before = collected()?;
    reset_peak(bench.server.id())?;
    bench.server.call(&["checkpoint", "create", "other"])?;
    let start = Instant::now();
    bench.server.call(&["backup", "delete", "first"])?;
    while collected()? == before {
        ensure!(start.elapsed() < COLLECTION_MAX, "nothing is collected");
        thread::park_timeout(LOOK);
    }
    figures.insert(Figure::Delete, start.elapsed().as_secs_f64());
    bench.note_peak(figures, Figure::DeletePeak)?;
    let newest = bench.newest_task("backup")?;
    ensure!(newest["status"] == "running", "the backup was over before");
    Ok(())
}

/// Writes an image of as much data as another that shares none of it.
fn write_other(image: &Path, other: &Path) -> Result<()> {
    let (mut from, to) = (File::open(image)?, File::create(other)?);
    let size = from.metadata()?.len();
    to.set_len(size)?;
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut offset = 0;
    while offset < size {
        let length = buffer.len().min((size - offset) as usize);
        from.read_exact(&mut buffer[..length])?;
        if buffer[..length].iter().any(|byte| *byte != 0) {
            buffer[..length].iter_mut().for_each(|byte| *byte ^= 0x5a);
            to.write_all_at(&buffer[..length], offset)?;
        }
        offset += length as u64;
    }
    Ok(())
}

fn hinted(
    figures: &mut Figures,
    bench: &Bench,
    generations: &Generations,
    place: &Path,
) -> Result<()> {
    let disk = place.join("images/disk.img");
    let changes = place.join("images/disk.img.changes");
    let changed = changed_blocks(&generations.first, &generations.second, BLOCK_BYTES)?;
    let size = fs::metadata(&generations.first)?.len();
    let mut unwanted = Figures::new();
    place_image(&generations.first, &disk)?;
    write_changes(&changes, ("-", "first"), size, &[])?;
    bench.vault("bench", "disk.img", &[])?;
    bench.backup(&mut unwanted, "first", (Figure::Full, Figure::FullPeak))?;
    place_image(&generations.second, &disk)?;
    write_changes(&changes, ("first", "second"), size, &changed)?;
    bench.backup(figures, "second", (Figure::Hinted, Figure::HintedPeak))?;
    let before = bench.stored()?;
    write_changes(&changes, ("second", "third"), size, &[])?;
    let again = (Figure::HintedAgain, Figure::HintedAgainPeak);
    bench.backup(figures, "third", again)?;
    figures.insert(Figure::HintedAgainBytes, (bench.stored()? - before) as f64);
    fs::remove_file(&disk)?;
    File::create(&disk)?.set_len(size)?;
    bench.restore(&mut unwanted, "third", &[])?;
    ensure!(
        same(&disk, &generations.second)?,
        "something else was restored"
    );
    Ok(())
}

/// Writes a change file as `docs/CHANGE-FILES.md` has it.
fn write_changes(
    path: &Path,
    (from, to): (&str, &str),
    size: u64,
    changed: &[(u64, u64)],
) -> Result<()> {
    let mut file = File::create(path)?;
    writeln!(file, "cairn-changes 1\nfrom {from}\nto {to}\nsize {size}")?;
    for (offset, length) in changed {
        writeln!(file, "{offset} {length}")?;
    }
    Ok(writeln!(file, "end")?)
}

/// A server, and where its data is.
struct Bench {
    server: Server,
    data: PathBuf,
}

impl Bench {
    fn start(program: &Path, place: &Path, config: &str) -> Result<Self> {
        Ok(Self {
            server: Server::start(program, place, config)?,
            data: place.join("data"),
        })
    }

    fn stored(&self) -> Result<u64> {
        folder_bytes(&self.data.join("repository"))
    }

    fn vault(&self, name: &str, resource: &str, more: &[&str]) -> Result<()> {
        let size = ["--size", "1000", "--resource", resource];
        let call = [&["vault", "create", name][..], &size, more].concat();
        self.server.call(&call).map(|_| ())
    }

    fn backup(
        &self,
        figures: &mut Figures,
        name: &str,
        (time, peak): (Figure, Figure),
    ) -> Result<()> {
        reset_peak(self.server.id())?;
        let call = ["checkpoint", "create", "bench", "--name", name, "--wait"];
        self.server.call(&call)?;
        figures.insert(time, self.last_task("backup")?);
        self.note_peak(figures, peak)
    }

    fn restore(&self, figures: &mut Figures, backup: &str, more: &[&str]) -> Result<()> {
        reset_peak(self.server.id())?;
        self.server
            .call(&[&["restore", backup, "--wait"][..], more].concat())?;
        figures.insert(Figure::Restore, self.last_task("restore")?);
        self.note_peak(figures, Figure::RestorePeak)
    }

    fn verify(&self, figures: &mut Figures) -> Result<()> {
        reset_peak(self.server.id())?;
        self.server.call(&["verify", "--full", "--wait"])?;
        figures.insert(Figure::Verify, self.last_task("verify")?);
        self.note_peak(figures, Figure::VerifyPeak)
    }

    fn note_peak(&self, figures: &mut Figures, peak: Figure) -> Result<()> {
        let bytes = peak_bytes(self.server.id()).context("the server has gone")?;
        figures.insert(peak, bytes as f64);
        Ok(())
    }

    /// How long the newest task of a type took, from the request to its end.
    fn last_task(&self, operation: &str) -> Result<f64> {
        let newest = self.newest_task(operation)?;
        ensure!(newest["status"] == "success", "the task failed: {newest}");
        Ok(seconds(&newest["ended_at"])? - seconds(&newest["created_at"])?)
    }

    fn newest_task(&self, operation: &str) -> Result<Value> {
        let tasks = self.server.call(&["task", "list"])?;
        let of_type = |task: &&Value| task["operation_type"] == operation;
        let newest = tasks
            .as_array()
            .context("a list of tasks")?
            .iter()
            .find(of_type);
        newest.cloned().context("the task is gone")
    }
}

/// An instant of the wire, in seconds since midnight; a round that goes over
/// midnight would be seen, its figure being negative.
fn seconds(instant: &Value) -> Result<f64> {
    let text = instant.as_str().context("an instant")?;
    let (_, time) = text.split_once('T').context("a date and a time")?;
    let mut sum = 0.0;
    for part in time.split(':') {
        sum = sum * 60.0 + part.parse::<f64>()?;
    }
    Ok(sum)
}
