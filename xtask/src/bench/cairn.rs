//! Cairn itself: a server of its own, driven by the client verbs.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::process::peak_bytes;
use crate::server::Server;

use super::{Figures, Images, folder_bytes, place_image, same};

const CONFIG: &str = "[[source]]\nkind = \"images\"\nname = \"bench\"\npath = \"images\"\n";

/// One round: full, incremental, restore onto an empty disk of the same size.
pub fn measure(program: &Path, images: &Images, place: &Path) -> Result<Figures> {
    let folder = place.join("images");
    fs::create_dir(&folder)?;
    let disk = folder.join("disk.img");
    place_image(&images.first, &disk)?;
    let server = Server::start(program, place, CONFIG)?;
    let repository = place.join("data/repository");
    server.call(&[
        "vault",
        "create",
        "bench",
        "--size",
        "1000",
        "--resource",
        "disk.img",
    ])?;
    server.call(&["checkpoint", "create", "bench", "--name", "first", "--wait"])?;
    let full_seconds = last_task(&server, "backup")?;
    let full_bytes = folder_bytes(&repository)?;
    place_image(&images.second, &disk)?;
    server.call(&[
        "checkpoint",
        "create",
        "bench",
        "--name",
        "second",
        "--wait",
    ])?;
    let incremental_seconds = last_task(&server, "backup")?;
    let incremental_bytes = folder_bytes(&repository)? - full_bytes;
    fs::remove_file(&disk)?;
    File::create(&disk)?.set_len(fs::metadata(&images.second)?.len())?;
    server.call(&["restore", "second", "--wait"])?;
    let restore_seconds = last_task(&server, "restore")?;
    let peak_bytes = peak_bytes(server.id()).context("the server has gone")?;
    ensure!(
        same(&disk, &images.second)?,
        "cairn restored something else"
    );
    Ok(Figures {
        full_seconds,
        full_bytes,
        incremental_seconds,
        incremental_bytes,
        restore_seconds,
        peak_bytes,
    })
}

/// How long the newest task of a type took, from the request to its end.
fn last_task(server: &Server, operation: &str) -> Result<f64> {
    let tasks = server.call(&["task", "list"])?;
    let of_type = |task: &&Value| task["operation_type"] == operation;
    let newest = tasks
        .as_array()
        .context("a list of tasks")?
        .iter()
        .find(of_type);
    let newest = newest.context("the task is gone")?;
    ensure!(newest["status"] == "success", "the task failed: {newest}");
    Ok(seconds(&newest["ended_at"])? - seconds(&newest["created_at"])?)
}

/// An instant of the wire, in seconds since midnight; a round that goes over
/// midnight would be seen, its figure being negative.
fn seconds(instant: &Value) -> Result<f64> {
    let text = instant.as_str().context("an instant")?;
    let (_, time) = text.split_once('T').context("a date and a time")?;
    let mut sum = 0.0;
    for part in time.split(':') {
        sum = sum * 60.0 + part.parse::<f64>()?;
    }
    Ok(sum)
}
