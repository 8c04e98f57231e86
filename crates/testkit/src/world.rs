//! A whole service in one process: a catalogue and images in a folder of its
//! own, a repository in memory, a clock that stands still, and an engine that
//! works only when told to.

mod tenant;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use cairn_audit::{Trail, TrailKey};
use cairn_core::{
    Caller, ExportSettings, External, FirstCredentials, FirstNames, NewCheckpoint, NewVault,
    NoRegions, Parts, ProtectableFilter, Quotas, Regions, ReplicationRules, ResourceToBind,
    Service, VaultView, VerificationSchedule, Worker,
};
use cairn_meta::{Grant, Meta, Page, ResourceExtraInfo};
use cairn_repo::{MasterKey, Parity, Project, Repository, VerifyLevel};
use cairn_source::{ImagesConfig, Inventory, ServerConfig, ShareConfig, SourceConfig};
use cairn_task::Engine;
use cairn_types::{BackupId, Clock, ObjectType, ProjectId, ResourceId, ResourceType, Role, UserId};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{FakeClock, Moment, PausedStore, Sabotage, Saboteur, noise};

/// Seconds that a lease certainly has ended after.
const LONG_SECONDS: i64 = 3600;
/// Tasks that one test can have queued.
const MAX_TASKS: usize = 1000;

/// A whole service in one process.
pub struct World {
    /// The service.
    pub service: Service,
    /// Its clock.
    pub clock: Arc<FakeClock>,
    /// Its data plane.
    pub repository: Repository,
    /// What the data plane keeps its objects in.
    pub store: Arc<dyn ObjectStore>,
    /// Holds calls of the data plane up.
    pub gate: PausedStore,
    /// The catalogue.
    pub meta: Meta,
    /// What can be protected.
    pub inventory: Arc<Inventory>,
    /// What the first start made.
    pub credentials: FirstCredentials,
    caller: Caller,
    work: Arc<Saboteur>,
    wake: Arc<Notify>,
    folder: TempDir,
}

/// Where systems have files in memory, and the room that is needed there.
const MEMORY: &str = "/dev/shm";
const MEMORY_BYTES: u64 = 1 << 30;
/// What may be written to an export of a world.
const EXPORT_SCRATCH_BYTES: u64 = 4 << 20;
/// The region that every world is.
const REGION: &str = "cairn-1";
/// The disks that every world has: a single one, and a server with two.
const DISK: &str = "disk.img";
const SERVER: &str = "web-1";
const SERVER_DISKS: [&str; 2] = ["web-root.img", "web-data.img"];
/// The share that every world has.
const SHARE: &str = "home";
/// The files in it, by their paths.
const FILES: [&str; 4] = ["notes", "deep/er/notes", "deep/large", "skipped.tmp"];
/// Sizes that are no multiple of anything.
const DISK_BYTES: [(&str, u64); 3] = [
    (DISK, 700_001),
    (SERVER_DISKS[0], 300_512),
    (SERVER_DISKS[1], 4_000_000),
];

/// A folder in memory, where there is one with room enough.
fn folder_in_memory() -> Option<TempDir> {
    let room = rustix::fs::statvfs(MEMORY).ok()?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let made = (free >= MEMORY_BYTES).then(|| tempfile::tempdir_in(MEMORY));
    made?.ok()
}

/// What a world has beside what every world has.
struct Wish {
    folder: TempDir,
    parity: Option<Parity>,
    /// Empty shares.
    shares: usize,
    regions: Arc<dyn Regions>,
    externals: Vec<External>,
}

