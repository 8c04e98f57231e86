//! What an agent keeps in its folder: who it is, and how it last got on with its server.
//! The folder has its secret: nobody else may read that or put another in its place.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cairn_link::Instance;
use cairn_types::{AgentId, ProjectId};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Error, Result};
use crate::scripts::Scripts;

const IDENTITY: &str = "identity.json";
const LAST: &str = "last.json";
const RULES: &str = "agent.toml";
const LOCK: &str = "lock";
/// Another one for each boot (`random(4)`).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Who an agent is.
#[derive(Clone, Serialize, Deserialize)]
pub struct Identity {
    /// What it calls itself.
    pub agent_id: AgentId,
    /// Its server's address.
    pub server: String,
    /// Its project there.
    pub project_id: ProjectId,
    /// The server's region.
    pub region: String,
    secret: String,
}

impl Identity {
    /// An agent with a secret.
    pub fn new(
        agent_id: AgentId,
        server: String,
        (project_id, region): (ProjectId, String),
        secret: &[u8; 32],
    ) -> Self {
        Self {
            agent_id,
            server,
            project_id,
            region,
            secret: hex::encode(secret),
        }
    }

    /// What it shares with its server.
    pub fn secret(&self) -> Option<Zeroizing<[u8; 32]>> {
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&self.secret, &mut *secret).ok()?;
        Some(secret)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({} at {})", self.agent_id, self.server)
    }
}

/// How an agent last got on with its server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Last {
    /// When that was, in microseconds since 1970 UTC.
    pub at_micros: i64,
    /// Whether it was connected; otherwise why not.
    pub problem: Option<String>,
}

/// The folder.
#[derive(Debug, Clone)]
pub struct State {
    folder: PathBuf,
}

/// Held by the process that is the agent.
#[derive(Debug)]
pub struct Running(#[allow(dead_code, reason = "the lock goes when it is closed")] File);

impl State {
    /// The state in a folder, which may not be there yet.
    pub fn new(folder: &Path) -> Self {
        let folder = folder.to_owned();
        Self { folder }
    }

    /// The scripts of the host's owner.
    pub fn scripts(&self) -> Scripts {
        // They run in another folder than the agent. Where this one is cannot be told, nothing changes.
        let folder = std::path::absolute(&self.folder);
        Scripts::new(folder.as_deref().unwrap_or(&self.folder))
    }

    /// Which it is of the agents with this identity: since when the machine runs, and
    /// which folder it has.
    pub fn instance(&self) -> Result<Instance> {
        use std::os::unix::fs::MetadataExt;

        let boot = boot().map_err(failed("read", Path::new(BOOT_ID)))?;
        let folder = std::fs::metadata(&self.folder).map_err(failed("read", &self.folder))?;
        let folder = [folder.dev(), folder.ino()].map(u64::to_le_bytes);
        Ok(Instance::of(
            &[&folder.concat()[..], boot.as_bytes()].concat(),
        ))
    }

    /// The file with the host's rules.
    pub fn rules(&self) -> PathBuf {
        self.folder.join(RULES)
    }

    /// Makes the folder, for an agent that is about to register.
    ///
    /// Errors: `Conflict` there is an agent already; `Denied`.
    pub fn begin(&self) -> Result<()> {
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder);
        made.map_err(failed("make", &self.folder))?;
        self.must_be_private(&self.folder, 0o022)?;
        let path = self.folder.join(IDENTITY);
        match path.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => Err(Error::Registered { path }),
            Err(source) => Err(failed("read", &path)(source)),
        }
    }

    /// Keeps who the agent is, durably.
    pub fn keep(&self, identity: &Identity) -> Result<()> {
        let text = serde_json::to_vec_pretty(identity).expect("its keys are strings");
        let text = Zeroizing::new(text);
        let path = self.folder.join(IDENTITY);
        replace(&path, &text, true).map_err(failed("write", &path))
    }

    /// Who the agent is.
    ///
    /// Errors: `NotFound` none was registered; `Denied` others can read the secret.
    pub fn identity(&self) -> Result<Identity> {
        let path = self.folder.join(IDENTITY);
        let text = match std::fs::read(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let path = self.folder.clone();
                return Err(Error::NotRegistered { path });
            }
            Err(source) => return Err(failed("read", &path)(source)),
        };
        self.must_be_private(&self.folder, 0o022)?;
        self.must_be_private(&path, 0o077)?;
        let identity: Option<Identity> = serde_json::from_slice(&text).ok();
        let whole = identity.filter(|identity| identity.secret().is_some());
        whole.ok_or(Error::Damaged { path })
    }

    fn must_be_private(&self, path: &Path, others: u32) -> Result<()> {
        let found = std::fs::symlink_metadata(path).map_err(failed("read", path))?;
        match found.permissions().mode() & others {
            0 => Ok(()),
            _ => Err(Error::Exposed {
                path: path.to_owned(),
            }),
        }
    }

    /// Makes this process the agent until the guard is dropped.
    ///
    /// Errors: `Conflict` another is.
    pub fn lock(&self) -> Result<Running> {
        let path = self.folder.join(LOCK);
        let opened = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path);
        let file = opened.map_err(failed("write", &path))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Running(file)),
            Err(Errno::WOULDBLOCK) => Err(Error::Running),
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }

    /// Notes how the agent gets on. What cannot be noted is only said.
    pub fn note(&self, last: &Last) {
        let text = serde_json::to_vec(last).expect("its keys are strings");
        if let Err(error) = replace(&self.folder.join(LAST), &text, false) {
            tracing::warn!(%error, "The agent's state cannot be noted.");
        }
    }

    /// How the agent last got on, if that was ever noted.
    pub fn last(&self) -> Option<Last> {
        let text = std::fs::read(self.folder.join(LAST)).ok()?;
        serde_json::from_slice(&text).ok()
    }
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::State {
        action,
        path,
        source,
    }
}

