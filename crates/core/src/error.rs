//! Why the service could not do what it was asked.

use cairn_types::{
    AgentId, BackupId, ByteCount, Kind, ProjectId, ResourceId, ResourceType, TargetKind,
};

/// What a call of this crate gives.
pub type Result<T> = std::result::Result<T, Error>;

/// Why the service could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A rule of the service speaks against it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The catalogue failed.
    #[error("the catalogue failed")]
    Meta(#[from] cairn_meta::Error),
    /// The repository failed.
    #[error("the repository failed")]
    Repository(#[from] cairn_repo::Error),
    /// A source failed.
    #[error("a source failed")]
    Source(#[from] cairn_source::Error),
    /// A password hash could not be made or read.
    #[error("cannot hash a password")]
    Password(argon2::password_hash::Error),
    /// The line to another region failed.
    #[error(transparent)]
    Link(#[from] cairn_link::Error),
    /// Another region refused, or cannot be asked.
    #[error(transparent)]
    Region(#[from] crate::RegionError),
    /// The replica failed in its region.
    #[error("the replica failed in its region: {reason}")]
    ReplicaFailed {
        /// Why, as the region says.
        reason: String,
    },
    /// A disk cannot be exported.
    #[error("the disk cannot be exported")]
    Export(#[from] cairn_nbd::Error),
    /// The disk of a backup cannot be read for its files.
    #[error("a file cannot be read")]
    Files(#[source] cairn_filesystem::Error),
    /// The source does not want the replica any more.
    #[error("the source has given the replication up")]
    GivenUp,
    /// The other region was not heard of for too long.
    #[error("nothing was heard of the other region for {hours} hours")]
    Silence {
        /// For how long at least.
        hours: i64,
    },
    /// An agent was not heard of for too long.
    #[error("the agent on {host} was silent for {minutes} minutes: is it running?")]
    AgentSilent {
        /// Its host.
        host: String,
        /// For how long at least.
        minutes: i64,
    },
    /// There is nothing to do before something happens elsewhere.
    #[error("it waits for the other end")]
    Later {
        /// When to look again at the latest.
        seconds: i64,
    },
    /// The random numbers of the system failed.
    #[error("the system gives no random numbers")]
    Random,
    /// Somebody asked that the work be ended.
    #[error("the work was ended")]
    Cancelled,
    /// Another site's repository cannot be opened.
    #[error("the repository {name} of another site cannot be opened: {source}")]
    External {
        /// What the configuration calls it.
        name: String,
        /// Why.
        source: crate::OpenFailed,
    },
    /// A thread broke off.
    #[error("{what} panicked")]
    Panicked {
        /// Whose thread.
        what: &'static str,
    },
}

impl Error {
    /// What a caller should do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(refusal) => refusal.kind(),
            Self::Meta(error) => error.kind(),
            Self::Repository(error) => error.kind(),
            Self::Source(error) => error.kind(),
            Self::Password(_) | Self::Panicked { .. } => Kind::Bug,
            Self::Link(error) => error.kind(),
            Self::Export(error) => error.kind(),
            Self::Files(error) => error.kind(),
            Self::Region(error) => error.kind,
            Self::ReplicaFailed { .. } | Self::GivenUp => Kind::Conflict,
            Self::Silence { .. } | Self::AgentSilent { .. } => Kind::NotFound,
            Self::Random | Self::Later { .. } => Kind::Transient,
            Self::External { source, .. } => source.kind,
            Self::Cancelled => Kind::Cancelled,
        }
    }
}

/// A rule that speaks against a request. Each is one error of the public
/// contract; `server` holds the table of their codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Who asks is not known, or the proof does not hold.
    #[error("authentication failed")]
    NotAuthenticated,
    /// Who asks may not do this here.
    #[error("the caller may not do this")]
    NotAllowed,
    /// A field has a value that the rules do not allow.
    #[error("{0}")]
    Invalid(String),
    /// No such vault in the project.
    #[error("Vault Not Found")]
    VaultNotFound,
    /// No such backup in the project.
    #[error("Backup does not exist.")]
    BackupNotFound,
    /// No such checkpoint in the project.
    #[error("Checkpoint does not exist.")]
    CheckpointNotFound,
    /// No such operation log in the project.
    #[error("Operation log does not exist.")]
    OperationLogNotFound,
    /// No such resource that the project could protect.
    #[error("Resource {id} does not exist.")]
    ResourceNotFound {
        /// The resource.
        id: ResourceId,
    },
    /// The vault protects another type of resource.
    #[error("Resource not match vault resource type.")]
    ResourceTypeMismatch,
    /// The resource is bound to another vault.
    #[error("Resource already in other vault.")]
    ResourceInOtherVault,
    /// The disk is in this vault already.
    #[error("Resource {id} is already in the vault.")]
    ResourceInVault {
        /// The resource.
        id: ResourceId,
        /// Its type.
        resource_type: ResourceType,
    },
    /// The request names a resource twice.
    #[error("Duplicate resource.")]
    DuplicateResource,
    /// The vault would hold more resources than it may.
    #[error("Resources of vault over limit: {limit}.")]
    TooManyResources {
        /// How many it may hold.
        limit: usize,
    },
    /// The project would have more vaults than it may.
    #[error("The vault count limit is reached.")]
    TooManyVaults,
    /// The capacity is below what the resources need.
    #[error("Size of vault invalid")]
    VaultTooSmall,
    /// The resources to add need more than the vault has left.
    #[error("Vault resource size illegal.")]
    ResourcesTooLarge,
    /// The vault's type takes no resources this way.
    #[error("The {object_type} vault can not add resource")]
    VaultTakesNoResources {
        /// The type.
        object_type: String,
    },
    /// At least one disk of a server has to be protected.
    #[error("At least one volume of resource {id} must be protected.")]
    NoVolumeLeft {
        /// The server.
        id: ResourceId,
    },
    /// A resource is not in the vault.
    #[error("Resources {ids} does not exist in vault.")]
    ResourceNotInVault {
        /// The resources, with commas between.
        ids: String,
    },
    /// A resource is being taken out of the vault.
    #[error("Resource is removing, resources: {id}.")]
    ResourceRemoving {
        /// The resource.
        id: ResourceId,
    },
    /// The vault's state does not allow this.
    #[error("The vault is in state {state}, which does not allow this.")]
    VaultState {
        /// The state.
        state: String,
    },
    /// The vault's state does not allow a backup.
    #[error("The vault is in state {state}, which does not allow a backup.")]
    VaultStateForbidsBackup {
        /// The state.
        state: String,
    },
    /// The vault is paid for in advance, and not over yet.
    #[error("The vault is paid in advance and cannot be deleted before its period ends.")]
    VaultPaid,
    /// The vault is paid for in advance already.
    #[error("The vault is paid in advance already.")]
    PaidInAdvance,
    /// Only vaults that are paid for by use change this way.
    #[error("The vault is paid in advance: {key} cannot be changed without an order.")]
    NotByUse {
        /// What was to change.
        key: &'static str,
    },
    /// No such order for the vault.
    #[error("There is no such order for the vault.")]
    OrderNotFound,
    /// The vault that resources were to move to is not there.
    #[error("The destination vault does not exist.")]
    DestinationNotFound,
    /// What was to move does not fit.
    #[error("The destination vault has no room for the backups.")]
    DestinationFull,
    /// A backup that is not whole tells nothing of its resource.
    #[error("The backup is in state {state}, which does not allow its metadata to be read.")]
    MetadataUnreadable {
        /// The state.
        state: String,
    },
    /// The project is not there, or nothing of the caller's.
    #[error("Project does not exist.")]
    ProjectNotFound,
    /// The domain never asked for a migration.
    #[error("Migration record does not exist.")]
    MigrationNotFound,
    /// The vault is full.
    #[error("The vault's capacity is used up.")]
    VaultFull,
    /// Vaults of this type do not make backups.
    #[error("This type of vault cannot run backups.")]
    VaultMakesNoBackups,
    /// The disk is protected already: by itself or as its server's.
    #[error("Disk {id} would be protected by several vaults.")]
    DiskInSeveralVaults {
        /// The disk.
        id: ResourceId,
    },
    /// A restore needs the backup's vault.
    #[error("A restore needs an available vault, and this one is {state}.")]
    RestoreNeedsVault {
        /// The state.
        state: String,
    },
    /// A locked vault stays locked.
    #[error("vault not support to modify locked attribute from true to false.")]
    CannotUnlock,
    /// The vault holds backups until they expire.
    #[error("Resources cannot be removed from a locked vault.")]
    VaultLocked,
    /// Nothing is left to back up.
    #[error("No resource can be backed up: each is gone, or another task is at work on it.")]
    NothingToBackUp,
    /// The backup is at work.
    #[error("Backup {id} is executing.")]
    BackupBusy {
        /// The backup.
        id: BackupId,
    },
    /// The backup is part of a server's backup.
    #[error("Backup {id} is part of a server backup and is deleted with it.")]
    BackupIsChild {
        /// The backup.
        id: BackupId,
    },
    /// A policy's backup in a locked vault.
    #[error("An automatic backup in a locked vault cannot be deleted before it expires.")]
    BackupLocked,
    /// The backup's state does not allow a restore.
    #[error("The backup is in state {state}, which does not allow a restore.")]
    BackupStateForbidsRestore {
        /// The state.
        state: String,
    },
    /// A member restores what it has accepted.
    #[error("The shared backup is {status}: it is restored once it is accepted into a vault.")]
    ShareNotAccepted {
        /// What the member made of it.
        status: String,
    },
    /// The resource is being backed up.
    #[error("Resource {id} is being backed up.")]
    ResourceBackingUp {
        /// The resource.
        id: ResourceId,
    },
    /// The resource is being restored.
    #[error("Resource {id} is restoring.")]
    ResourceRestoring {
        /// The resource.
        id: ResourceId,
    },
    /// A backup goes back to the server it came from.
    #[error("A backup can only be restored to the resource it was made of.")]
    RestoreElsewhere,
    /// The disk is smaller than its backup.
    #[error("The target disk has {target} bytes, the backup {backup}.", target = target.0, backup = backup.0)]
    TargetTooSmall {
        /// The disk's size.
        target: ByteCount,
        /// The backup's size.
        backup: ByteCount,
    },
    /// The mapping names disks that the backup or the server does not have.
    #[error("Some of the listed disks cannot be restored.")]
    UnknownMapping,
    /// A data disk's backup may not go onto a system disk.
    #[error("A data disk backup cannot be restored onto a system disk.")]
    DataOntoSystemDisk,
    /// The resource cannot be backed up as it is, so it is not bound either.
    #[error("Resource {id} cannot be protected: it is {state}.")]
    NotProtectable {
        /// The resource.
        id: ResourceId,
        /// Its type.
        resource_type: ResourceType,
        /// Its state.
        state: String,
    },
    /// The disk's state does not allow this.
    #[error("Disk {id} is {state}.")]
    DiskState {
        /// The disk.
        id: ResourceId,
        /// Its state.
        state: String,
    },
    /// No such policy in the project.
    #[error("Policy does not exist.")]
    PolicyNotFound,
    /// The vault does not follow the policy.
    #[error("The policy is not bound to the vault.")]
    PolicyNotBound,
    /// The project has as many policies of this type as it may.
    #[error("The limit of policies of this type is reached: {limit}.")]
    PolicyLimit {
        /// How many it may have.
        limit: u64,
    },
    /// Vaults replicate by the policy.
    #[error("The destination region cannot change while a vault replicates by the policy.")]
    PolicyRegionFixed,
    /// Vaults of this type do not follow such policies.
    #[error("A policy of this type does not apply to the vault.")]
    PolicyNotApplicable,
    /// Hybrid vaults do not follow backup policies.
    #[error("A backup policy cannot be bound to a hybrid vault.")]
    HybridVaultPolicy,
    /// The destination vault does not fit the vault, or its state is wrong.
    #[error("The destination vault does not fit the vault, or is not available.")]
    DestinationVaultUnfit,
    /// The destination vault takes no replicas.
    #[error("The destination vault is not a replication vault.")]
    DestinationVaultType,
    /// No such destination vault in the project.
    #[error("The destination vault does not exist.")]
    DestinationVaultNotFound,
    /// The vault has as many tags as it may.
    #[error("A vault can have at most {limit} tags.")]
    TagLimit {
        /// How many it may have.
        limit: usize,
    },
    /// The vault has no tag with this key.
    #[error("Tag {key} does not exist.")]
    TagNotFound {
        /// The key.
        key: String,
    },
    /// No such agent in the project.
    #[error("Agent {id} not found.")]
    AgentNotFound {
        /// The agent.
        id: AgentId,
    },
    /// The agent would have more paths than it may.
    #[error("Agent {id} path count is exceeded.")]
    TooManyAgentPaths {
        /// The agent.
        id: AgentId,
    },
    /// A server cannot be restored as it is.
    #[error("The state of server {id} does not allow a restore: {why}")]
    ServerState {
        /// The server.
        id: ResourceId,
        /// What speaks against it.
        why: String,
    },
    /// The agent has been told of no path to back up.
    #[error("Agent {id} has no path to back up: add one.")]
    NoAgentPath {
        /// The agent.
        id: AgentId,
    },
    /// The project has as many unused tokens for agents as it may.
    #[error("There are too many tokens that no agent has used.")]
    TooManyAgentTokens,
    /// There is no such token, it was used or has ended, or the proof is of another one.
    #[error("The token is not valid: it was used, has ended, or never was.")]
    AgentTokenUnknown,
    /// Something else has the id that an agent made for itself.
    #[error("The id {id} is that of something else.")]
    AgentIdTaken {
        /// The agent.
        id: AgentId,
    },
    /// Two agents have one identity, or the agent's host was started again a moment ago.
    #[error(
        "Another agent with the identity {id} was connected less than {seconds} s ago. The agent of a host \
         that was started again waits so long; one on a cloned host has to register as itself."
    )]
    AgentElsewhere {
        /// The agent.
        id: AgentId,
        /// For how long the other keeps its place.
        seconds: i64,
    },
    /// Only hybrid vaults mirror another site.
    #[error("The vault does not support synchronisation.")]
    SyncUnsupported,
    /// The vault is being synchronised.
    #[error("A synchronisation of the vault is running.")]
    SyncRunning,
    /// There is no such bucket to import from.
    #[error(
        "The objects of bucket {bucket} cannot be listed: no repository of another site is called so."
    )]
    NoBucket {
        /// The bucket.
        bucket: String,
    },
    /// Nowhere to put what is imported.
    #[error(
        "No hybrid vault of the project that is in service takes backups of {resource_type} from there."
    )]
    NoHybridVault {
        /// What it is a backup of.
        resource_type: ResourceType,
    },
    /// Some backups of another site were not taken over.
    #[error("{failed} could not be taken over; the first: {first}")]
    SyncIncomplete {
        /// How many.
        failed: u64,
        /// Which the first is, and why.
        first: String,
    },
    /// A backup of another site is not in its repository.
    #[error("The repository of the other site has no such backup.")]
    NothingToImport,
    /// Only what was made here is replicated.
    #[error("Only backups that were made here can be replicated, not their replicas.")]
    ReplicaNotReplicable,
    /// Only whole servers are replicated.
    #[error("Only the backup of a server with its system disk can be replicated.")]
    NotAServerBackup,
    /// There is nothing to replicate.
    #[error("No backup is left to replicate: each is replicated, busy or failed.")]
    NothingToReplicate,
    /// No replicas go to that region from here.
    #[error("The destination region {region} takes no replicas from here.")]
    RegionNotReplicable {
        /// The region.
        region: String,
    },
    /// The other region says no.
    #[error("{message}")]
    OtherRegion {
        /// The code of its refusal, if it is one of the public contract.
        code: Option<String>,
        /// What it says.
        message: String,
    },
    /// The other region cannot be asked.
    #[error("The destination region {region} cannot be reached.")]
    RegionUnreachable {
        /// The region.
        region: String,
    },
    /// The project does not exist, or the caller may not work in it.
    #[error("The destination project takes no replicas of the caller.")]
    ProjectNotReplicable,
    /// The backup has a copy there, or one is being made.
    #[error("The backup is being replicated or was replicated to that region.")]
    AlreadyReplicated,
    /// No such vault in the destination project.
    #[error("There is no such destination vault.")]
    DestinationVaultMissing,
    /// The destination vault is for other things.
    #[error("The destination vault is not a replication vault.")]
    DestinationVaultKind,
    /// The destination vault protects something else, or its state does not allow it.
    #[error("The destination vault is of another type, or in state {state}.")]
    DestinationVaultCheck {
        /// The state.
        state: String,
    },
    /// The destination vault is full.
    #[error("The destination vault is full.")]
    DestinationVaultFull,
    /// The vault protects what is not replicated.
    #[error("Backups of the type {object_type} cannot be replicated.")]
    ResourceNotReplicable {
        /// What the vault protects.
        object_type: String,
    },
    /// Only vaults that make backups replicate them.
    #[error("A vault of this type does not replicate.")]
    VaultNotReplicable,
    /// Backups of the vault are being replicated.
    #[error("The vault is replicating.")]
    VaultReplicating,
    /// The backup is being replicated, or restored from.
    #[error("Backup {id} is in use: it is being replicated or restored.")]
    BackupInUse {
        /// The backup.
        id: BackupId,
    },
    /// Only a backup as a whole is shared.
    #[error("A part of a server backup may not be shared.")]
    PartNotShared,
    /// Backups of this type of resource are not shared.
    #[error("Only backups of servers and disks can be shared.")]
    TypeNotShared,
    /// The backup would have more members than it may.
    #[error("The limit of members is reached.")]
    TooManyMembers,
    /// The backup's state does not allow that it is shared.
    #[error("Only available backups can be shared.")]
    ShareNotAvailable,
    /// The project has the backup already.
    #[error("The backup is already shared with member {member}.")]
    AlreadyShared {
        /// The project.
        member: ProjectId,
    },
    /// No project that a backup could be shared with.
    #[error("Invalid member {member}.")]
    InvalidMember {
        /// What was given for one.
        member: String,
    },
    /// No such member of the backup.
    #[error("Member does not exist.")]
    MemberNotFound,
    /// A member accepts into a vault, or rejects.
    #[error("A member can be set to accepted, with a vault, or to rejected.")]
    NoDecision,
    /// The vault's state or room does not allow sharing.
    #[error("The state of the vault, or the room left in it, does not allow sharing.")]
    ShareVaultState,
    /// The vault takes other backups.
    #[error("The accepting vault is of another type than the backup.")]
    ShareVaultType,
    /// A backup is shared by its owner alone.
    #[error("A shared backup cannot be shared on.")]
    SharedOn,
    /// The run of a policy before this one has not ended.
    #[error("The run before it is still at work.")]
    RunStillAtWork,
    /// No such target of notifications in the project.
    #[error("Notification target does not exist.")]
    TargetNotFound,
    /// No such notification in the project.
    #[error("Notification does not exist.")]
    NotificationNotFound,
    /// The project has as many targets as it may.
    #[error("The limit of notification targets is reached: {limit}.")]
    TooManyTargets {
        /// How many it may have.
        limit: usize,
    },
    /// A target stays of its kind.
    #[error("A {kind} target has no {part}.")]
    TargetKindFixed {
        /// Its kind.
        kind: TargetKind,
        /// What it does not have.
        part: &'static str,
    },
    /// No such export is open in the project.
    #[error("Export does not exist.")]
    ExportNotFound,
    /// The project has as many exports as it may.
    #[error("The limit of exports is reached: {limit}.")]
    TooManyExports {
        /// How many it may have.
        limit: usize,
    },
    /// As many are connected to the export as may be.
    #[error("The limit of connections to the export is reached: {limit}.")]
    TooManyExportConnections {
        /// How many may be.
        limit: usize,
    },
    /// A server's backup was named where one of its disks' belongs.
    #[error("It is a server's backup: name that of one of its disks.")]
    ServerHasDisks,
    /// A share's backup was named where a disk's belongs.
    #[error("It is a share's backup, not a disk's.")]
    NotADiskBackup,
    /// Nothing in the backup has this path.
    #[error("File does not exist.")]
    FileNotFound,
    /// It cannot be read, or not as what it was asked as.
    #[error("{why}")]
    UnreadableFile {
        /// Why.
        why: String,
    },
    /// A download is measured first, which takes its time.
    #[error("The download is still being measured; ask again.")]
    DownloadNotReady,
    /// No such server in the project.
    #[error("Server {id} does not exist.")]
    ServerNotFound {
        /// The server.
        id: ResourceId,
    },
}

