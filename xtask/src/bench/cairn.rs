//! Cairn itself: a server of its own, driven by the client verbs.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::process::peak_bytes;
use super::{Figures, Images, folder_bytes, place_image, same};

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A running server, ended with its owner.
struct Server {
    child: Child,
    program: PathBuf,
    credentials: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing more is to be had of it than its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One round: full, incremental, restore onto an empty disk of the same size.
pub fn measure(program: &Path, images: &Images, place: &Path) -> Result<Figures> {
    let folder = place.join("images");
    fs::create_dir(&folder)?;
    let disk = folder.join("disk.img");
    place_image(&images.first, &disk)?;
    let server = Server::start(program, place)?;
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
    let full_seconds = server.last_task("backup")?;
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
    let incremental_seconds = server.last_task("backup")?;
    let incremental_bytes = folder_bytes(&repository)? - full_bytes;
    fs::remove_file(&disk)?;
    File::create(&disk)?.set_len(fs::metadata(&images.second)?.len())?;
    server.call(&["restore", "second", "--wait"])?;
    let restore_seconds = server.last_task("restore")?;
    let peak_bytes = peak_bytes(server.child.id()).context("the server has gone")?;
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

impl Server {
    fn start(program: &Path, place: &Path) -> Result<Self> {
        let (data, config) = (place.join("data"), place.join("cairn.toml"));
        let text = "[[source]]\nkind = \"images\"\nname = \"bench\"\npath = \"images\"\n";
        // A benchmark's own file needs no care.
        #[expect(
            clippy::disallowed_methods,
            reason = "it is read at once and then removed"
        )]
        fs::write(&config, text)?;
        let child = Command::new(program)
            .args(["server", "--listen", "127.0.0.1:0", "--config"])
            .arg(&config)
            .arg("--data-dir")
            .arg(&data)
            .stdin(Stdio::null())
            .stderr(File::create(place.join("log"))?)
            .spawn()?;
        let credentials = data.join("credentials.json");
        let mut server = Self {
            child,
            program: program.to_owned(),
            credentials,
        };
        let start = Instant::now();
        while server.call(&["vault", "list"]).is_err() {
            if let Some(status) = server.child.try_wait()? {
                bail!("the server ended: {status}");
            }
            ensure!(start.elapsed() < START, "the server does not answer");
            thread::park_timeout(LOOK);
        }
        Ok(server)
    }

    fn call(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(["-o", "json", "--credentials"])
            .arg(&self.credentials);
        let output = command.stdin(Stdio::null()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{command:?} failed: {said}");
        Ok(serde_json::from_slice(&output.stdout).unwrap_or(Value::Null))
    }

    /// How long the newest task of a type took, from the request to its end.
    fn last_task(&self, operation: &str) -> Result<f64> {
        let tasks = self.call(&["task", "list"])?;
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