impl Default for Wish {
    fn default() -> Self {
        Self {
            folder: folder(),
            parity: None,
            shares: 0,
            regions: Arc::new(NoRegions),
            externals: Vec::new(),
        }
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

impl World {
    /// A new world whose images hold random bytes and holes.
    pub async fn new() -> Self {
        Self::build(Wish::default()).await
    }

    /// As `new`, with packs protected like this.
    pub async fn with_parity(parity: Option<Parity>) -> Self {
        Self::build(Wish {
            parity,
            ..Wish::default()
        })
        .await
    }

    /// As `new`, beside other regions.
    pub async fn beside(regions: Arc<dyn Regions>) -> Self {
        Self::build(Wish {
            regions,
            ..Wish::default()
        })
        .await
    }

    /// As `new`, with the repositories of other sites.
    pub async fn with_externals(externals: Vec<External>) -> Self {
        Self::build(Wish {
            externals,
            ..Wish::default()
        })
        .await
    }

    /// As `new`, with so many empty shares beside the others, called `share-0` and so on.
    pub async fn with_shares(count: usize) -> Self {
        Self::build(Wish {
            shares: count,
            ..Wish::default()
        })
        .await
    }

    /// As `with_shares`, with all of it in memory where the system has a folder for that:
    /// for tests that write for years.
    pub async fn in_memory_with_shares(count: usize) -> Self {
        Self::build(Wish {
            folder: folder_in_memory().unwrap_or_else(folder),
            shares: count,
            ..Wish::default()
        })
        .await
    }

    async fn build(wish: Wish) -> Self {
        let Wish {
            folder,
            parity,
            shares,
            regions,
            externals,
        } = wish;
        let images = folder.path().join("images");
        fs::create_dir(&images).expect("a folder can be made");
        for (number, (name, size)) in DISK_BYTES.iter().enumerate() {
            let file = File::create(images.join(name)).expect("a file can be made");
            file.set_len(*size).expect("a file can be sized");
            file.write_all_at(&noise(number as u64, 150_000), 65_536)
                .expect("a file can be written");
        }
        let clock = Arc::new(FakeClock::at(1_700_000_000));
        let server = ServerConfig::new(SERVER, SERVER_DISKS.iter().map(PathBuf::from).collect());
        let images = SourceConfig::Images(ImagesConfig {
            name: "lab".to_owned(),
            path: images,
            project: None,
            reflinks: true,
            bitmaps: true,
            server: vec![server],
            tags: BTreeMap::new(),
        });
        let files = folder.path().join("files");
        fs::create_dir_all(files.join("deep/er")).expect("a folder can be made");
        let share = SourceConfig::Share(ShareConfig {
            name: SHARE.to_owned(),
            path: files,
            project: None,
            exclude: vec!["**/*.tmp".to_owned()],
            cross_file_systems: false,
            tags: BTreeMap::new(),
        });
        let crowd = (0..shares).map(|number| {
            let name = format!("share-{number}");
            let path = folder.path().join("shares").join(&name);
            fs::create_dir_all(&path).expect("a folder can be made");
            SourceConfig::Share(ShareConfig {
                name,
                path,
                project: None,
                exclude: Vec::new(),
                cross_file_systems: false,
                tags: BTreeMap::new(),
            })
        });
        let sources = [images, share, tenant::source(folder.path())];
        let inventory = Inventory::new(sources.into_iter().chain(crowd).collect());
        let inventory = Arc::new(inventory.expect("the sources are valid"));
        let gate = PausedStore::new(Arc::new(InMemory::new()));
        let store: Arc<dyn ObjectStore> = Arc::new(gate.clone());
        let master = MasterKey::from_hex(&"7".repeat(64)).expect("64 digits are a key");
        let repository = Repository::create(Arc::clone(&store), &master).await;
        let repository = repository.expect("an empty store takes a repository");
        let repository = repository.with_parity(parity);
        let url = format!(
            "sqlite:{}",
            folder.path().join("catalogue.sqlite").display()
        );
        let meta = Meta::open(&url).await.expect("a catalogue can be made");
        let wake = Arc::new(Notify::new());
        let service = Service::new(Parts {
            meta: meta.clone(),
            repository: repository.clone(),
            inventory: Arc::clone(&inventory),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            wake: Arc::clone(&wake),
            quotas: Quotas::default(),
            verification: VerificationSchedule::default(),
            compare_restored: true,
            region: REGION.to_owned(),
            regions,
            replication: ReplicationRules::default(),
            externals,
            exports: ExportSettings {
                folder: std::env::temp_dir(),
                scratch_bytes: EXPORT_SCRATCH_BYTES,
            },
        });
        let (credentials, user) = set_up(&service).await;
        let caller = Caller {
            user,
            project: credentials.project.id,
            role: Role::Administrator,
            request_id: "req-test".to_owned(),
        };
        let work = Arc::new(Saboteur::new(Worker::new(service.clone())));
        let world = Self {
            service,
            clock,
            repository,
            store,
            gate,
            meta,
            inventory,
            credentials,
            caller,
            work,
            wake,
            folder,
        };
        world.change_share(1);
        world
    }

    /// Where the audit trail of the world lies.
    pub fn trail_folder(&self) -> PathBuf {
        self.folder.path().join("audit")
    }

    /// The key of the audit trail.
    pub fn trail_key() -> TrailKey {
        TrailKey::new(&[7; 32])
    }

    /// The audit trail of the world.
    pub fn trail(&self) -> Trail {
        Trail::open(&self.trail_folder(), Self::trail_key()).expect("a folder takes a trail")
    }

    /// The administrator of the first project.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Gives the administrator of the first project a role in another one.
    pub async fn grant(&self, project: ProjectId, role: Role) {
        let user = self.caller.user;
        let mut tx = self.meta.begin().await.expect("the catalogue works");
        let grant = Grant {
            user,
            project,
            role,
        };
        tx.insert_grant(&grant).await.expect("the project is there");
        tx.commit().await.expect("the catalogue works");
    }

    /// The project's part of the repository.
    pub async fn project(&self) -> Project {
        let project = self.repository.project(self.caller.project).await;
        project.expect("the project's key ring can be opened")
    }

    /// A further project in which the administrator of the first has a role.
    pub async fn project_as(&self, name: &str, role: Role) -> ProjectId {
        let made = self.service.add_project(name, name).await;
        let project = made.expect("the name is new").project.id;
        self.grant(project, role).await;
        project
    }

    /// The administrator of the first project, at work in another.
    pub fn caller_in(&self, project: ProjectId) -> Caller {
        Caller {
            project,
            ..self.caller.clone()
        }
    }

    /// What a project's part of the repository holds, after a check that all
    /// of it is whole and nothing is left over.
    pub async fn stored(&self, project: ProjectId, context: &str) -> Vec<BackupId> {
        let project = self.repository.project(project).await;
        let project = project.expect("the project's key ring can be opened");
        let report = project.verify(VerifyLevel::Full, Arc::default()).await;
        let report = report.expect("the store works");
        assert!(report.is_clean(), "{context}: {report:?}");
        assert!(report.unacknowledged.is_empty(), "{context}: {report:?}");
        let listed = project.list().await.expect("the store works");
        let mut ids: Vec<_> = listed.into_iter().map(|found| found.info.id).collect();
        ids.sort();
        ids
    }

    /// Changes one bit in the middle of every object whose path contains a text.
    pub async fn damage(&self, part: &str) {
        let objects: Vec<ObjectMeta> = self.store.list(None).try_collect().await.expect("a list");
        for path in objects.into_iter().map(|object| object.location) {
            if path.as_ref().contains(part) {
                let object = self.store.get(&path).await.expect("it was listed");
                let mut bytes = object.bytes().await.expect("it is in memory").to_vec();
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                let put = self.store.put(&path, bytes.into()).await;
                put.expect("memory takes it");
            }
        }
    }

    /// Says of a backup that it takes so many bytes of its vault.
    pub async fn count_as(&self, project: ProjectId, backup: BackupId, used_bytes: u64) {
        let mut tx = self.meta.begin().await.expect("the catalogue works");
        let row = tx.lock_backup(project, backup).await;
        let mut row = row.expect("the catalogue works").expect("it is there");
        row.used_bytes = used_bytes;
        tx.update_backup(&row).await.expect("the catalogue works");
        tx.commit().await.expect("the catalogue works");
    }

    /// The id of the single disk.
    pub async fn disk(&self) -> ResourceId {
        self.resource(ResourceType::Volume, DISK).await
    }

    /// The id of the server.
    pub async fn server(&self) -> ResourceId {
        self.resource(ResourceType::Server, SERVER).await
    }

    /// The id of the share.
    pub async fn share(&self) -> ResourceId {
        self.resource(ResourceType::Turbo, SHARE).await
    }

    /// Where the files of the share are.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("files")
    }

    async fn resource(&self, resource_type: ResourceType, name: &str) -> ResourceId {
        let page = Page {
            limit: 1000,
            ..Page::default()
        };
        let all = self
            .service
            .protectables(
                &self.caller,
                resource_type,
                &ProtectableFilter::default(),
                &page,
            )
            .await;
        let all = all.expect("the sources can be listed");
        let found = all.iter().find(|view| view.protectable.name == name);
        found.expect("every world has it").protectable.id
    }

    /// Where the image of a disk is.
    pub fn image(&self, name: &str) -> PathBuf {
        self.folder.path().join("images").join(name)
    }

    /// What all images hold, in a fixed order.
    pub fn images(&self) -> Vec<Vec<u8>> {
        let read = |name| fs::read(self.image(name)).expect("the image is there");
        DISK_BYTES.iter().map(|(name, _)| read(name)).collect()
    }

    /// What the files of the share hold that are not left out, in a fixed order.
    pub fn share_files(&self) -> Vec<Vec<u8>> {
        let read = |name: &&str| fs::read(self.files().join(name)).unwrap_or_default();
        FILES[..3].iter().map(read).collect()
    }

    /// Gives the files of the share other bytes.
    pub fn change_share(&self, seed: u64) {
        for (number, name) in FILES.iter().enumerate() {
            let length = 1000 + 700_000 * number;
            let path = self.files().join(name);
            let file = File::create(path).expect("a file can be made");
            let bytes = noise(seed + number as u64, length);
            file.write_all_at(&bytes, 0).expect("a file can be written");
        }
    }

    /// Overwrites a part of every image with other bytes.
    pub fn change_images(&self, seed: u64) {
        for (name, size) in DISK_BYTES {
            let file = File::options().write(true).open(self.image(name));
            let file = file.expect("the image is there");
            let offset = seed * 131 % (size - 5000);
            file.write_all_at(&noise(seed, 5000), offset)
                .expect("a file can be written");
        }
    }

    /// A vault for `object_type` with one resource in it.
    pub async fn vault(&self, object_type: ObjectType, resource: ResourceId) -> VaultView {
        let resource_type = match object_type {
            ObjectType::Disk => ResourceType::Volume,
            ObjectType::Turbo => ResourceType::Turbo,
            _ => ResourceType::Server,
        };
        let resource = ResourceToBind {
            id: resource,
            resource_type,
            name: None,
            extra_info: ResourceExtraInfo::default(),
        };
        let new = new_vault(object_type, "backup", vec![resource]);
        self.service
            .create_vault(&self.caller, new)
            .await
            .expect("the vault can be made")
    }

    /// A vault for replicas of servers, in the caller's project.
    pub async fn replication_vault(&self, caller: &Caller) -> VaultView {
        let new = new_vault(ObjectType::Server, "replication", Vec::new());
        let made = self.service.create_vault(caller, new).await;
        made.expect("the vault can be made")
    }

    /// A vault that is to mirror another site.
    pub async fn hybrid_vault(&self) -> VaultView {
        let mut new = new_vault(ObjectType::Server, "backup", Vec::new());
        new.cloud_type = "hybrid".to_owned();
        let made = self.service.create_vault(&self.caller, new).await;
        made.expect("the vault can be made")
    }

    /// Asks for a checkpoint of everything in a vault.
    pub async fn checkpoint(&self, vault: &VaultView) -> cairn_core::CheckpointView {
        let new = NewCheckpoint {
            policy: None,
            vault: vault.vault.id,
            name: None,
            description: String::new(),
            auto_trigger: false,
            incremental: true,
            retention_days: None,
            resources: Vec::new(),
        };
        let made = self.service.create_checkpoint(&self.caller, new).await;
        made.expect("the checkpoint can be made")
    }

    /// An engine as a new process would have it: with an owner name of its own.
    fn engine(&self) -> Engine<Saboteur> {
        Engine::new(
            self.meta.clone(),
            Arc::clone(&self.work),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
            uuid::Uuid::new_v4().to_string(),
            Arc::clone(&self.wake),
            CancellationToken::new(),
        )
    }

    /// Works until no task is left, letting time pass where tasks wait for it.
    pub async fn work(&self) {
        let engine = self.engine();
        engine.take_over().await.expect("the catalogue works");
        for _ in 0..MAX_TASKS {
            if !engine.run_one().await.expect("the catalogue works") {
                if self.unfinished().await == 0 {
                    return;
                }
                self.clock.advance(LONG_SECONDS);
            }
        }
        panic!("tasks go on for ever");
    }

    /// Works beside others of this process until there is nothing to begin.
    pub async fn work_beside(&self) {
        let engine = self.engine();
        while engine.run_one().await.expect("the catalogue works") {}
    }

    /// Does one task beside others of this process.
    pub async fn work_once(&self) {
        let begun = self.engine().run_one().await;
        assert!(begun.expect("the catalogue works"), "there is a task");
    }

    /// Has a sabotage happen to whoever works next.
    pub fn plan(&self, sabotage: Option<Sabotage>) {
        self.work.plan(sabotage);
    }

    /// How many tasks are not over.
    pub async fn tasks_left(&self) -> u64 {
        self.unfinished().await
    }

    /// Works with a sabotage. Where it ends the process, another takes over.
    pub async fn work_with(&self, sabotage: Sabotage) {
        self.work.plan(Some(sabotage));
        if sabotage.moment == Moment::CrashAfter {
            tokio::select! {
                () = self.work.crashed.notified() => {}
                () = self.work_beside() => {}
            }
        }
        self.work().await;
        self.work.plan(None);
    }

    async fn unfinished(&self) -> u64 {
        let mut tx = self.meta.read().await.expect("the catalogue works");
        tx.unfinished_tasks().await.expect("the catalogue works")
    }
}

async fn set_up(service: &Service) -> (FirstCredentials, UserId) {
    let names = FirstNames {
        domain: "cairn".to_owned(),
        project: REGION.to_owned(),
        user: "admin".to_owned(),
    };
    let mut kept = None;
    let keep = async |first: &FirstCredentials| -> Result<(), cairn_core::Error> {
        kept = Some(first.clone());
        Ok(())
    };
    service
        .set_up(&names, keep)
        .await
        .expect("an empty catalogue can be set up");
    let first = kept.expect("the catalogue was empty");
    let user = service
        .secret_of(&first.access_key)
        .await
        .expect("the key was just made")
        .0;
    (first, user)
}

fn new_vault(
    object_type: ObjectType,
    protect_type: &str,
    resources: Vec<ResourceToBind>,
) -> NewVault {
    NewVault {
        name: format!("{object_type}s"),
        description: String::new(),
        object_type,
        protect_type: protect_type.to_owned(),
        cloud_type: "public".to_owned(),
        consistent_level: "crash_consistent".to_owned(),
        size_gb: 100,
        auto_bind: false,
        auto_expand: false,
        smn_notify: true,
        threshold: 80,
        locked: false,
        is_multi_az: false,
        enterprise_project: "0".to_owned(),
        backup_name_prefix: String::new(),
        bind_rules: serde_json::json!({}),
        tags: Vec::new(),
        policy: None,
        prepaid: None,
        demand_billing: false,
        availability_zone: None,
        sys_lock_source_service: None,
        resources,
    }
}