impl Refusal {
    /// What a caller should do about it.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NotAuthenticated | Self::NotAllowed | Self::AgentTokenUnknown => Kind::Denied,
            Self::VaultNotFound
            | Self::BackupNotFound
            | Self::CheckpointNotFound
            | Self::OperationLogNotFound
            | Self::AgentNotFound { .. }
            | Self::ServerNotFound { .. }
            | Self::MemberNotFound
            | Self::DestinationVaultMissing
            | Self::NoBucket { .. }
            | Self::NothingToImport
            | Self::ResourceNotFound { .. }
            | Self::PolicyNotFound
            | Self::PolicyNotBound
            | Self::ProjectNotFound
            | Self::MigrationNotFound
            | Self::TargetNotFound
            | Self::NotificationNotFound
            | Self::ExportNotFound
            | Self::FileNotFound
            | Self::TagNotFound { .. } => Kind::NotFound,
            Self::VaultFull
            | Self::TooManyVaults
            | Self::DestinationVaultFull
            | Self::TooManyMembers
            | Self::TooManyTargets { .. }
            | Self::TooManyExports { .. }
            | Self::TooManyExportConnections { .. }
            | Self::TooManyAgentPaths { .. }
            | Self::TooManyAgentTokens
            | Self::DestinationFull
            | Self::PolicyLimit { .. }
            | Self::TagLimit { .. }
            | Self::TooManyResources { .. } => Kind::Exhausted,
            Self::VaultState { .. }
            | Self::VaultStateForbidsBackup { .. }
            | Self::RestoreNeedsVault { .. }
            | Self::BackupBusy { .. }
            | Self::AlreadyReplicated
            | Self::SyncRunning
            | Self::BackupInUse { .. }
            | Self::VaultReplicating
            | Self::RunStillAtWork
            | Self::DestinationVaultCheck { .. }
            | Self::ShareNotAvailable
            | Self::ShareNotAccepted { .. }
            | Self::ShareVaultState
            | Self::MetadataUnreadable { .. }
            | Self::BackupStateForbidsRestore { .. }
            | Self::ResourceBackingUp { .. }
            | Self::ResourceRestoring { .. }
            | Self::ResourceRemoving { .. }
            | Self::ServerState { .. }
            | Self::AgentIdTaken { .. }
            | Self::AgentElsewhere { .. }
            | Self::NotProtectable { .. }
            | Self::DiskState { .. } => Kind::Conflict,
            Self::RegionUnreachable { .. } | Self::DownloadNotReady => Kind::Transient,
            _ => Kind::Invalid,
        }
    }
}
