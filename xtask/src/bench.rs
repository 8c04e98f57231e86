//! The benchmark: the same images through Cairn, restic and borg, in turn, and
//! the ratios between them.
//!
//! Cairn is measured as it is used: a server, a checkpoint, a restore over the
//! API; a figure is the time from the request until the task's end, by the
//! server's own record. The others are measured as processes, start to exit.
//! Every restore is compared with its source, byte for byte.

mod cairn;
mod peers;
mod process;
mod report;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

/// What the benchmark is given.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder with `gen1.img` and `gen2.img`.
    folder: PathBuf,
    /// Rounds; in each, every tool runs once.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The `cairn` program.
    #[arg(long, default_value = "target/release/cairn")]
    cairn: PathBuf,
    /// Which tools, in which order; one that is not installed is left out.
    #[arg(long, value_delimiter = ',', default_value = "cairn,restic,borg")]
    tools: Vec<Tool>,
}

/// A tool that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    /// Ours.
    Cairn,
    /// restic, at its defaults.
    Restic,
    /// borg 1, its default chunker, zstd level 3, encrypted.
    Borg,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Cairn => "cairn",
            Self::Restic => "restic",
            Self::Borg => "borg",
        }
    }
}

/// What one round of one tool measured: seconds and bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    full_seconds: f64,
    full_bytes: u64,
    incremental_seconds: f64,
    incremental_bytes: u64,
    restore_seconds: f64,
    peak_bytes: u64,
}

/// The two generations of the disk that is backed up.
pub struct Images {
    first: PathBuf,
    second: PathBuf,
}

/// Runs the benchmark and prints its table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = fs::canonicalize(&arguments.folder).context("the workload's folder")?;
    let images = Images {
        first: folder.join("gen1.img"),
        second: folder.join("gen2.img"),
    };
    ensure!(
        images.second.exists(),
        "{} holds no workload",
        folder.display()
    );
    let program = fs::canonicalize(&arguments.cairn).context("build the release first")?;
    let tools: Vec<Tool> = arguments
        .tools
        .iter()
        .copied()
        .filter(|tool| installed(*tool))
        .collect();
    let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); tools.len()];
    for round in 0..arguments.runs {
        for (tool, figures) in tools.iter().zip(&mut rounds) {
            warm(&images)?;
            eprintln!("round {} of {}: {}", round + 1, arguments.runs, tool.name());
            let place = folder.join(format!("work-{}", tool.name()));
            remove(&place)?;
            fs::create_dir_all(&place)?;
            let measured = match tool {
                Tool::Cairn => cairn::measure(&program, &images, &place),
                Tool::Restic => peers::restic(&images, &place),
                Tool::Borg => peers::borg(&images, &place),
            };
            figures.push(measured.with_context(|| format!("{} failed", tool.name()))?);
            remove(&place)?;
        }
    }
    report::print(&tools, &rounds, &images)
}

fn installed(tool: Tool) -> bool {
    if tool == Tool::Cairn {
        return true;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join(tool.name()).exists());
    if !found {
        eprintln!("{} is not installed and is left out", tool.name());
    }
    found
}

fn remove(place: &Path) -> Result<()> {
    match fs::remove_dir_all(place) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Reads both images, so that every tool finds them in the page cache.
fn warm(images: &Images) -> Result<()> {
    let mut buffer = vec![0; 4 << 20];
    for path in [&images.first, &images.second] {
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// Makes `at` another name of an image, which costs nothing and copies nothing.
fn place_image(image: &Path, at: &Path) -> Result<()> {
    if at.exists() {
        fs::remove_file(at)?;
    }
    fs::hard_link(image, at).context("the workload must lie on one file system")
}

/// Whether two files hold the same bytes.
fn same(one: &Path, other: &Path) -> Result<bool> {
    let (mut one, mut other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 4 << 20], vec![0; 4 << 20]);
    loop {
        let count = one.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        other.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}

/// The bytes of all files below a folder.
fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() {
            folder_bytes(&entry.path())?
        } else {
            metadata.len()
        };
    }
    Ok(bytes)
}
