//! Running a process: how long it takes and the most memory it has.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// How often a running process is asked for its memory.
const LOOK: Duration = Duration::from_millis(20);

/// What a process took.
#[derive(Debug, Clone, Copy)]
pub struct Took {
    /// From its start to its end.
    pub seconds: f64,
    /// The largest resident memory it had.
    pub peak_bytes: u64,
}

/// Runs a command to its end; it must succeed.
pub fn run(command: &mut Command) -> Result<Took> {
    let shown = format!("{command:?}");
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let start = Instant::now();
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let id = child.id();
    let (ended, wait) = mpsc::channel::<()>();
    let watcher = thread::spawn(move || {
        let mut peak = 0;
        loop {
            peak = peak.max(peak_bytes(id).unwrap_or(0));
            if wait.recv_timeout(LOOK) != Err(mpsc::RecvTimeoutError::Timeout) {
                return peak;
            }
        }
    });
    let output = child.wait_with_output()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(ended);
    let peak_bytes = watcher.join().expect("the watcher does not panic");
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{shown} failed: {said}");
    Ok(Took {
        seconds,
        peak_bytes,
    })
}

/// The largest resident memory that a running process has had.
/// Source: proc(5), `VmHWM` in `/proc/PID/status`, in KiB.
pub fn peak_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// Makes a running process's largest memory what it has now.
/// Source: proc(5), `/proc/PID/clear_refs`, value 5.
pub fn reset_peak(id: u32) -> Result<()> {
    let path = format!("/proc/{id}/clear_refs");
    #[expect(
        clippy::disallowed_methods,
        reason = "it is no file that could be lost"
    )]
    fs::write(Path::new(&path), "5").context("the kernel keeps the peak of a process")
}
