//! Where the local indexes of a repository lie.

use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;

use cairn_types::ProjectId;

use crate::random;

/// A folder with a local index for each project.
#[derive(Debug)]
pub(crate) struct LocalFolder {
    path: PathBuf,
    temporary: bool,
}

impl LocalFolder {
    /// A folder that is kept.
    pub fn at(path: PathBuf) -> Self {
        Self {
            path,
            temporary: false,
        }
    }

    /// A folder that is made when it is needed, and removed with this.
    pub fn temporary() -> Self {
        let name = format!("cairn-index-{}", hex::encode(random::bytes::<16>()));
        Self {
            path: std::env::temp_dir().join(name),
            temporary: true,
        }
    }

    /// The folder of a project.
    pub fn of(&self, project: ProjectId) -> PathBuf {
        self.path.join(project.to_string())
    }
}

impl Drop for LocalFolder {
    fn drop(&mut self) {
        if !self.temporary {
            return;
        }
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                tracing::warn!(%error, path = %self.path.display(), "A temporary index stays.");
            }
            _ => {}
        }
    }
}
