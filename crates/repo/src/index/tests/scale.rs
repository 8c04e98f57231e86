//! The index of 100 TiB: what it takes of memory, and how fast it answers.
//!
//! The index is made here, most pages of its larger runs being holes; only keys
//! whose first two bytes end in `WINDOW` are asked for, and their pages are real.
//! It is opened and asked in a process of its own, whose memory is measured.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::index::files::Files;
use crate::index::filter::FILTERS_BYTES;
use crate::index::packs::{PackFiles, Record};
use crate::index::run::{PAGE_ENTRIES, sparse};
use crate::index::saved::{STATE_FILE, Saved};

/// 100 TiB in blocks of 64 KiB, in packs of 64 MiB.
const PACKS: u32 = 100 << 14;
const PACK_CHUNKS: u32 = 1 << 10;
/// What the index of 100 TiB may take.
const MEMORY_BYTES: u64 = 512 << 20;
/// Runs as merging leaves them at worst: each a little more than twice all newer ones.
const RUNS: u32 = 8;
const WINDOW: u8 = 0x5a;
/// Says which folder the other process is to open.
const FOLDER: &str = "CAIRN_TEST_INDEX";
const LOOK_UPS: u64 = 100_000;
/// Those of them that are done with nothing of the files in memory.
const COLD_LOOK_UPS: usize = 2_000;

fn place() -> keys::Place {
    keys::Place {
        repository: RepositoryId([9; 16]),
        project: "00112233445566778899aabbccddeeff".parse().unwrap(),
    }
}

/// The entries of a run: as many, oldest run first, that all of them are 100 TiB.
fn run_entries(run: u32) -> u64 {
    let all = u64::from(PACKS) * u64::from(PACK_CHUNKS);
    all * 2 / 3_u64.pow(run + 1)
}

fn mix(n: u64) -> u64 {
    let mut n = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// An entry by its run and its number there: its key is at random within the part of all keys that is its own.
fn run_entry(run: u32, number: u64) -> Entry {
    let (spread, rest) = (mix(number ^ u64::from(run) << 56), mix(number ^ 0xabcd));
    let step = u64::MAX / run_entries(run);
    let high = number * step + spread % step;
    let mut key = [0; 16];
    key[..8].copy_from_slice(&high.to_be_bytes());
    key[8..].copy_from_slice(&rest.to_le_bytes());
    let place = Place {
        pack: (spread % u64::from(PACKS)) as u32,
        chunk: (rest % u64::from(PACK_CHUNKS)) as u32,
    };
    Entry { key, place }
}

/// A key that may be asked for, and that no run has.
fn unknown_key(n: u64) -> ChunkKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&mix(n).to_be_bytes());
    key[1] = WINDOW;
    key[8..].copy_from_slice(&mix(n + 1).to_le_bytes());
    key
}

/// An entry that may be asked for.
fn known_entry(n: u64) -> Entry {
    let run = (mix(n ^ 0x77) % 3) as u32;
    let near = u64::from_be_bytes(*unknown_key(n).first_chunk().unwrap());
    let number = near / (u64::MAX / run_entries(run));
    let found = run_entry(run, number.min(run_entries(run) - 1));
    if found.key[1] == WINDOW {
        found
    } else {
        known_entry(n.wrapping_add(1 << 32))
    }
}

fn pack_info(number: u32) -> PackInfo {
    let frames = (0..16).map(|frame| FrameEntry {
        offset: 26 + frame * (2 << 20),
        length: 2 << 20,
        first_chunk: frame * (PACK_CHUNKS / 16),
    });
    PackInfo {
        id: pack_id(u64::from(number)),
        stored_bytes: 64 << 20,
        frames: frames.collect(),
        chunks: PACK_CHUNKS,
    }
}

fn make(folder: &std::path::Path) {
    let local = LocalFolder::at(folder.to_owned());
    let files = Arc::new(Files::open(&local.of(place().project)).unwrap());
    let bound = *place().bound("").first_chunk().unwrap();
    let pack_files = PackFiles::open(&files).unwrap();
    let mut saved = Saved {
        live: vec![u64::MAX; PACKS as usize / 64],
        ..Saved::default()
    };
    while saved.packs < PACKS {
        let count = (PACKS - saved.packs).min(1 << 14);
        let infos = (saved.packs..saved.packs + count).map(|n| Arc::new(pack_info(n)));
        let mut fresh: Vec<_> = infos.map(|info| (Record::new(&info), info)).collect();
        let appended = pack_files.append(saved.packs, saved.frames_bytes, &mut fresh);
        saved.frames_bytes = appended.unwrap();
        saved.packs += count;
    }
    for run in 0..RUNS {
        let id = [run as u8; 16];
        let start = |entry: &Entry| u16::from_be_bytes(*entry.key.first_chunk().unwrap());
        let in_window = |first: &Entry, next: &Entry| {
            (start(first)..=start(next)).any(|start| start as u8 == WINDOW)
        };
        let entry = |number| run_entry(run, number);
        let entries = run_entries(run);
        // The next larger one would fit too, but takes long to be made.
        let filtered = entries < 15_000_000;
        sparse::write(&files, &bound, id, (entries, filtered), entry, in_window).unwrap();
        saved.runs.push((id, run_entries(run)));
    }
    files.replace(STATE_FILE, &saved.encode(&bound)).unwrap();
}

