//! `cairn backup serve`: a disk's backup at a socket of this machine.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as Probe;
use std::path::{Path, PathBuf};

use cairn_api::backup::Backup;
use cairn_api::export::{CreateExportRequest, Export, NewExport};
use cairn_api::{Client, client};
use cairn_types::{BackupId, ExportId, Kind};
use clap::Args;
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, interval};

use crate::output::{Printer, bytes};
use crate::{Error, find};

/// Bytes that are passed on at a time.
const PASSED_BYTES: usize = 1 << 20;
/// How often the server is asked for the export: whether it still has it, and so that it keeps it.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A server that could not be asked for so long has ended the export: docs/API.md, section 13.
const SILENCE_MAX: Duration = Duration::from_secs(600);

/// A backup to serve, and where.
#[derive(Debug, Clone, Args)]
pub struct Serve {
    /// The backup, by id or name: a disk's, or a server's that has one disk.
    backup: String,
    /// The socket to serve it at; it is made, and goes when the command ends.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Take writes: they go to a copy that is gone when the command ends, never to the backup.
    #[arg(long)]
    writable: bool,
}

/// Serves until it is interrupted, or the server ends the export.
pub(crate) async fn serve(
    wish: &Serve,
    client: &Client,
    printer: &mut Printer,
) -> Result<(), Error> {
    let backup = disk_of(&find::backup(client, &wish.backup).await?)?;
    let listener = listen(&wish.socket)?;
    let _socket = Socket(&wish.socket);
    let request = CreateExportRequest {
        export: NewExport {
            writable: wish.writable,
        },
    };
    let export = client.create_export(backup, &request).await?.export;
    printer.print(&export, || ready(&export, &wish.socket))?;
    let ended = pass_on(&listener, client, export.id).await;
    if ended.is_ok() {
        // It may have ended meanwhile, which is as well.
        let _ = client.delete_export(export.id).await;
    }
    ended
}

/// The backup to export of one that was named.
pub(crate) fn disk_of(backup: &Backup) -> Result<BackupId, Error> {
    match backup.children.as_slice() {
        [] => Ok(backup.id),
        [disk] => Ok(disk.id),
        disks => {
            let named = disks
                .iter()
                .map(|disk| format!("{} ({})", disk.id, disk.resource_name));
            let named: Vec<_> = named.collect();
            Err(Error::SeveralDisks {
                disks: named.join(", "),
            })
        }
    }
}

fn ready(export: &Export, socket: &Path) -> String {
    let path = socket.display();
    let how = if export.writable {
        "writable"
    } else {
        "read-only"
    };
    format!(
        "serving {} ({}, {how}) at nbd+unix:///?socket={path}\n",
        export.resource_name,
        bytes(export.size_bytes)
    )
}

/// A socket that goes with this.
struct Socket<'p>(&'p Path);

impl Drop for Socket<'_> {
    fn drop(&mut self) {
        // Whoever has removed it already wanted the same.
        let _ = std::fs::remove_file(self.0);
    }
}

/// Makes a socket that nobody else may use. One that is left of a process that is gone is replaced.
fn listen(path: &Path) -> Result<UnixListener, Error> {
    let failed = |source: io::Error| Error::Socket {
        path: path.to_owned(),
        source,
    };
    let bound = match UnixListener::bind(path) {
        // What is no socket is somebody's file, and refuses connections too.
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_socket(path) => {
            match Probe::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(failed)?;
                    UnixListener::bind(path)
                }
                _ => Err(error),
            }
        }
        bound => bound,
    };
    let listener = bound.map_err(failed)?;
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(path, private).map_err(failed)?;
    Ok(listener)
}

fn is_socket(path: &Path) -> bool {
    let found = std::fs::symlink_metadata(path);
    found.is_ok_and(|found| found.file_type().is_socket())
}

/// Passes connections to the socket on to the server.
async fn pass_on(listener: &UnixListener, client: &Client, export: ExportId) -> Result<(), Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signal)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signal)?;
    let gone = gone(client, export);
    tokio::pin!(gone);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            source = &mut gone => return Err(Error::ExportGone { export, source }),
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (near, _) = accepted.map_err(Error::Connection)?;
                let client = client.clone();
                connections.spawn(async move {
                    if let Err(error) = connect(near, &client, export).await {
                        eprintln!("error: {}", error.line());
                    }
                });
            }
        }
    }
}

/// Asks for the export again and again, which keeps it at the server; returns once it is gone. A server that
/// cannot be reached may come back, and may have it still.
async fn gone(client: &Client, export: ExportId) -> client::Error {
    let mut look = interval(LOOK_EVERY);
    let mut answered = Instant::now();
    let mut is_silent = false;
    loop {
        look.tick().await;
        match client.show_export(export).await {
            Ok(_) => (answered, is_silent) = (Instant::now(), false),
            Err(error) if error.kind() == Kind::Transient && answered.elapsed() < SILENCE_MAX => {
                if !is_silent {
                    eprintln!("note: the server does not answer, and is asked again: {error}");
                }
                is_silent = true;
            }
            Err(error) => return error,
        }
    }
}

async fn connect(mut near: UnixStream, client: &Client, export: ExportId) -> Result<(), Error> {
    let mut far = client.connect_export(export).await?;
    let passed =
        tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, PASSED_BYTES, PASSED_BYTES);
    match passed.await {
        Ok(_) => Ok(()),
        // A client that goes without a word has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(Error::Connection(error)),
    }
}
