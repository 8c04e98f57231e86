//! The data directory: its lock, the first credentials, and how secrets are written.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_core::FirstCredentials;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

/// How long a start waits for the lock. Of a server that was killed, a child
/// that was being started holds it until the kernel has ended that as well.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// A data directory that this process alone uses.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// What the first start makes, for clients: the file `credentials.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Credentials {
    /// The service's address, without a path.
    pub endpoint: String,
    /// The identity service's address.
    pub iam_endpoint: String,
    /// The region.
    pub region: String,
    /// The domain's name.
    pub domain_name: String,
    /// The domain's id.
    pub domain_id: String,
    /// The project's name.
    pub project_name: String,
    /// The project's id.
    pub project_id: String,
    /// The user's name.
    pub user_name: String,
    /// The user's password.
    pub password: String,
    /// The public half of the user's key pair.
    pub access_key: String,
    /// The secret half.
    pub secret_key: String,
}

impl Credentials {
    /// The credentials of a new project on a server at `endpoint`.
    pub fn new(first: &FirstCredentials, endpoint: &str, region: &str) -> Self {
        Self {
            endpoint: endpoint.to_owned(),
            iam_endpoint: endpoint.to_owned(),
            region: region.to_owned(),
            domain_name: first.domain.name.clone(),
            domain_id: first.domain.id.to_string(),
            project_name: first.project.name.clone(),
            project_id: first.project.id.to_string(),
            user_name: first.user_name.clone(),
            password: first.password.to_string(),
            access_key: first.access_key.clone(),
            secret_key: first.secret_key.to_string(),
        }
    }
}

impl DataDir {
    /// Opens a data directory, makes it if it is not there, and locks it.
    pub fn open(path: &Path) -> Result<Self> {
        let shown = path.display();
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the data directory {shown}"))?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.join("lock"))
            .with_context(|| format!("cannot write in the data directory {shown}"))?;
        let Some(lock) = lock_within(LOCK_PATIENCE, lock)? else {
            bail!("another server uses the data directory {shown}");
        };
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Keeps the first credentials, durably, for the owner of the directory alone.
    pub fn keep_credentials(&self, credentials: &Credentials) -> Result<()> {
        let text = serde_json::to_string_pretty(credentials).expect("its keys are strings");
        write_secret(&self.path.join("credentials.json"), &format!("{text}\n"))
    }

    /// Puts the address that the server has now into the credentials it made.
    pub fn update_endpoint(&self, endpoint: &str) -> Result<()> {
        let path = self.path.join("credentials.json");
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            read => read.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let mut credentials: Credentials = serde_json::from_str(&text)
            .with_context(|| format!("{} is not as it was written", path.display()))?;
        if credentials.endpoint == endpoint {
            return Ok(());
        }
        credentials.iam_endpoint = endpoint.to_owned();
        credentials.endpoint = endpoint.to_owned();
        self.keep_credentials(&credentials)
    }
}

/// Locks a file. `None` if somebody else holds the lock for as long as `patience`.
fn lock_within(patience: Duration, file: File) -> Result<Option<File>> {
    let (locked, when_locked) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("lock".to_owned())
        .spawn(move || {
            let done = flock(&file, FlockOperation::LockExclusive).map(|()| file);
            // Nobody listens once the patience is at its end, and the program with it.
            let _ = locked.send(done);
        })?;
    match when_locked.recv_timeout(patience) {
        Ok(done) => Ok(Some(done?)),
        Err(_) => Ok(None),
    }
}

/// Replaces a file as a whole; when this returns, it survives a power cut.
pub fn write_secret(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::NamedTempFile::new_in(folder_of(path))?;
        file.as_file()
            .set_permissions(std::fs::Permissions::from_mode(0o600))?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        sync_folder_of(path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// Makes the names in a file's folder survive a power cut.
pub fn sync_folder_of(path: &Path) -> std::io::Result<()> {
    File::open(folder_of(path))?.sync_all()
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent();
    let folder = folder.filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}