/// The most memory that this process has had, in bytes.
fn memory_peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

/// Look-ups a second of the processor's time, whoever else has it meanwhile.
fn per_core_second(look_ups: usize, work: impl FnOnce()) -> u64 {
    let start = processor_time();
    work();
    (look_ups as f64 / (processor_time() - start).as_secs_f64()) as u64
}

/// Look-ups a second, with what is waited for.
fn per_second(look_ups: usize, work: impl FnOnce()) -> u64 {
    let start = Instant::now();
    work();
    (look_ups as f64 / start.elapsed().as_secs_f64()) as u64
}

/// How long this thread has run.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let nanoseconds = text.split_whitespace().next().unwrap();
    Duration::from_nanos(nanoseconds.parse().unwrap())
}

/// Asks for entries in batches of a piece's blocks.
fn get_in_batches(index: &Index, known: &[Entry]) {
    for entries in known.chunks(256) {
        let keys: Vec<ChunkKey> = entries.iter().map(|entry| entry.key).collect();
        let places: Vec<_> = entries.iter().map(|entry| Some(entry.place)).collect();
        assert_eq!(index.get_many(&keys).unwrap(), places);
    }
}

/// Has the system forget what it keeps of files in memory.
fn forget_pages(folder: &std::path::Path) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = std::fs::File::open(entry.unwrap().path()).unwrap();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    }
}

/// Opens the index in the process of its own. Prints a line of figures.
#[test]
fn ask() {
    let Ok(folder) = std::env::var(FOLDER) else {
        return;
    };
    let before = memory_peak();
    let start = processor_time();
    let index = Index::open(Arc::new(LocalFolder::at(folder.into())), &place()).unwrap();
    let open = processor_time() - start;
    // As much in memory as there ever is, once frozen and once not.
    let mut number = u64::from(PACKS);
    let mut fill = || {
        while index.shared.read().memory.len() < index.shared.memory_entries {
            let chunks: Vec<u64> = (0..1024).map(|n| number << 10 | n).collect();
            index.insert(&pack(number, &chunks)).unwrap();
            number += 1;
        }
    };
    fill();
    index.shared.freeze(&mut Saved {
        packs: PACKS,
        ..Saved::default()
    });
    fill();
    let known: Vec<Entry> = (0..LOOK_UPS).map(known_entry).collect();
    let unknown: Vec<ChunkKey> = (0..LOOK_UPS).map(unknown_key).collect();
    let hits = per_core_second(known.len(), || {
        for entry in &known {
            assert_eq!(index.get(&entry.key).unwrap(), Some(entry.place));
        }
    });
    let misses = per_core_second(unknown.len(), || {
        for key in &unknown {
            assert_eq!(index.get(key).unwrap(), None);
        }
    });
    let batch_hits = per_core_second(known.len(), || get_in_batches(&index, &known));
    let batch_misses = per_core_second(unknown.len(), || {
        for keys in unknown.chunks(256) {
            assert!(index.get_many(keys).unwrap().iter().all(Option::is_none));
        }
    });
    let some = &known[..COLD_LOOK_UPS];
    forget_pages(&index.shared.files.folder);
    let cold_hits = per_second(some.len(), || {
        for entry in some {
            assert_eq!(index.get(&entry.key).unwrap(), Some(entry.place));
        }
    });
    forget_pages(&index.shared.files.folder);
    let cold_batch_hits = per_second(some.len(), || get_in_batches(&index, some));
    for n in (0..PACKS).step_by(1000) {
        assert_eq!(index.pack(n).unwrap().unwrap().id, pack_id(u64::from(n)));
    }
    let filters: u64 = index
        .shared
        .read()
        .runs
        .iter()
        .map(|run| run.filter_bytes())
        .sum();
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nindex: open_ms={} before={before} peak={} filters={filters} hits={hits} misses={misses} \
         batch_hits={batch_hits} batch_misses={batch_misses} cold_hits={cold_hits} \
         cold_batch_hits={cold_batch_hits}",
        open.as_millis(),
        memory_peak(),
    )
    .unwrap();
}

#[test]
fn the_index_of_100_tebibytes_works_in_512_mebibytes() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "index::tests::scale::ask", "--nocapture"])
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&child.stderr)
    );
    let line = text
        .lines()
        .find(|line| line.starts_with("index:"))
        .unwrap();
    println!("{line}");
    let figure = |name: &str| {
        let word = line.split(' ').find_map(|word| word.strip_prefix(name));
        word.unwrap().parse::<u64>().unwrap()
    };
    // The filters that are not there now, and what merging may take on top: the
    // fences of the largest run, or the largest filter and few fences.
    let fences = u64::from(PACKS) * u64::from(PACK_CHUNKS) / PAGE_ENTRIES as u64 * 4;
    let merging = fences.max(FILTERS_BYTES * 21 / 20);
    let peak = figure("peak=") + (FILTERS_BYTES - figure("filters=")) + merging;
    assert!(peak < MEMORY_BYTES, "{peak} of {MEMORY_BYTES}");
}
