//! What the tests of the agent share: a repository in memory, the agent's end and the
//! server's end of a line in one process, and wires that break.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and not every test uses all of it"
)]

pub mod files;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_agent::{FileHost, Rules, Scripts};
use cairn_link::{
    ChunkKeys, Connection, End, EphemeralKey, Host, HostEnd, Instance, Line, Purpose, SelectedPath,
    Selection, Taken, Target,
};
use cairn_repo::{
    MasterKey, Project, Repository, RestoreTree, Result, TreeSummary, WriteTree, WrittenTree,
};
use cairn_source::{Folder, FolderOptions};
use cairn_types::tree::{TreeReader, TreeWriter};
use cairn_types::{
    AgentId, BackupId, BackupInfo, CheckpointId, Clock, Progress, ProjectId, ResourceId,
    ResourceType, Timestamp, VaultId,
};
use object_store::memory::InMemory;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinSet;

const MASTER: &str = "5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed5eed";
/// How long nothing may happen before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A clock that always shows the same.
pub struct Still;

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(12_345)
    }
}

/// A repository with one project in it.
pub struct Server {
    pub project: Project,
    project_id: ProjectId,
    _repository: Repository,
    _index: TempDir,
}

impl Server {
    pub async fn new() -> Self {
        let master = MasterKey::from_hex(MASTER).unwrap();
        let store = Arc::new(InMemory::new());
        let index = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let index = index.unwrap();
        let repository = Repository::open_or_create(store, &master).await.unwrap();
        let repository = repository.with_index_in(index.path().to_owned());
        let project_id = ProjectId::random();
        Self {
            project: repository.project(project_id).await.unwrap(),
            project_id,
            _repository: repository,
            _index: index,
        }
    }

    pub fn keys(&self) -> ChunkKeys {
        ChunkKeys {
            block: self.project.block_key(),
            cut_seed: self.project.cut_seed(),
        }
    }

    fn info(&self, seconds: i64) -> BackupInfo {
        BackupInfo {
            id: BackupId::random(),
            project: self.project_id,
            checkpoint: CheckpointId::random(),
            parent: None,
            vault: VaultId::random(),
            vault_name: "vault".into(),
            name: "backup".into(),
            description: String::new(),
            resource: ResourceId::random(),
            resource_type: ResourceType::Volume,
            resource_name: "host".into(),
            created_at: Timestamp::from_micros(seconds * 1_000_000),
            auto_trigger: false,
            system_disk: false,
            definition: None,
        }
    }

    /// Saves a tree, as one whose files had changed long before it began if `seconds` is late.
    pub async fn save(
        &self,
        reader: Arc<dyn TreeReader>,
        parent: Option<BackupId>,
        seconds: i64,
    ) -> Result<(BackupId, WrittenTree)> {
        let info = self.info(seconds);
        let id = info.id;
        let job = WriteTree {
            info,
            parent,
            reader,
            started_at: Timestamp::from_micros(seconds * 1_000_000),
            progress: Arc::new(Progress::default()),
            reread_all: false,
        };
        Ok((id, self.project.write_tree(job).await?))
    }

    /// Restores what a path of the host holds into a folder here.
    pub async fn restore(&self, backup: BackupId, path: &Path, to: &Path) -> Result<TreeSummary> {
        let target = Folder::open(to, FolderOptions::default()).unwrap();
        self.restore_into(backup, path, Arc::new(target)).await
    }

    /// The same into a folder of the agent's host.
    pub async fn restore_there(
        &self,
        link: &Link,
        (backup, path): (BackupId, &Path),
        to: &Path,
    ) -> Result<TreeSummary> {
        let target = link.line.open_tree_writer(Target {
            path: to.to_str().unwrap().to_owned(),
        });
        self.restore_into(backup, path, target).await
    }

    pub async fn restore_into(
        &self,
        backup: BackupId,
        path: &Path,
        target: Arc<dyn TreeWriter>,
    ) -> Result<TreeSummary> {
        use std::os::unix::ffi::OsStrExt;
        let path = path.strip_prefix("/").unwrap();
        let job = RestoreTree {
            backup,
            path: path.as_os_str().as_bytes().to_vec(),
            target,
            progress: Arc::new(Progress::default()),
        };
        self.project.restore_tree(job).await
    }
}

/// An agent and the line to it.
/// This host, which has no scripts.
pub fn host(rules: Rules) -> FileHost {
    let scripts = Arc::new(Scripts::new(Path::new("/nonexistent")));
    FileHost::new(rules, scripts, Arc::new(Still))
}

pub struct Link {
    pub line: Line,
    host: Arc<HostEnd>,
    agent: AgentId,
    keys: ChunkKeys,
    tasks: Mutex<JoinSet<()>>,
    /// Bytes that the agent has sent, and that it was sent.
    pub from_agent: Arc<AtomicU64>,
    pub to_agent: Arc<AtomicU64>,
    /// How often the agent was sent something.
    asked: Arc<AtomicU64>,
    /// Connections that were made.
    pub connections: AtomicU64,
}

