//! Times the restore of a disk that has been backed up every day for a year
//! beside that of a fresh full backup of the same bytes.
//!
//! `bench_age FOLDER [MIB] [DAYS] [KEPT]`; the folder must not exist. Every day
//! 1.5 % of the disk's blocks change, half of them in runs of 1 MiB and half one
//! by one, anywhere; the newest `KEPT` backups stay, and a collection follows.
//! Prints a line for every thirtieth day and the medians in the end.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use cairn_repo::{LocalStore, MasterKey, Project, Repository, Restored, WriteDisk};
use cairn_testkit::{MappedDisk, backup_info};
use cairn_types::disk::{DiskError, DiskReader, DiskWriter, Extent};
use cairn_types::{BackupId, Progress, ProjectId, ResourceId};

type Failure = Box<dyn std::error::Error>;

const BLOCK: usize = 64 << 10;
/// Blocks of a run of changes.
const RUN: usize = 16;
/// Of so many blocks one is incompressible.
const NOISE: u64 = 8;
/// Restores of each.
const ROUNDS: usize = 7;

/// The disk, all of it in memory and all of it data.
struct Disk(RwLock<Vec<u8>>);

impl Disk {
    fn fill(&self, block: usize, random: &mut Random) {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        random.fill(&mut bytes[block * BLOCK..(block + 1) * BLOCK]);
    }

    fn holds_what(&self, other: &Self) -> bool {
        let mine = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let theirs = other.0.read().unwrap_or_else(PoisonError::into_inner);
        *mine == *theirs
    }
}

