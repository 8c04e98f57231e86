//! The benchmark: the same disk and the same file tree through Cairn and its
//! peers in turn, what the machine itself can do, and the ratios.
//!
//! Cairn is measured as it is used: a server, driven over the API; a figure is
//! the time from the request until the task's end, by the server's own record.
//! The others are measured as processes, start to exit. Every restore is
//! compared with its source.

mod cairn;
mod compare;
mod figure;
mod limits;
mod peers;
mod process;
mod report;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;

use figure::Figures;

/// What the benchmark is given.
#[derive(Debug, Args)]
pub struct Arguments {
    /// The folder with `gen1.img` and `gen2.img`, `tree1` and `tree2`.
    folder: PathBuf,
    /// Rounds; in each, every tool runs once.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// The `cairn` program.
    #[arg(long, default_value = "target/release/cairn")]
    cairn: PathBuf,
    /// Which tools, in which order; one that is not installed is left out.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "limits,cairn,restic,rustic,borg"
    )]
    tools: Vec<Tool>,
    /// What is backed up.
    #[arg(long, value_delimiter = ',', default_value = "disk,tree")]
    workloads: Vec<Workload>,
}

/// A tool that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tool {
    /// What the machine can do.
    Limits,
    /// Ours.
    Cairn,
    /// restic, at its defaults.
    Restic,
    /// rustic, at its defaults.
    Rustic,
    /// borg 1, its default chunker, zstd level 3, encrypted.
    Borg,
}

/// What is backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// A disk's image, and the same a day later.
    Disk,
    /// A tree of small files, and the same a day later.
    Tree,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Limits => "limits",
            Self::Cairn => "cairn",
            Self::Restic => "restic",
            Self::Rustic => "rustic",
            Self::Borg => "borg",
        }
    }

    fn is_peer(self) -> bool {
        !matches!(self, Self::Limits | Self::Cairn)
    }
}

/// The two generations of what is backed up.
#[derive(Debug, Clone)]
pub struct Generations {
    first: PathBuf,
    second: PathBuf,
}

/// Runs the benchmark and prints its tables.
pub fn run(arguments: &Arguments) -> Result<()> {
    let folder = fs::canonicalize(&arguments.folder).context("the workload's folder")?;
    let program = fs::canonicalize(&arguments.cairn).context("build the release first")?;
    let tools: Vec<Tool> = arguments
        .tools
        .iter()
        .copied()
        .filter(|tool| installed(*tool))
        .collect();
    for workload in &arguments.workloads {
        let (first, second) = match workload {
            Workload::Disk => ("gen1.img", "gen2.img"),
            Workload::Tree => ("tree1", "tree2"),
        };
        let generations = Generations {
            first: folder.join(first),
            second: folder.join(second),
        };
        ensure!(
            generations.second.exists(),
            "{} holds no workload",
            folder.display()
        );
        let mut rounds: Vec<Vec<Figures>> = vec![Vec::new(); tools.len()];
        for round in 0..arguments.runs {
            for (tool, figures) in tools.iter().zip(&mut rounds) {
                warm(&generations.first)?;
                warm(&generations.second)?;
                let (name, runs) = (tool.name(), arguments.runs);
                eprintln!("{workload:?}, round {} of {runs}: {name}", round + 1);
                let place = folder.join(format!("work-{name}"));
                remove(&place)?;
                fs::create_dir_all(&place)?;
                let measured = measure(*tool, *workload, &program, &generations, &place);
                figures.push(measured.with_context(|| format!("{name} failed"))?);
                remove(&place)?;
            }
        }
        report::print(*workload, &tools, &rounds);
    }
    Ok(())
}

fn measure(
    tool: Tool,
    workload: Workload,
    program: &Path,
    generations: &Generations,
    place: &Path,
) -> Result<Figures> {
    match (tool, workload) {
        (Tool::Limits, Workload::Disk) => limits::disk(generations, place),
        (Tool::Limits, Workload::Tree) => limits::tree(generations, place),
        (Tool::Cairn, Workload::Disk) => cairn::disk(program, generations, place),
        (Tool::Cairn, Workload::Tree) => anyhow::bail!("trees come next"),
        (Tool::Restic, _) => peers::restic(workload, generations, place),
        (Tool::Rustic, _) => peers::rustic(workload, generations, place),
        (Tool::Borg, _) => peers::borg(workload, generations, place),
    }
}

fn installed(tool: Tool) -> bool {
    if !tool.is_peer() {
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

/// Reads everything, so that every tool finds it in the page cache.
fn warm(path: &Path) -> Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            warm(&entry?.path())?;
        }
    } else if metadata.is_file() {
        let mut buffer = vec![0; 1 << 20];
        let mut file = File::open(path)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(())
}

/// Makes `at` another name of a file, which costs nothing and copies nothing.
fn place_image(image: &Path, at: &Path) -> Result<()> {
    if at.exists() {
        fs::remove_file(at)?;
    }
    fs::hard_link(image, at).context("the workload must lie on one file system")
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
