//! Times the data plane on real disk images: every image given is saved into a
//! new repository as the next state of one disk, the last is saved once more
//! unchanged, then each is restored and compared, and everything verified.
//!
//! `bench_disk FOLDER IMAGE...`; the folder must not exist. Prints one line per step.

use std::fs::{File, OpenOptions};
use std::io::{Error as IoError, Result as IoResult};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use cairn_repo::{LocalStore, MasterKey, Project, Repository, VerifyLevel, WriteDisk};
use cairn_types::disk::{DiskError, DiskOperation, DiskReader, DiskWriter, Extent};
use cairn_types::{
    BackupId, BackupInfo, CheckpointId, Progress, ProjectId, ResourceId, ResourceType, Timestamp,
    VaultId,
};
use rustix::fs::{SeekFrom, seek};

/// A raw image file.
struct Image {
    file: File,
    size_bytes: u64,
}

impl Image {
    fn open(path: &Path) -> IoResult<Self> {
        let file = File::open(path)?;
        Ok(Self {
            size_bytes: file.metadata()?.len(),
            file,
        })
    }

    fn create(path: &Path, size_bytes: u64) -> IoResult<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        file.set_len(size_bytes)?;
        Ok(Self { file, size_bytes })
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
        definition: None,
    }
}

/// Peak memory of this process so far, in MiB.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

async fn save(
    project: &Project,
    info: BackupInfo,
    image: &Path,
) -> Result<(), Box<dyn std::error::Error>> {
    let start = Instant::now();
    let reader = Arc::new(Image::open(image)?);
    let (parent, progress) = (None, Arc::new(Progress::default()));
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
        "save {name}: {:.2} s, read {} MiB, new {} MiB, stored {} MiB, peak {} MiB",
        start.elapsed().as_secs_f64(),
        written.data_bytes >> 20,
        written.new_bytes >> 20,
        written.stored_bytes >> 20,
        peak_mib(),
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
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let folder = arguments
        .next()
        .ok_or("usage: bench_disk FOLDER IMAGE...")?;
    let mut images: Vec<PathBuf> = arguments.collect();
    images.extend(images.last().cloned());
    std::fs::create_dir(&folder)?;
    let store = Arc::new(LocalStore::open(&folder.join("repository"))?);
    let repository = Repository::create(store, &MasterKey::generate()).await?;
    let id = ProjectId::random();
    let project = repository.project(id).await?;
    let mut saved = Vec::new();
    for image in &images {
        let info = info(id, &image.display().to_string());
        saved.push((info.id, image));
        save(&project, info, image).await?;
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
