//! The service over both catalogues, with servers that end at random.
//!
//! One program: each more would be linked with everything below it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod change_map;
mod collection;
mod decade;
mod export;
mod notification;
mod policies;
mod regions;
mod rush;
mod sweep;
mod verification;

use cairn_core::{BackupQuery, records::Page};
use cairn_testkit::World;
use cairn_types::{BackupId, ObjectType, ResourceId};

/// Backs a resource up that no vault has yet, and returns the backup, the only one.
async fn first_backup(world: &World, object_type: ObjectType, resource: ResourceId) -> BackupId {
    let vault = world.vault(object_type, resource).await;
    world.checkpoint(&vault).await;
    world.work().await;
    let page = Page {
        limit: 10,
        ..Page::default()
    };
    let query = BackupQuery {
        page,
        ..BackupQuery::default()
    };
    let (backups, _) = world.service.backups(world.caller(), &query).await.unwrap();
    backups[0].backup.id
}
