//! The agent on a host: its clock, and the signals that end it.

use std::sync::Arc;

use anyhow::{Context, Result};
use cairn_agent::AgentCommand;
use cairn_types::Progress;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::SystemClock;

/// Does what was asked; an agent that runs ends by the signals that end a server.
pub async fn run(command: AgentCommand) -> Result<()> {
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let stop = Progress::default();
    let running = cairn_agent::run(command, Arc::new(SystemClock), &stop);
    tokio::pin!(running);
    tokio::select! {
        done = &mut running => return Ok(done?),
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    stop.cancel();
    Ok(running.await?)
}
