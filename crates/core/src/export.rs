//! Exports: disks of backups that are served at once, without restoring them.
//!
//! An export is open in this process alone and goes with it; what is written
//! to one goes with the export. What it reads stays in the repository for as
//! long as it is open, but it ends when whoever opened it may not see the
//! backup any more.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cairn_meta::{Backup, Tx};
use cairn_nbd::{Disk, Overlay};
use cairn_types::disk::DiskReader;
use cairn_types::{
    BackupId, BackupStatus, ExportId, MemberStatus, ProjectId, ResourceType, Timestamp,
};
use tokio_util::sync::CancellationToken;

use crate::{Caller, Error, Refusal, Result, Service};

/// Exports that a project may have open.
const MAX_EXPORTS: usize = 16;
/// Connections to one export.
const MAX_CONNECTIONS: usize = 16;
/// An export to which nobody is connected, and that nobody asks for, for so long ends.
const IDLE_SECONDS: i64 = 600;

/// How backups are exported.
#[derive(Debug, Clone)]
pub struct ExportSettings {
    /// Where what is written to exports is kept.
    pub folder: PathBuf,
    /// Bytes that may be written to one export.
    pub scratch_bytes: u64,
}

/// What is known of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportView {
    /// Its id.
    pub id: ExportId,
    /// The disk's backup.
    pub backup: BackupId,
    /// The disk's name.
    pub resource_name: String,
    /// The disk's size.
    pub size_bytes: u64,
    /// Whether it takes writes.
    pub writable: bool,
    /// Bytes that were written to it and are kept.
    pub written_bytes: u64,
    /// How many are connected to it.
    pub connections: usize,
    /// When it was opened.
    pub created_at: Timestamp,
}

/// The exports that are open.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    open: Mutex<BTreeMap<ExportId, Arc<Export>>>,
    /// Cancelled when the server stops.
    stop: CancellationToken,
}

struct Export {
    id: ExportId,
    project: ProjectId,
    backup: BackupId,
    resource_name: String,
    created_at: Timestamp,
    disk: Disk,
    /// What is written to it.
    overlay: Option<Arc<Overlay>>,
    used: Mutex<Used>,
    ended: CancellationToken,
}

impl std::fmt::Debug for Export {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Export").field("id", &self.id).finish()
    }
}

/// Who uses an export.
#[derive(Debug)]
struct Used {
    connections: usize,
    /// Since when nobody does, where there are no connections.
    idle_since: Timestamp,
}

/// A place at an export, for one connection.
pub struct ExportConnection {
    export: Arc<Export>,
    service: Service,
}

impl ExportConnection {
    /// The disk to serve.
    pub fn disk(&self) -> Disk {
        self.export.disk.clone()
    }

    /// Returns when the export has ended, and with it the connection.
    pub async fn ended(&self) {
        self.export.ended.cancelled().await;
    }
}

impl Drop for ExportConnection {
    fn drop(&mut self) {
        let mut used = lock(&self.export.used);
        used.connections -= 1;
        used.idle_since = self.service.now();
    }
}

