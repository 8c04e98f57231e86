//! The test that the crates use each other only as `docs/ARCHITECTURE.md` says.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.parent()
        .expect("xtask lies in the repository")
        .to_owned()
}

/// The table of the architecture document: each crate and what it may use.
fn allowed() -> BTreeMap<String, BTreeSet<String>> {
    let text = std::fs::read_to_string(root().join("docs/ARCHITECTURE.md")).unwrap();
    let words = |cell: &str| -> BTreeSet<String> {
        cell.split('`')
            .skip(1)
            .step_by(2)
            .map(str::to_owned)
            .collect()
    };
    let mut table = BTreeMap::new();
    for line in text
        .lines()
        .skip_while(|line| !line.starts_with("| Crate"))
        .skip(2)
    {
        let cells: Vec<&str> = line.split('|').collect();
        let [_, name, _, uses, _] = cells[..] else {
            break;
        };
        let name = words(name)
            .pop_first()
            .expect("the first cell names a crate");
        assert!(
            table.insert(name, words(uses)).is_none(),
            "a crate comes twice: {line}"
        );
    }
    table
}

fn short(package: &str) -> &str {
    package.strip_prefix("cairn-").unwrap_or(package)
}

/// The workspace's own edges: (from, to, whether only its tests use it).
fn edges() -> Vec<(String, String, bool)> {
    let cargo = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        cargo.status.success(),
        "{}",
        String::from_utf8_lossy(&cargo.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&cargo.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let mut edges = Vec::new();
    for package in packages {
        let from = short(package["name"].as_str().unwrap());
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["path"].is_string() {
                let to = short(dependency["name"].as_str().unwrap());
                let only_tests = dependency["kind"] == "dev";
                edges.push((from.to_owned(), to.to_owned(), only_tests));
            }
        }
    }
    edges
}

#[test]
fn no_crate_uses_another_that_the_table_does_not_list() {
    let allowed = allowed();
    let edges = edges();
    assert!(edges.len() > 15, "the edges were not found: {edges:?}");
    for (from, to, only_tests) in edges {
        let uses = allowed
            .get(&from)
            .unwrap_or_else(|| panic!("{from} is not in the table"));
        let for_tests = only_tests && to == "testkit";
        assert!(
            for_tests || uses.contains(&to),
            "{from} uses {to}, which the table does not list"
        );
    }
}

#[test]
fn the_table_lists_every_crate_and_no_other() {
    let listed: BTreeSet<String> = allowed().into_keys().collect();
    let mut there: BTreeSet<String> = std::fs::read_dir(root().join("crates"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    there.insert("xtask".to_owned());
    assert_eq!(listed, there);
}
