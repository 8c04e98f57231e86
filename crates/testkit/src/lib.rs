//! Development only: a whole service in one process on a clock of its own,
//! disks in memory, and stores and work that fail on demand.

mod ailing;
mod ailment;
mod clock;
mod disk;
mod faulty;
mod gated;
mod mapped;
#[cfg(feature = "vendor-contract")]
pub mod own_contract;
mod paused;
mod saboteur;
mod site;
mod tree;
#[cfg(feature = "vendor-contract")]
pub mod vendor_contract;
mod world;

pub use ailing::{AilingStore, Course};
pub use ailment::{Ailment, Fate, Request};
/// What the tests of `repo` save and restore, beside trees in memory.
pub use cairn_source::{Folder, FolderOptions};
pub use clock::FakeClock;
pub use disk::MemoryDisk;
pub use faulty::{Fault, FaultyStore};
pub use gated::{Ending, GatedDisk};
pub use mapped::MappedDisk;
pub use paused::PausedStore;
pub use saboteur::{Moment, Sabotage, Saboteur};
pub use site::{SITE, Site};
pub use tree::{MemoryTree, TreeFault};
pub use world::World;

use cairn_types::{
    BackupId, BackupInfo, CheckpointId, ProjectId, ResourceId, ResourceType, Timestamp, VaultId,
};

/// Facts of a backup of a volume, with ids of its own, made at `seconds` since 1970.
pub fn backup_info(project: ProjectId, seconds: i64) -> BackupInfo {
    BackupInfo {
        id: BackupId::random(),
        project,
        checkpoint: CheckpointId::random(),
        parent: None,
        vault: VaultId::random(),
        vault_name: "vault".into(),
        name: format!("backup {seconds}"),
        description: String::new(),
        resource: ResourceId::random(),
        resource_type: ResourceType::Volume,
        resource_name: "disk".into(),
        created_at: Timestamp::from_micros(seconds * 1_000_000),
        auto_trigger: false,
        system_disk: false,
        definition: None,
    }
}

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
