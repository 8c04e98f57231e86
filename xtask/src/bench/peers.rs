//! The peers, each as its users would run it on a disk image.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use super::process::{Took, run};
use super::{Figures, Images, folder_bytes, place_image, same};

/// restic at its defaults.
pub fn restic(images: &Images, place: &Path) -> Result<Figures> {
    let (repository, disk) = (place.join("repository"), place.join("disk.img"));
    let restic = || {
        let mut command = Command::new("restic");
        command
            .env("RESTIC_PASSWORD", "benchmark")
            .env("RESTIC_CACHE_DIR", place.join("cache"));
        command.arg("--repo").arg(&repository).current_dir(place);
        command
    };
    run(restic().arg("init"))?;
    place_image(&images.first, &disk)?;
    let full = run(restic().args(["backup", "disk.img"]))?;
    let full_bytes = folder_bytes(&repository)?;
    place_image(&images.second, &disk)?;
    let incremental = run(restic().args(["backup", "disk.img"]))?;
    let incremental_bytes = folder_bytes(&repository)? - full_bytes;
    let target = place.join("restored");
    let restore = run(restic()
        .args(["restore", "latest", "--target"])
        .arg(&target))?;
    ensure!(
        find_and_compare(&target, &images.second)?,
        "restic restored something else"
    );
    Ok(figures(
        [full, incremental, restore],
        [full_bytes, incremental_bytes],
    ))
}

/// borg 1 with its default chunker, zstd level 3, and encryption.
pub fn borg(images: &Images, place: &Path) -> Result<Figures> {
    let (repository, disk) = (place.join("repository"), place.join("disk.img"));
    let borg = || {
        let mut command = Command::new("borg");
        command
            .env("BORG_PASSPHRASE", "benchmark")
            .env("BORG_BASE_DIR", place.join("base"));
        command.current_dir(place);
        command
    };
    let archive = |name: &str| format!("{}::{name}", repository.display());
    run(borg()
        .args(["init", "--encryption", "repokey-blake2"])
        .arg(&repository))?;
    place_image(&images.first, &disk)?;
    let create = ["create", "--compression", "zstd,3"];
    let full = run(borg().args(create).arg(archive("first")).arg("disk.img"))?;
    let full_bytes = folder_bytes(&repository)?;
    place_image(&images.second, &disk)?;
    let incremental = run(borg().args(create).arg(archive("second")).arg("disk.img"))?;
    let incremental_bytes = folder_bytes(&repository)? - full_bytes;
    let target = place.join("restored");
    fs::create_dir(&target)?;
    let extract = ["extract", "--sparse"];
    let restore = run(borg()
        .args(extract)
        .arg(archive("second"))
        .current_dir(&target))?;
    ensure!(
        same(&target.join("disk.img"), &images.second)?,
        "borg restored something else"
    );
    Ok(figures(
        [full, incremental, restore],
        [full_bytes, incremental_bytes],
    ))
}

/// Compares the one image below a folder, whatever folders it was put into.
fn find_and_compare(folder: &Path, image: &Path) -> Result<bool> {
    let Some(entry) = fs::read_dir(folder)?.next() else {
        return Ok(false);
    };
    let path = entry?.path();
    if path.is_dir() {
        find_and_compare(&path, image)
    } else {
        same(&path, image)
    }
}

fn figures(took: [Took; 3], bytes: [u64; 2]) -> Figures {
    let [full, incremental, restore] = took;
    let [full_bytes, incremental_bytes] = bytes;
    Figures {
        full_seconds: full.seconds,
        full_bytes,
        incremental_seconds: incremental.seconds,
        incremental_bytes,
        restore_seconds: restore.seconds,
        peak_bytes: took.iter().map(|one| one.peak_bytes).max().unwrap_or(0),
    }
}
