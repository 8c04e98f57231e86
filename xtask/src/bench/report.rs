//! The tables: each figure's median by tool, and how many times as much of it
//! the peers take.

use super::figure::{Figure, Figures, Unit};
use super::{Tool, Workload};

const MIB: f64 = (1 << 20) as f64;

/// Prints a workload's table: a row for each figure, a column for each tool,
/// and for each peer the median of its ratios to Cairn, round by round.
pub fn print(workload: Workload, tools: &[Tool], rounds: &[Vec<Figures>]) {
    println!(
        "\n{workload:?}, medians of {} rounds\n",
        rounds.first().map_or(0, Vec::len)
    );
    let ours = tools.iter().position(|tool| *tool == Tool::Cairn);
    let ours = ours.map(|at| &rounds[at]);
    let peers: Vec<usize> = (0..tools.len())
        .filter(|at| tools[*at].is_peer() && ours.is_some())
        .collect();
    let mut titles: Vec<String> = tools.iter().map(|tool| tool.name().to_owned()).collect();
    titles.extend(
        peers
            .iter()
            .map(|at| format!("{} / cairn", tools[*at].name())),
    );
    println!("| | {} |", titles.join(" | "));
    println!("|---|{}", "---|".repeat(titles.len()));
    let mut figures: Vec<Figure> = rounds
        .iter()
        .flatten()
        .flat_map(|round| round.keys().copied())
        .collect();
    figures.sort_unstable();
    figures.dedup();
    for figure in figures {
        let scale = match figure.unit() {
            Unit::Seconds => 1.0,
            Unit::Mebibytes => MIB,
        };
        let mut cells: Vec<String> = rounds
            .iter()
            .map(|tool| {
                let values = tool.iter().filter_map(|round| round.get(&figure));
                cell(values.map(|value| value / scale).collect())
            })
            .collect();
        for peer in &peers {
            let pairs = rounds[*peer].iter().zip(ours.into_iter().flatten());
            let ratios =
                pairs.filter_map(|(theirs, ours)| Some(theirs.get(&figure)? / ours.get(&figure)?));
            cells.push(cell(ratios.collect()));
        }
        println!("| {} | {} |", figure.title(), cells.join(" | "));
    }
}

fn cell(mut values: Vec<f64>) -> String {
    values.sort_by(f64::total_cmp);
    match values.get(values.len() / 2) {
        Some(median) => format!("{median:.2}"),
        None => String::new(),
    }
}
