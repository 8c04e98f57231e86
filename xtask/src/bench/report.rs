//! The table: each figure's median, and how many times as fast Cairn is.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::Result;

use super::{Figures, Images, Tool};

const MIB: f64 = (1 << 20) as f64;

/// A figure's column: its title and its value. Less is better in all of them.
type Column = (&'static str, fn(&Figures) -> f64);

const COLUMNS: [Column; 6] = [
    ("full, s", |figures| figures.full_seconds),
    ("incremental, s", |figures| figures.incremental_seconds),
    ("restore, s", |figures| figures.restore_seconds),
    ("repository, MiB", |figures| figures.full_bytes as f64 / MIB),
    ("growth, MiB", |figures| {
        figures.incremental_bytes as f64 / MIB
    }),
    ("peak memory, MiB", |figures| {
        figures.peak_bytes as f64 / MIB
    }),
];

/// Prints the medians, then each peer's figures over Cairn's of the same round.
pub fn print(tools: &[Tool], rounds: &[Vec<Figures>], images: &Images) -> Result<()> {
    for (name, path) in [("gen1", &images.first), ("gen2", &images.second)] {
        let metadata = fs::metadata(path)?;
        let allocated = metadata.blocks() as f64 * 512.0 / MIB;
        println!(
            "{name}: {:.0} MiB, {allocated:.0} MiB of it data",
            metadata.len() as f64 / MIB
        );
    }
    println!("medians of {} rounds\n", rounds.first().map_or(0, Vec::len));
    let titles: Vec<&str> = COLUMNS.iter().map(|(title, _)| *title).collect();
    println!(
        "| tool | {} |\n|---|{}",
        titles.join(" | "),
        "---|".repeat(COLUMNS.len())
    );
    for (tool, figures) in tools.iter().zip(rounds) {
        row(
            tool.name(),
            |column| median(figures.iter().map(column).collect()),
            2,
        );
    }
    let Some(ours) = tools.iter().position(|tool| *tool == Tool::Cairn) else {
        return Ok(());
    };
    for (tool, figures) in tools
        .iter()
        .zip(rounds)
        .filter(|(tool, _)| **tool != Tool::Cairn)
    {
        let ratio = |column: fn(&Figures) -> f64| {
            let pairs = figures.iter().zip(&rounds[ours]);
            median(
                pairs
                    .map(|(theirs, ours)| column(theirs) / column(ours))
                    .collect(),
            )
        };
        row(&format!("{} / cairn", tool.name()), ratio, 2);
    }
    Ok(())
}

fn row(name: &str, value: impl Fn(fn(&Figures) -> f64) -> f64, digits: usize) {
    let cells: Vec<String> = COLUMNS
        .iter()
        .map(|(_, column)| format!("{:.digits$}", value(*column)))
        .collect();
    println!("| {name} | {} |", cells.join(" | "));
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
