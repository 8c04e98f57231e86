//! Times the data plane on real disk images: every image given is saved into a
//! new repository as the next state of one disk, the last is saved once more
//! unchanged, then each is restored and compared, and everything verified.
//!
//! `bench_disk FOLDER IMAGE...`; the folder must not exist. Prints one line per
//! step. With `--change-maps` in front every image but the first tells which
//! blocks differ from the one before (they are compared beforehand), and what
//! it costs to save these blocks alone is printed beside.

use std::fs::{File, OpenOptions};
use std::io::{Error as IoError, Result as IoResult};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cairn_repo::{LocalStore, MasterKey, Project, Repository, VerifyLevel, WriteDisk};
use cairn_types::disk::{
    DiskError, DiskOperation, DiskReader, DiskWriter, Extent, NoChangeMap, Point,
};
use cairn_types::{
    BackupId, BackupInfo, CheckpointId, Progress, ProjectId, ResourceId, ResourceType, Timestamp,
    VaultId,
};
use rustix::fs::{SeekFrom, seek};

/// A raw image file.
struct Image {
    file: File,
    size_bytes: u64,
    /// What differs from the image before, if the disk can tell.
    changes: Option<Vec<Range<u64>>>,
    /// Nothing but what differs is there.
    changes_alone: bool,
}

impl Image {
    fn open(path: &Path) -> IoResult<Self> {
        let file = File::open(path)?;
        Ok(Self {
            size_bytes: file.metadata()?.len(),
            file,
            changes: None,
            changes_alone: false,
        })
    }

    fn create(path: &Path, size_bytes: u64) -> IoResult<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        file.set_len(size_bytes)?;
        Ok(Self {
            file,
            size_bytes,
            changes: None,
            changes_alone: false,
        })
    }

    /// The blocks in which this image differs from another of the same size.
    fn differences(&self, before: &Self) -> IoResult<Vec<Range<u64>>> {
        let mut changes: Vec<Range<u64>> = Vec::new();
        let (mut old, mut new) = (vec![0; 65_536], vec![0; 65_536]);
        for start in (0..self.size_bytes).step_by(old.len()) {
            let length = old.len().min((self.size_bytes - start) as usize);
            before.file.read_exact_at(&mut old[..length], start)?;
            self.file.read_exact_at(&mut new[..length], start)?;
            if old != new {
                let end = start + length as u64;
                match changes.last_mut() {
                    Some(last) if last.end == start => last.end = end,
                    _ => changes.push(start..end),
                }
            }
        }
        Ok(changes)
    }

    /// The run of changed or other blocks at a place, where only changes are there.
    fn changed_extent(&self, changes: &[Range<u64>], offset: u64) -> Extent {
        let next = changes.partition_point(|range| range.end <= offset);
        let (data, end) = match changes.get(next) {
            Some(range) if range.start <= offset => (true, range.end),
            Some(range) => (false, range.start),
            None => (false, self.size_bytes),
        };
        Extent {
            offset,
            length: end - offset,
            data,
        }
    }
}

fn failed(operation: DiskOperation, offset: u64, length: u64) -> impl FnOnce(IoError) -> DiskError {
    move |source| DiskError {
        disk: "image".into(),
        operation,
        offset,
        length,
        source,
    }
}

impl DiskReader for Image {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        if let Some(changes) = self.changes.as_ref().filter(|_| self.changes_alone) {
            return Ok(self.changed_extent(changes, offset));
        }
        let data = match seek(&self.file, SeekFrom::Data(offset)) {
            Ok(data) => data,
            Err(rustix::io::Errno::NXIO) => self.size_bytes,
            Err(error) => return Err(failed(DiskOperation::Map, offset, 0)(error.into())),
        };
        if data > offset {
            return Ok(Extent {
                offset,
                length: data - offset,
                data: false,
            });
        }
        let end = seek(&self.file, SeekFrom::Hole(offset))
            .map_err(|error| failed(DiskOperation::Map, offset, 0)(error.into()))?;
        Ok(Extent {
            offset,
            length: end - offset,
            data: true,
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let length = buffer.len() as u64;
        self.file
            .read_exact_at(buffer, offset)
            .map_err(failed(DiskOperation::Read, offset, length))
    }

    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn point(&self) -> Option<Point> {
        Point::new("bench")
    }

    fn changes_since(&self, _: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        let changes = self.changes.clone().filter(|_| !self.changes_alone);
        changes.ok_or_else(|| NoChangeMap("none is asked for".to_owned()))
    }
}

impl DiskWriter for Image {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        let length = data.len() as u64;
        self.file
            .write_all_at(data, offset)
            .map_err(failed(DiskOperation::Write, offset, length))
    }

