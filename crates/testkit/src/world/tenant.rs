//! A second project that a world can be given, with disks of its own: somebody
//! to share backups with.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cairn_core::Caller;
use cairn_meta::Project;
use cairn_source::{ImagesConfig, ServerConfig, SourceConfig};
use cairn_types::{Clock, ProjectId, ResourceId, Role};

use super::World;
use crate::noise;

const PROJECT: &str = "7e4a47b0c1d24e02a1b2c3d4e5f60718";
const FOLDER: &str = "images-of-tenant";
/// A disk on its own, one that is too small for anything, and those of a server.
const DISKS: [(&str, u64); 4] = [
    ("tenant.img", 2_000_000),
    ("small.img", 4096),
    ("tenant-root.img", 1_000_000),
    ("tenant-data.img", 5_000_000),
];
const SERVER: &str = "tenant-1";

fn project() -> ProjectId {
    PROJECT.parse().expect("32 digits are an id")
}

/// Makes the disks of the project, and names where they are.
pub(super) fn source(folder: &Path) -> SourceConfig {
    let path = folder.join(FOLDER);
    fs::create_dir(&path).expect("a folder can be made");
    for (number, (name, size)) in DISKS.iter().enumerate() {
        let file = File::create(path.join(name)).expect("a file can be made");
        file.set_len(*size).expect("a file can be sized");
        file.write_all_at(&noise(90 + number as u64, 4096), 0)
            .expect("a file can be written");
    }
    SourceConfig::Images(ImagesConfig {
        name: "tenant".to_owned(),
        path,
        project: Some(project()),
        reflinks: true,
        bitmaps: true,
        tags: BTreeMap::new(),
        server: vec![ServerConfig::new(
            SERVER,
            DISKS[2..]
                .iter()
                .map(|disk| PathBuf::from(disk.0))
                .collect(),
        )],
    })
}

impl World {
    /// Makes the project, where the administrator of the first has a role too.
    pub async fn tenant(&self) -> Caller {
        let mut tx = self.meta.begin().await.expect("the catalogue works");
        let domains = tx.domains().await.expect("the catalogue works");
        let new = Project {
            id: project(),
            domain: domains[0].id,
            name: "tenant".to_owned(),
            created_at: self.clock.now(),
        };
        tx.insert_project(&new).await.expect("it is new");
        tx.commit().await.expect("the catalogue works");
        self.grant(project(), Role::Administrator).await;
        self.caller_in(project())
    }

    /// A disk or the server of the tenant, by its name.
    pub async fn of_tenant(&self, name: &str) -> ResourceId {
        let inventory = self.inventory.list().expect("the sources can be listed");
        let children = inventory.iter().flat_map(|found| &found.children);
        let mut all = inventory.iter().chain(children);
        let found = all.find(|found| found.name == name && found.project == Some(project()));
        found.expect("every world has it").id
    }

    /// What a disk of the tenant holds.
    pub fn tenant_image(&self, name: &str) -> Vec<u8> {
        let path = self.folder.path().join(FOLDER).join(name);
        fs::read(path).expect("the image is there")
    }
}
