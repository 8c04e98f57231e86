//! Development tasks: `cargo xtask bench` times Cairn beside its peers, `cargo
//! xtask load` how many requests a second the API answers.

mod bench;
#[cfg(test)]
mod edges;
mod load;
mod server;

use clap::Parser;

/// Development tasks of Cairn.
#[derive(Debug, Parser)]
enum Command {
    /// Times full, incremental and restore beside restic and borg, on the
    /// workload that `bench/workload.py` made in a folder, and prints ratios.
    Bench(bench::Arguments),
    /// Asks a server with a large catalogue as fast as it can, and prints
    /// requests a second and how long they took.
    Load(load::Arguments),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Load(arguments) => load::run(&arguments),
    }
}