impl Link {
    pub fn new(server: &Server, rules: Rules) -> Arc<Self> {
        Self::to(server, Arc::new(host(rules)))
    }

    /// A line to this host.
    pub fn to(server: &Server, host: Arc<dyn Host>) -> Arc<Self> {
        Arc::new(Self {
            line: Line::new(PATIENCE, Arc::new(Progress::default())),
            host: Arc::new(HostEnd::new(host)),
            agent: AgentId::random(),
            keys: server.keys(),
            tasks: Mutex::default(),
            from_agent: Arc::default(),
            to_agent: Arc::default(),
            asked: Arc::default(),
            connections: AtomicU64::default(),
        })
    }

    /// A line with a connection that does not break.
    pub async fn connected(server: &Server) -> Arc<Self> {
        let link = Self::new(server, Rules::default());
        link.connect(u64::MAX).await;
        link
    }

    /// Connects both ends by a wire that ends after so many bytes from the agent.
    pub async fn connect(&self, until: u64) {
        // A wire may end before anything is said.
        let _ = self.connect_as(Instance::of(b"this"), until).await;
    }

    /// The same with another of the agents that have this one's identity.
    pub async fn connect_as(&self, instance: Instance, until: u64) -> cairn_link::Result<()> {
        self.connections.fetch_add(1, Ordering::Relaxed);
        let both = (Purpose::Agent(self.agent, instance), &b"secret"[..]);
        let (asks, answers) = (EphemeralKey::generate(), EphemeralKey::generate());
        let (asks_public, answers_public) = (asks.public(), answers.public());
        let asking = asks.agree(End::Asking, &answers_public, both).unwrap();
        let answering = answers.agree(End::Answering, &asks_public, both).unwrap();
        let ((near, one), (far, two)) = (duplex(1 << 16), duplex(1 << 16));
        let counted = (
            self.from_agent.clone(),
            self.to_agent.clone(),
            self.asked.clone(),
        );
        let host = self.host.clone();
        {
            let mut tasks = self.tasks.lock().unwrap();
            tasks.spawn(carry(split(one), split(two), until, counted));
            tasks.spawn(async move {
                let connection = Connection::new(Box::new(far), answering);
                if let Ok(taken) = Taken::wait(connection, &[]).await {
                    let progress = Arc::new(Progress::default());
                    let _ = taken.answer_for(&host, &[], &progress).await;
                }
            });
        }
        let mut connection = Connection::new(Box::new(near), asking);
        Line::prove(&mut connection).await?;
        self.line.attach(connection, &self.keys).await
    }

    /// Makes a new connection whenever there is none; each ends after some bytes.
    pub fn keep_connecting(self: &Arc<Self>, seed: u64, longest: u64) -> JoinSet<()> {
        let mut connecting = JoinSet::new();
        let this = self.clone();
        connecting.spawn(async move {
            for round in 0.. {
                if !this.line.is_live() {
                    let some = noise(seed + round, 8);
                    let some = u64::from_le_bytes(some.try_into().unwrap());
                    this.connect(600 + some % longest).await;
                }
                tokio::task::yield_now().await;
            }
        });
        connecting
    }

    /// The tree of some folders.
    pub fn tree(&self, folders: &[&Path]) -> Arc<dyn TreeReader> {
        self.line.open_tree(selection(folders))
    }

    /// Questions that the agent was asked since this was asked last, as far as what it was
    /// sent tells: one is sealed at a time.
    pub fn take_asked(&self) -> u64 {
        self.asked.swap(0, Ordering::Relaxed)
    }

    /// Bytes from the agent since this was asked last.
    pub fn take_sent(&self) -> u64 {
        self.from_agent.swap(0, Ordering::Relaxed)
    }
}

pub fn selection(folders: &[&Path]) -> Selection {
    let paths = folders.iter().map(|folder| SelectedPath {
        path: folder.to_str().unwrap().to_owned(),
        exclude: Vec::new(),
    });
    Selection {
        paths: paths.collect(),
    }
}

type Halves = (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>);

/// Carries bytes both ways, until so many have come from `two`.
async fn carry(
    (mut from_one, mut to_one): Halves,
    (mut from_two, mut to_two): Halves,
    until: u64,
    (counted_back, counted, asked): (Arc<AtomicU64>, Arc<AtomicU64>, Arc<AtomicU64>),
) {
    let back = async {
        let (mut left, mut buffer) = (until, vec![0; 16 << 10]);
        while left > 0 {
            let room = left.min(buffer.len() as u64) as usize;
            let Ok(count @ 1..) = from_two.read(&mut buffer[..room]).await else {
                return;
            };
            counted_back.fetch_add(count as u64, Ordering::Relaxed);
            if to_one.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            left -= count as u64;
        }
    };
    let there = async {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(count @ 1..) = from_one.read(&mut buffer).await {
            counted.fetch_add(count as u64, Ordering::Relaxed);
            if count < buffer.len() {
                asked.fetch_add(1, Ordering::Relaxed);
            }
            if to_two.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = back => {}
        () = there => {}
    }
}
