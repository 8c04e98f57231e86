//! What the machine itself can do with the same bytes, on all cores: nobody
//! can be faster than this, whatever they leave out.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use zstd_safe::{CCtx, CParameter, DCtx};

use super::Generations;
use super::compare::changed_blocks;
use super::figure::{Figure, Figures};
use super::process::run;

/// Bytes that are read, compressed and sealed at a time.
const PIECE_BYTES: u64 = 4 << 20;
const BLOCK_BYTES: usize = 64 << 10;
const LEVEL: i32 = 3;

/// The limits of a disk.
pub fn disk(generations: &Generations, place: &Path) -> Result<Figures> {
    let mut figures = Figures::new();
    let copy = run(Command::new("cp")
        .arg("--sparse=always")
        .arg(&generations.second)
        .arg(place.join("copy")))?;
    figures.insert(Figure::Copy, copy.seconds);
    let image = File::open(&generations.first)?;
    let data = pieces(&data_ranges(&image)?);
    let (seconds, packed) = on_all_cores(&data, |piece, worker| {
        worker.read(&image, piece)?;
        worker.compress().map(Some)
    })?;
    figures.insert(Figure::Compress, seconds);
    let indexes: Vec<(u64, u64)> = (0..packed.len() as u64).map(|at| (at, 0)).collect();
    let (seconds, _) = on_all_cores(&indexes, |(at, _), worker| {
        worker.decompress(&packed[usize::try_from(at)?])?;
        Ok(None)
    })?;
    figures.insert(Figure::Decompress, seconds);
    drop(packed);
    let (seconds, _) = on_all_cores(&data, |piece, worker| {
        worker.read(&image, piece)?;
        worker.hash();
        Ok(None)
    })?;
    figures.insert(Figure::Hash, seconds);
    let changed = changed_blocks(&generations.first, &generations.second, BLOCK_BYTES)?;
    let image = File::open(&generations.second)?;
    let frames = gather(&changed);
    let numbers: Vec<(u64, u64)> = (0..frames.len() as u64).map(|at| (at, 0)).collect();
    let (seconds, _) = on_all_cores(&numbers, |(at, _), worker| {
        worker.plain.clear();
        for range in &frames[usize::try_from(at)?] {
            worker.append(&image, *range)?;
        }
        worker.compress_and_seal()?;
        Ok(None)
    })?;
    figures.insert(Figure::ChangedOnly, seconds);
    Ok(figures)
}

/// The limits of a tree.
pub fn tree(generations: &Generations, place: &Path) -> Result<Figures> {
    let copy = run(Command::new("cp")
        .arg("-a")
        .arg(&generations.second)
        .arg(place.join("copy")))?;
    Ok(Figures::from([(Figure::Copy, copy.seconds)]))
}

/// The parts of a file that are no holes.
fn data_ranges(file: &File) -> Result<Vec<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    let size = file.metadata()?.len();
    let (mut ranges, mut at) = (Vec::new(), 0);
    while at < size {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = seek(file, SeekFrom::Hole(start))?;
        ranges.push((start, end - start));
        at = end;
    }
    Ok(ranges)
}

fn pieces(ranges: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let cut = |&(start, length): &(u64, u64)| {
        (0..length.div_ceil(PIECE_BYTES)).map(move |number| {
            let at = number * PIECE_BYTES;
            (start + at, PIECE_BYTES.min(length - at))
        })
    };
    ranges.iter().flat_map(cut).collect()
}

/// Ranges in groups of some `PIECE_BYTES`.
fn gather(ranges: &[(u64, u64)]) -> Vec<Vec<(u64, u64)>> {
    let mut groups: Vec<Vec<(u64, u64)>> = vec![Vec::new()];
    let mut bytes = 0;
    for range in pieces(ranges) {
        if bytes >= PIECE_BYTES {
            groups.push(Vec::new());
            bytes = 0;
        }
        bytes += range.1;
        groups.last_mut().expect("there is one").push(range);
    }
    groups
}

/// Does the work for every item, on as many threads as there are cores.
/// Returns the seconds it took, and what was made.
fn on_all_cores(
    items: &[(u64, u64)],
    work: impl Fn((u64, u64), &mut Worker) -> Result<Option<Vec<u8>>> + Sync,
) -> Result<(f64, Vec<Vec<u8>>)> {
    let (next, made) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let start = Instant::now();
    let one = || -> Result<()> {
        let mut worker = Worker::new();
        let mut mine = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            mine.extend(work(*item, &mut worker)?);
        }
        made.lock().expect("no worker panics").extend(mine);
        Ok(())
    };
    let cores = thread::available_parallelism()?.get();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(one)).collect();
        for worker in workers {
            worker.join().expect("no worker panics")?;
        }
        anyhow::Ok(())
    })?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((seconds, made.into_inner().expect("no worker panics")))
}

/// One thread's memory.
struct Worker {
    plain: Vec<u8>,
    packed: Vec<u8>,
    compressor: CCtx<'static>,
    decompressor: DCtx<'static>,
    key: LessSafeKey,
}

impl Worker {
    fn new() -> Self {
        let mut compressor = CCtx::create();
        compressor
            .set_parameter(CParameter::CompressionLevel(LEVEL))
            .expect("zstd has this level");
        let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("the key has its length");
        Self {
            plain: Vec::new(),
            packed: Vec::new(),
            compressor,
            decompressor: DCtx::create(),
            key: LessSafeKey::new(key),
        }
    }

    fn read(&mut self, file: &File, range: (u64, u64)) -> Result<()> {
        self.plain.clear();
        self.append(file, range)
    }

    fn append(&mut self, file: &File, (start, length): (u64, u64)) -> Result<()> {
        let at = self.plain.len();
        self.plain.resize(at + usize::try_from(length)?, 0);
        Ok(file.read_exact_at(&mut self.plain[at..], start)?)
    }

    fn hash(&self) {
        std::hint::black_box(blake3::hash(&self.plain));
    }

    fn compress(&mut self) -> Result<Vec<u8>> {
        self.packed
            .resize(zstd_safe::compress_bound(self.plain.len()), 0);
        let length = self
            .compressor
            .compress2(&mut self.packed[..], &self.plain)
            .map_err(zstd_safe::get_error_name)
            .map_err(anyhow::Error::msg)?;
        Ok(self.packed[..length].to_vec())
    }

    fn decompress(&mut self, packed: &[u8]) -> Result<()> {
        self.plain.resize(usize::try_from(PIECE_BYTES)?, 0);
        self.decompressor
            .decompress(&mut self.plain[..], packed)
            .map_err(zstd_safe::get_error_name)
            .map_err(anyhow::Error::msg)?;
        Ok(())
    }

    fn compress_and_seal(&mut self) -> Result<()> {
        let mut packed = self.compress()?;
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        self.key
            .seal_in_place_append_tag(nonce, Aad::empty(), &mut packed)
            .ok()
            .context("the cipher seals")
    }
}