impl DiskReader for Disk {
    fn size_bytes(&self) -> u64 {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        let length = self.size_bytes() - offset;
        Ok(Extent {
            offset,
            length,
            data: true,
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let start = offset as usize;
        buffer.copy_from_slice(&bytes[start..start + buffer.len()]);
        Ok(())
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

impl DiskWriter for Disk {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let start = offset as usize;
        bytes[start..start + data.len()].copy_from_slice(data);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.write_at(offset, &vec![0; length as usize])
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// xorshift64*, and text made of it that compresses to some 40 %.
struct Random {
    state: u64,
    words: Vec<Vec<u8>>,
}

impl Random {
    fn new() -> Self {
        let mut random = Self {
            state: 0x9e37_79b9_7f4a_7c15,
            words: Vec::new(),
        };
        for _ in 0..8192 {
            let length = 2 + random.below(9);
            let mut letter = |_| b'a' + random.below(26) as u8;
            let mut word: Vec<u8> = (0..length).map(&mut letter).collect();
            word.push(b' ');
            random.words.push(word);
        }
        random
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    fn fill(&mut self, mut block: &mut [u8]) {
        if self.below(NOISE) == 0 {
            for bytes in block.chunks_exact_mut(8) {
                bytes.copy_from_slice(&self.next().to_le_bytes());
            }
            return;
        }
        while !block.is_empty() {
            let word = self.below(8192).min(self.below(8192)) as usize;
            let word = &self.words[word];
            let length = word.len().min(block.len());
            block[..length].copy_from_slice(&word[..length]);
            block = &mut block[length..];
        }
    }
}

/// A day's changes.
fn change(disk: &Disk, random: &mut Random, blocks: usize) -> Vec<Range<u64>> {
    let (mut changes, mut left) = (Vec::new(), blocks * 15 / 1000);
    while left > 0 {
        let length = if changes.len() % (RUN + 1) == 0 {
            RUN
        } else {
            1
        };
        let first = random.below((blocks - length) as u64) as usize;
        for block in first..first + length {
            disk.fill(block, random);
        }
        changes.push((first * BLOCK) as u64..((first + length) * BLOCK) as u64);
        left = left.saturating_sub(length);
    }
    changes
}

/// A disk's line of backups in a repository of its own.
struct Line {
    project: Project,
    id: ProjectId,
    resource: ResourceId,
    day: usize,
    backups: Vec<BackupId>,
}

impl Line {
    async fn new(folder: PathBuf) -> Result<Self, Failure> {
        let store = Arc::new(LocalStore::open(&folder)?);
        let repository = Repository::create(store, &MasterKey::generate()).await?;
        let id = ProjectId::random();
        Ok(Self {
            project: repository.project(id).await?,
            id,
            resource: ResourceId::random(),
            day: 0,
            backups: Vec::new(),
        })
    }

    async fn back_up(
        &mut self,
        disk: &Arc<Disk>,
        changes: Vec<Range<u64>>,
    ) -> Result<u64, Failure> {
        let reader = MappedDisk::new(disk.clone(), &format!("day-{}", self.day));
        let before = format!("day-{}", self.day.saturating_sub(1));
        let mut info = backup_info(self.id, self.day as i64);
        info.resource = self.resource;
        let backup = info.id;
        let job = WriteDisk {
            info,
            parent: self.backups.last().copied(),
            reader: Arc::new(reader.changed_since(&before, changes)),
            progress: Arc::default(),
            reread_all: false,
        };
        let written = self.project.write_disk(job).await?;
        self.backups.push(backup);
        self.day += 1;
        Ok(written.stored_bytes)
    }

    /// Restores the newest backup; how long it took, and on how much of a core.
    async fn restore(&self, disk: &Disk) -> Result<(Duration, Duration, Restored), Failure> {
        let target = Arc::new(Disk(RwLock::new(vec![0; disk.size_bytes() as usize])));
        let newest = *self.backups.last().ok_or("there is no backup")?;
        let (start, worked) = (Instant::now(), processor_time());
        let restored = self
            .project
            .restore_disk(newest, target.clone(), Arc::<Progress>::default())
            .await?;
        let times = (start.elapsed(), processor_time() - worked);
        if !target.holds_what(disk) {
            return Err("the disk came back as another".into());
        }
        Ok((times.0, times.1, restored))
    }
}

/// Of all threads of this process, so far.
fn processor_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn print(name: &str, times: (Duration, Duration), restored: &Restored) {
    println!(
        "{name}: {:.3} s, processor {:.3} s, {} MiB of data, read {} MiB in {} requests, \
         opened {} MiB",
        times.0.as_secs_f64(),
        times.1.as_secs_f64(),
        restored.data_bytes >> 20,
        restored.read_bytes >> 20,
        restored.requests,
        restored.opened_bytes >> 20,
    );
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments
        .next()
        .ok_or("usage: bench_age FOLDER [MIB] [DAYS] [KEPT]")?;
    let mut number = |default: usize| match arguments.next() {
        Some(text) => text.parse(),
        None => Ok(default),
    };
    let (mib, days, kept) = (number(1024)?, number(365)?, number(30)?);
    let folder = PathBuf::from(folder);
    std::fs::create_dir(&folder)?;
    let blocks = (mib << 20) / BLOCK;
    let disk = Arc::new(Disk(RwLock::new(vec![0; blocks * BLOCK])));
    let mut random = Random::new();
    (0..blocks).for_each(|block| disk.fill(block, &mut random));
    let mut aged = Line::new(folder.join("aged")).await?;
    let full = aged.back_up(&disk, Vec::new()).await?;
    println!("full: {} MiB stored", full >> 20);
    let (mut saved, mut copied, mut collecting) = (0, 0, Duration::ZERO);
    for day in 1..=days {
        let changes = change(&disk, &mut random, blocks);
        saved += aged.back_up(&disk, changes).await?;
        while aged.backups.len() > kept {
            aged.project.delete(aged.backups.remove(0)).await?;
        }
        let start = Instant::now();
        let collected = aged.project.collect(&[], Arc::default()).await?;
        collecting += start.elapsed();
        copied += collected.packs_rewritten;
        if day % 30 == 0 || day == days {
            let (wall, processor, restored) = aged.restore(&disk).await?;
            let stored = collected.stored_bytes;
            let name = format!(
                "day {day}, saved {} MiB, packs rewritten {copied}, hold {} MiB",
                saved >> 20,
                stored >> 20
            );
            print(&name, (wall, processor), &restored);
        }
    }
    println!("collections: {:.1} s", collecting.as_secs_f64());
    let mut fresh = Line::new(folder.join("fresh")).await?;
    fresh.back_up(&disk, Vec::new()).await?;
    let (mut of_aged, mut of_fresh) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        of_aged.push(aged.restore(&disk).await?);
        of_fresh.push(fresh.restore(&disk).await?);
    }
    let median = |rounds: &mut Vec<(Duration, Duration, Restored)>| {
        let restored = rounds[0].2;
        rounds.sort_by_key(|round| round.1);
        let processor = rounds[ROUNDS / 2].1;
        rounds.sort_by_key(|round| round.0);
        ((rounds[ROUNDS / 2].0, processor), restored)
    };
    let (aged, fresh) = (median(&mut of_aged), median(&mut of_fresh));
    print("aged", aged.0, &aged.1);
    print("fresh", fresh.0, &fresh.1);
    println!(
        "speed of the aged by the fresh: {:.2}, by processor time {:.2}",
        fresh.0.0.as_secs_f64() / aged.0.0.as_secs_f64(),
        fresh.0.1.as_secs_f64() / aged.0.1.as_secs_f64(),
    );
    Ok(())
}
