//! The table of error codes against the tests, and `docs/API.md` against both.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use cairn_api::{ErrorCode, NEVER};
use cairn_testkit::vendor_contract;

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../..").canonicalize().unwrap()
}

/// The text of every file below a folder that ends so.
fn texts(folder: &Path, ending: &str, into: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            texts(&path, ending, into);
        } else if path.to_string_lossy().ends_with(ending) {
            into.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

/// The number of a code of CBR, such as `6105`.
fn number(code: ErrorCode) -> Option<&'static str> {
    code.code().strip_prefix("BackupService.")
}

#[test]
fn every_code_is_answered_in_a_test_or_said_to_be_never_answered() {
    let never: BTreeSet<ErrorCode> = NEVER
        .iter()
        .flat_map(|group| group.codes)
        .copied()
        .collect();
    let mut tests = String::new();
    let folder = root().join("crates/server/tests/contract");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.ends_with("codes.rs") {
            tests.push_str(&fs::read_to_string(path).unwrap());
        }
    }
    texts(&root().join("crates/core/tests"), ".rs", &mut tests);
    texts(&root().join("tests"), ".py", &mut tests);
    // A code that is not there is not a code, so its name or number in a test is a test of it.
    // 1001 alone is something else in tests: one more than the longest page.
    let tested = |code: ErrorCode| {
        let quoted = |text: &str| tests.contains(&format!("\"{text}\""));
        let name = format!("ErrorCode::{code:?}");
        let number = number(code).filter(|number| *number != "1001");
        quoted(code.code()) || number.is_some_and(quoted) || tests.contains(&name)
    };
    let mut wrong = Vec::new();
    let mut count = 0;
    for code in ErrorCode::ALL
        .iter()
        .filter(|code| number(**code).is_some())
    {
        count += 1;
        match (tested(*code), never.contains(code)) {
            (true, true) => wrong.push(format!(
                "{code} has a test and is said to be never answered"
            )),
            (false, false) => {
                wrong.push(format!("{code} {code:?} has no test: {}", code.message()))
            }
            _ => {}
        }
    }
    // The 160 of the table, and ten that only other pages of the documentation have.
    assert_eq!(count, 170);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The part of a document between two marks.
fn between<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, rest) = text
        .split_once(&format!("<!-- {name}: made by a test, do not edit -->\n"))
        .unwrap();
    rest.split_once(&format!("<!-- end of {name} -->"))
        .unwrap()
        .0
}

#[test]
fn the_page_lists_the_codes_that_are_never_answered() {
    let mut table = String::from("| Codes | Why they are never answered |\n|---|---|\n");
    for group in NEVER {
        let codes: Vec<_> = group
            .codes
            .iter()
            .filter_map(|code| number(*code))
            .collect();
        writeln!(table, "| {} | {} |", codes.join(", "), group.reason).unwrap();
    }
    let page = fs::read_to_string(root().join("docs/API.md")).unwrap();
    let listed = between(&page, "codes");
    assert_eq!(listed, table, "docs/API.md needs this table:\n{table}");
}

#[test]
fn the_page_lists_the_differences_from_the_vendors_definitions() {
    let table = vendor_contract::differences_table();
    let page = fs::read_to_string(root().join("docs/API.md")).unwrap();
    let listed = between(&page, "differences");
    assert_eq!(listed, table, "docs/API.md needs this table:\n{table}");
}