impl Export {
    fn view(&self) -> ExportView {
        ExportView {
            id: self.id,
            backup: self.backup,
            resource_name: self.resource_name.clone(),
            size_bytes: self.disk.size_bytes(),
            writable: self.overlay.is_some(),
            written_bytes: self.overlay.as_ref().map_or(0, |disk| disk.written_bytes()),
            connections: lock(&self.used).connections,
            created_at: self.created_at,
        }
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        let used = lock(&self.used);
        used.connections == 0 && now.seconds_since(used.idle_since) >= IDLE_SECONDS
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Service {
    /// Opens a disk's backup for reading, or for writing to a copy that goes with the export.
    ///
    /// Errors: `NotFound`; `Conflict` while the backup is not available, or before a
    /// member has accepted it; `Invalid` it is no disk's; `Exhausted` too many are open.
    pub async fn create_export(
        &self,
        caller: &Caller,
        backup: BackupId,
        writable: bool,
    ) -> Result<ExportView> {
        refuse_more(&lock(&self.exports().open), caller.project)?;
        let mut tx = self.meta().read().await?;
        let found = exportable(&mut tx, caller.project, backup).await?;
        drop(tx);
        let project = self.repository().existing_project(found.project).await?;
        let stored = project.open_backup(found.parent.unwrap_or(backup)).await?;
        let base = stored.open_disk(backup).await?;
        let overlay = match writable {
            true => Some(Arc::new(self.overlay(Arc::clone(&base)).await?)),
            false => None,
        };
        let now = self.now();
        let export = Arc::new(Export {
            id: ExportId::random(),
            project: caller.project,
            backup,
            resource_name: found.resource_name,
            created_at: now,
            disk: match &overlay {
                Some(overlay) => Disk::Writable(overlay.clone()),
                None => Disk::ReadOnly(base),
            },
            overlay,
            used: Mutex::new(Used {
                connections: 0,
                idle_since: now,
            }),
            ended: self.exports().stop.child_token(),
        });
        let view = export.view();
        // Others may have been opened meanwhile.
        let mut open = lock(&self.exports().open);
        refuse_more(&open, caller.project)?;
        open.insert(export.id, export);
        Ok(view)
    }

    async fn overlay(&self, base: Arc<dyn DiskReader>) -> Result<Overlay> {
        let settings = self.export_settings().clone();
        let make = move || Overlay::new(base, &settings.folder, settings.scratch_bytes);
        let made = tokio::task::spawn_blocking(make).await;
        Ok(made.map_err(|_| Error::Panicked { what: "an export" })??)
    }

    /// The project's exports that are open, in the order of their ids.
    pub fn list_exports(&self, caller: &Caller) -> Vec<ExportView> {
        let open = lock(&self.exports().open);
        let own = open.values().filter(|open| open.project == caller.project);
        own.map(|open| open.view()).collect()
    }

    /// One of the project's exports. Who asks for it uses it: between two connections of a disk's
    /// reader what was written stays as long as somebody is there who asks.
    ///
    /// Errors: `NotFound`.
    pub fn show_export(&self, caller: &Caller, id: ExportId) -> Result<ExportView> {
        let export = self.export(caller, id)?;
        lock(&export.used).idle_since = self.now();
        Ok(export.view())
    }

    fn export(&self, caller: &Caller, id: ExportId) -> Result<Arc<Export>> {
        let open = lock(&self.exports().open);
        let found = open.get(&id).filter(|open| open.project == caller.project);
        Ok(found.cloned().ok_or(Refusal::ExportNotFound)?)
    }

    /// Ends an export, its connections and what was written to it.
    ///
    /// Errors: `NotFound`.
    pub fn end_export(&self, caller: &Caller, id: ExportId) -> Result<()> {
        let export = self.export(caller, id)?;
        self.remove_export(&export);
        Ok(())
    }

    fn remove_export(&self, export: &Export) {
        lock(&self.exports().open).remove(&export.id);
        export.ended.cancel();
    }

    /// A place at an export.
    ///
    /// Errors: `NotFound`; `Exhausted` too many are connected.
    pub fn connect_export(&self, caller: &Caller, id: ExportId) -> Result<ExportConnection> {
        let export = self.export(caller, id)?;
        let mut used = lock(&export.used);
        if used.connections >= MAX_CONNECTIONS {
            let limit = MAX_CONNECTIONS;
            return Err(Refusal::TooManyExportConnections { limit }.into());
        }
        used.connections += 1;
        drop(used);
        Ok(ExportConnection {
            export,
            service: self.clone(),
        })
    }

    /// Ends the exports that nobody uses, and those whose backup is no longer there for
    /// who opened them. Returns how many.
    pub async fn end_stale_exports(&self) -> Result<usize> {
        let open: Vec<_> = lock(&self.exports().open).values().cloned().collect();
        if open.is_empty() {
            return Ok(0);
        }
        let (mut ended, now) = (0, self.now());
        let mut tx = self.meta().read().await?;
        for export in open {
            let stale = match exportable(&mut tx, export.project, export.backup).await {
                Ok(_) => export.is_idle(now),
                Err(Error::Refused(_)) => true,
                Err(error) => return Err(error),
            };
            if stale {
                tracing::info!(export.id = %export.id, backup.id = %export.backup, "An export has ended.");
                self.remove_export(&export);
                ended += 1;
            }
        }
        Ok(ended)
    }

    /// Ends every export, because the server stops.
    pub fn end_exports(&self) {
        self.exports().stop.cancel();
        lock(&self.exports().open).clear();
    }
}

fn refuse_more(open: &BTreeMap<ExportId, Arc<Export>>, project: ProjectId) -> Result<()> {
    let own = open.values().filter(|open| open.project == project);
    match own.count() < MAX_EXPORTS {
        true => Ok(()),
        false => Err(Refusal::TooManyExports { limit: MAX_EXPORTS }.into()),
    }
}

/// The backup, if it is a disk's that a project may read now.
async fn exportable(tx: &mut Tx, project: ProjectId, id: BackupId) -> Result<Backup> {
    let backup = readable(tx, project, id).await?;
    match backup.resource_type {
        ResourceType::Volume => Ok(backup),
        ResourceType::Turbo | ResourceType::NativeServer => Err(Refusal::NotADiskBackup.into()),
        _ => Err(Refusal::ServerHasDisks.into()),
    }
}

/// The backup, if a project may read it now: its own, or one that it has accepted.
pub(crate) async fn readable(tx: &mut Tx, project: ProjectId, id: BackupId) -> Result<Backup> {
    let backup = tx.visible_backup(project, id).await?;
    let backup = backup.ok_or(Refusal::BackupNotFound)?;
    if backup.project != project {
        let share = tx.share(backup.parent.unwrap_or(id), project).await?;
        let status = share.ok_or(Refusal::BackupNotFound)?.status;
        if status != MemberStatus::Accepted {
            let status = status.to_string();
            return Err(Refusal::ShareNotAccepted { status }.into());
        }
    }
    match backup.status {
        BackupStatus::Available | BackupStatus::WaitingRestore | BackupStatus::Restoring => {
            Ok(backup)
        }
        status => {
            let state = status.to_string();
            Err(Refusal::BackupStateForbidsRestore { state }.into())
        }
    }
}
