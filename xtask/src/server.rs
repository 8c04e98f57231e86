//! A server in a process of its own, for the benchmarks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

/// How long a server may take to start.
const START: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(20);

/// A running server, ended with its owner.
pub struct Server {
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

impl Server {
    /// Starts a server whose data is in `place/data`, and waits until it answers.
    pub fn start(program: &Path, place: &Path, config: &str) -> Result<Self> {
        let (data, file) = (place.join("data"), place.join("cairn.toml"));
        // A benchmark's own file needs no care.
        #[expect(
            clippy::disallowed_methods,
            reason = "it is read at once and then removed"
        )]
        fs::write(&file, config)?;
        let child = Command::new(program)
            .args(["server", "--listen", "127.0.0.1:0", "--config"])
            .arg(&file)
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

    /// Runs a client verb and returns what it printed.
    pub fn call(&self, arguments: &[&str]) -> Result<Value> {
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

    /// The credentials that the first start made.
    pub fn credentials(&self) -> Result<Value> {
        Ok(serde_json::from_slice(&fs::read(&self.credentials)?)?)
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}
