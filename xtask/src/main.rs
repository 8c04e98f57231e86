//! Development tasks: `cargo xtask bench` times Cairn beside its peers.

mod bench;
#[cfg(test)]
mod edges;

use clap::Parser;

/// Development tasks of Cairn.
#[derive(Debug, Parser)]
enum Command {
    /// Times full, incremental and restore beside restic and borg, on the
    /// workload that `bench/workload.py` made in a folder, and prints ratios.
    Bench(bench::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Bench(arguments) => bench::run(&arguments),
    }
}