    /// The target of this benchmark is always new.
    fn write_zeroes(&self, _: u64, _: u64) -> Result<(), DiskError> {
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.file
            .sync_data()
            .map_err(failed(DiskOperation::Flush, 0, self.size_bytes))
    }
}

fn info(project: ProjectId, name: &str) -> BackupInfo {
    BackupInfo {
        id: BackupId::random(),
        project,
        checkpoint: CheckpointId::random(),
        parent: None,
        vault: VaultId::random(),
        vault_name: "bench".into(),
        name: name.into(),
        description: String::new(),
        resource: ResourceId::random(),
        resource_type: ResourceType::Volume,
        resource_name: name.into(),
        created_at: Timestamp::from_micros(0),
        auto_trigger: false,
        system_disk: false,
    }
}

/// Peak memory of this process so far, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

/// Seconds that this process has kept a core busy so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks = behind.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

async fn save(
    project: &Project,
    info: BackupInfo,
    parent: Option<BackupId>,
    reader: Image,
) -> Result<(), Box<dyn std::error::Error>> {
    let (start, cpu) = (Instant::now(), cpu_seconds());
    let (reader, progress) = (Arc::new(reader), Arc::new(Progress::default()));
    let name = info.name.clone();
    let job = WriteDisk {
        info,
        parent,
        reader,
        progress,
        reread_all: false,
    };
    let written = project.write_disk(job).await?;
    println!(
        "save {name}: {:.3} s, {:.2} s of CPU, read {} KiB, new {} KiB, stored {} KiB, peak {} MiB{}",
        start.elapsed().as_secs_f64(),
        cpu_seconds() - cpu,
        written.read_bytes >> 10,
        written.new_bytes >> 10,
        written.stored_bytes >> 10,
        peak_mib(),
        if written.by_change_map.is_ok() {
            ", by the change map"
        } else {
            ""
        },
    );
    Ok(())
}

async fn restore(
    project: &Project,
    backup: BackupId,
    target: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let size = project.find(backup).await?.size_bytes;
    let start = Instant::now();
    let disk = Arc::new(Image::create(target, size)?);
    let restored = project
        .restore_disk(backup, disk, Arc::new(Progress::default()))
        .await?;
    println!(
        "restore: {:.2} s, {} MiB of data, peak {} MiB",
        start.elapsed().as_secs_f64(),
        restored.data_bytes >> 20,
        peak_mib(),
    );
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from).peekable();
    let asked = |first: &PathBuf| first.as_os_str() == "--change-maps";
    let change_maps = arguments.next_if(asked).is_some();
    let folder = arguments
        .next()
        .ok_or("usage: bench_disk [--change-maps] FOLDER IMAGE...")?;
    let mut images: Vec<PathBuf> = arguments.collect();
    images.extend(images.last().cloned());
    std::fs::create_dir(&folder)?;
    let store = Arc::new(LocalStore::open(&folder.join("repository"))?);
    let repository = Repository::create(store, &MasterKey::generate()).await?;
    let id = ProjectId::random();
    let project = repository.project(id).await?;
    let mut saved: Vec<(BackupId, &PathBuf)> = Vec::new();
    let resource = ResourceId::random();
    for image in &images {
        let mut info = info(id, &image.display().to_string());
        info.resource = resource;
        let mut reader = Image::open(image)?;
        let before = saved.last().copied().filter(|_| change_maps);
        if let Some((_, before)) = before {
            let changes = reader.differences(&Image::open(before)?)?;
            let alone = Image {
                changes: Some(changes.clone()),
                changes_alone: true,
                ..Image::open(image)?
            };
            let other = repository.project(ProjectId::random()).await?;
            let mut info = info.clone();
            (info.id, info.name) = (BackupId::random(), "what changed alone".to_owned());
            save(&other, info, None, alone).await?;
            reader.changes = Some(changes);
        }
        saved.push((info.id, image));
        save(&project, info, before.map(|(id, _)| id), reader).await?;
    }
    for (backup, _) in &saved[..saved.len() - 1] {
        let target = folder.join("restored");
        restore(&project, *backup, &target).await?;
        std::fs::remove_file(&target)?;
    }
    let start = Instant::now();
    let report = project
        .verify(VerifyLevel::Full, Arc::new(Progress::default()))
        .await?;
    let (clean, seconds) = (report.is_clean(), start.elapsed().as_secs_f64());
    println!(
        "verify: {seconds:.2} s, clean {clean}, peak {} MiB",
        peak_mib()
    );
    project.delete(saved[0].0).await?;
    let start = Instant::now();
    let collected = project.collect(&[], Arc::new(Progress::default())).await?;
    println!(
        "delete and collect: {:.2} s, {collected:?}",
        start.elapsed().as_secs_f64()
    );
    Ok(())
}
