//! Journals that `debugfs` wrote: replayed here and by `e2fsck`, they give the same files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cairn_filesystem::Log;
use cairn_types::tree::EntryKind;

use common::made::{self, Amount, Made};
use common::{Numbers, open, run, seed, text};

const AMOUNT: Amount = Amount {
    names: 60,
    file_bytes: 8000,
    links: false,
};

/// Kinds of file systems and of checksums in their journals.
const JOURNALS: [(&str, &str, &str); 7] = [
    ("ext3", "-b 1024", "jo"),
    ("ext4", "-b 1024 -O ^64bit,^metadata_csum", "jo"),
    // One checksum for each transaction.
    ("ext4", "-b 1024 -O ^64bit,^metadata_csum", "jo -c"),
    ("ext4", "-b 1024 -O ^64bit", "jo -c -v 2"),
    ("ext4", "-b 1024 -O 64bit", "jo -c -v 2"),
    ("ext4", "-b 1024 -O ^64bit", "jo -c -v 3"),
    ("ext4", "-b 4096 -O 64bit", "jo -c -v 3"),
];

/// Every file by its path.
fn contents(file: &Path, expected: Log) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let file_system = open(file);
    assert_eq!(file_system.log(), expected);
    let mut all = BTreeMap::new();
    for (path, entry) in file_system.walk(b"/").unwrap() {
        if entry.unwrap().metadata.kind == EntryKind::File {
            let file = file_system.file(&path).unwrap();
            let mut bytes = vec![0; file.size_bytes() as usize];
            assert_eq!(file.read_at(0, &mut bytes).unwrap(), bytes.len());
            all.insert(path, bytes);
        }
    }
    all
}

/// The blocks of all files, by `debugfs`.
fn blocks(made: &Made, contents: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u64> {
    let commands: String = contents
        .keys()
        .map(|path| format!("blocks {}\n", String::from_utf8_lossy(path)))
        .collect();
    let list = made.folder.path().join("list");
    made::write(&list, commands.as_bytes());
    let printed = run("debugfs", &["-f", text(&list), text(&made.file)]);
    let lines = printed.lines().filter(|line| !line.starts_with("debugfs:"));
    lines
        .flat_map(|line| line.split_whitespace().map(|block| block.parse().unwrap()))
        .collect()
}

/// Writes transactions into the journal: blocks, some of which begin like one of the journal's own, and revocations.
fn write_journal(
    made: &Made,
    open: &str,
    blocks: &[u64],
    block_bytes: usize,
    numbers: &mut Numbers,
) {
    const MAGIC: [u8; 4] = [0xc0, 0x3b, 0x39, 0x98];
    let mut commands = format!("{open}\n");
    for transaction in 0..8 {
        let some: Vec<String> = (0..1 + numbers.below(20))
            .map(|_| numbers.one_of(blocks).to_string())
            .collect();
        let mut bytes = numbers.bytes(some.len() * block_bytes);
        for block in bytes.chunks_mut(block_bytes) {
            if numbers.one_in(3) {
                block[..4].copy_from_slice(&MAGIC);
            }
        }
        let data = made.folder.path().join(format!("data{transaction}"));
        made::write(&data, &bytes);
        commands += &format!("jw -b {} {}\n", some.join(","), text(&data));
        if numbers.one_in(2) {
            commands += &format!("jw -r {},{}\n", some[0], numbers.one_of(blocks));
        }
    }
    commands += "jc\n";
    let list = made.folder.path().join("commands");
    made::write(&list, commands.as_bytes());
    run("debugfs", &["-w", "-f", text(&list), text(&made.file)]);
}

#[test]
fn a_file_system_without_a_journal_that_was_in_use_is_told() {
    let mut numbers = Numbers::new(seed());
    let made = made::ext("ext2", "", 8 << 20, AMOUNT, &mut numbers);
    assert_eq!(open(&made.file).log(), Log::Clean);
    run(
        "debugfs",
        &["-w", "-R", "set_super_value state 0", text(&made.file)],
    );
    let file_system = open(&made.file);
    assert!(file_system.needs_recovery());
    for (options, state) in [("-F 16", 37), ("-F 32", 65)] {
        let made = made::fat(options, 40 << 20, AMOUNT, &mut numbers);
        assert_eq!(open(&made.file).log(), Log::Clean);
        let file = File::options().write(true).open(&made.file).unwrap();
        file.write_all_at(&[1], state).unwrap();
        assert!(open(&made.file).needs_recovery());
    }
}

#[test]
fn a_journal_is_replayed_as_e2fsck_does_it() {
    let seed = seed();
    for (index, (kind, options, open)) in JOURNALS.iter().enumerate() {
        println!("{kind} {options} {open}");
        let mut numbers = Numbers::new(seed.wrapping_add(index as u64));
        let made = made::ext(kind, options, 8 << 20, AMOUNT, &mut numbers);
        let before = contents(&made.file, Log::Clean);
        let blocks = blocks(&made, &before);
        assert!(blocks.len() > 10, "too little to change: {blocks:?}");
        let block_bytes = if options.contains("4096") { 4096 } else { 1024 };
        write_journal(&made, open, &blocks, block_bytes, &mut numbers);
        let replayed = contents(&made.file, Log::Replayed);
        run("e2fsck", &["-fy", "-E", "journal_only", text(&made.file)]);
        let expected = contents(&made.file, Log::Clean);
        assert_ne!(before, expected, "the journal changed nothing");
        for (path, bytes) in &expected {
            assert!(replayed[path] == *bytes, "{} differs", path.escape_ascii());
        }
        assert_eq!(replayed.len(), expected.len());
    }
}