/// What no other boot has.
pub(crate) fn boot() -> io::Result<String> {
    std::fs::read_to_string(BOOT_ID)
}

/// Puts a file in the place of another, whole or not at all; only its owner can read it.
pub(crate) fn replace(path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
    let folder = path.parent().expect("it is a file in a folder");
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    if durable {
        file.as_file().sync_all()?;
    }
    file.persist(path).map_err(|error| error.error)?;
    match durable {
        true => File::open(folder)?.sync_all(),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        let at = (ProjectId::random(), "cairn-1".to_owned());
        Identity::new(AgentId::random(), "http://x".to_owned(), at, &[7; 32])
    }

    #[test]
    fn what_is_kept_is_read_again_by_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(&folder.path().join("state"));
        let missing = state.identity().unwrap_err();
        assert_eq!(missing.kind(), cairn_types::Kind::NotFound);
        state.begin().unwrap();
        let kept = identity();
        state.keep(&kept).unwrap();
        assert!(matches!(state.begin(), Err(Error::Registered { .. })));
        let read = state.identity().unwrap();
        assert_eq!(read.agent_id, kept.agent_id);
        assert_eq!(*read.secret().unwrap(), [7; 32]);
        assert!(!format!("{read:?}").contains("0707"));
        let path = folder.path().join("state/identity.json");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_secret_that_others_can_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        state.begin().unwrap();
        state.keep(&identity()).unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let file = folder.path().join(IDENTITY);
        for mode in [0o640, 0o604, 0o620, 0o666] {
            set(&file, mode);
            assert!(matches!(state.identity(), Err(Error::Exposed { .. })));
        }
        set(&file, 0o600);
        assert!(state.identity().is_ok());
        set(folder.path(), 0o777);
        assert!(matches!(state.identity(), Err(Error::Exposed { .. })));
    }

    #[test]
    fn scripts_are_found_from_any_folder() {
        let scripts = State::new(Path::new("some/state")).scripts();
        let folder = std::env::current_dir().unwrap().join("some/state");
        assert!(format!("{scripts:?}").contains(&format!("{folder:?}")));
    }

    #[test]
    fn one_process_is_the_agent() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(folder.path());
        let running = state.lock().unwrap();
        assert!(matches!(state.lock(), Err(Error::Running)));
        drop(running);
        assert!(state.lock().is_ok());
    }
}
