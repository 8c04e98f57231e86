//! Reading the objects of a project: what is said of a backup by its receipt
//! and manifest, of packs by index objects and by their own tables.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_types::{BackupId, Kind};
use object_store::path::Path;

use crate::error::{Error, Result};
use crate::index::{self, INDEX_MAGIC, IndexedPack};
use crate::manifest::{MANIFEST_MAGIC, Manifest};
use crate::pack::{self, PACK_HEADER_BYTES, PackId, PackSeal, TRAILER_BYTES};
use crate::project::{Inner, Listed};
use crate::receipt::Receipt;
use crate::seal::{self, FORMAT, OpenError};
use crate::store::{Folder, Found, manifest_name, manifest_path, pack_path, receipt_path};
use crate::tree::Root;
use crate::whole;
use crate::workers;

impl Inner {
    /// Where the manifest is that a receipt names.
    pub fn manifest_path(&self, receipt: &Receipt) -> Path {
        manifest_path(self.place.project, receipt.backup, &receipt.manifest)
    }

    /// A backup's receipt, or nothing if it does not exist.
    pub async fn receipt(&self, backup: BackupId) -> Result<Option<Receipt>> {
        let path = receipt_path(self.place.project, backup);
        let Some(object) = self.objects.get(&path).await? else {
            return Ok(None);
        };
        let receipt = Receipt::read(&self.keys.receipts, &self.place, &object)
            .map_err(|error| unreadable(path.to_string(), error))?;
        if receipt.backup == backup {
            Ok(Some(receipt))
        } else {
            Err(Error::Damaged {
                object: path.to_string(),
                problem: "it is another backup's",
            })
        }
    }

    /// The manifest of an acknowledged backup, checked against its receipt.
    pub async fn manifest(&self, backup: BackupId) -> Result<(Manifest, Root)> {
        let receipt = self
            .receipt(backup)
            .await?
            .ok_or(Error::NoBackup { backup })?;
        let path = self.manifest_path(&receipt);
        let object = self.objects.get(&path).await?;
        let Some(object) = object else {
            // The receipt goes first: it may have been deleted in between.
            return Err(match self.is_gone(backup).await? {
                true => Error::NoBackup { backup },
                false => Error::Missing {
                    object: path.to_string(),
                },
            });
        };
        let damaged = |problem| Error::Damaged {
            object: path.to_string(),
            problem,
        };
        if whole::hash_of(&object) != Ok(receipt.manifest) {
            return Err(damaged("it is not the one its receipt names"));
        }
        let bound = self.place.bound(&backup.to_string());
        let plain = seal::open_object(&self.keys.objects, MANIFEST_MAGIC, &bound, &object)
            .map_err(|error| unreadable(path.to_string(), error))?;
        let manifest = Manifest::decode(&plain).map_err(|problem| damaged(problem.0))?;
        if manifest.content.root(&self.keys.hasher) != receipt.root {
            return Err(damaged("its content is not the one its receipt names"));
        }
        Ok((manifest, receipt.root))
    }

    pub async fn listed(&self, backup: BackupId) -> Result<Listed> {
        let (manifest, root) = self.manifest(backup).await?;
        Ok(Listed {
            root,
            size_bytes: manifest.content.size_bytes(),
            parent: manifest.content.parent(),
            children: manifest.content.children().to_vec(),
            tree: manifest.content.summary().cloned(),
            info: manifest.info,
        })
    }

    /// As `listed`, or nothing if the backup was deleted since its receipt was seen.
    pub async fn still_listed(&self, backup: BackupId) -> Result<Option<Listed>> {
        match self.listed(backup).await {
            Ok(listed) => Ok(Some(listed)),
            Err(_) if self.is_gone(backup).await? => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a backup has no receipt; one that is damaged is one.
    pub async fn is_gone(&self, backup: BackupId) -> Result<bool> {
        let path = receipt_path(self.place.project, backup);
        Ok(!self.objects.exists(&path).await?)
    }

    /// Every pack that is there, with the length of its object.
    pub async fn pack_sizes(&self) -> Result<BTreeMap<PackId, u64>> {
        let mut sizes = BTreeMap::new();
        let note = |found: Found| {
            if let Some(id) = PackId::from_hex(&found.name) {
                sizes.insert(id, found.size_bytes);
            }
        };
        let project = self.place.project;
        self.objects.for_each(project, Folder::Packs, note).await?;
        Ok(sizes)
    }

    /// The backups that have an object in a folder, and paths there that name none.
    pub async fn backups_in(&self, folder: Folder) -> Result<(Vec<BackupId>, Vec<String>)> {
        let (mut backups, mut strange) = (Vec::new(), Vec::new());
        for found in self.objects.list(self.place.project, folder).await? {
            let backup = match folder {
                Folder::Manifests => manifest_name(&found.name),
                _ => found.name.parse().ok(),
            };
            match backup {
                Some(backup) => backups.push(backup),
                None => strange.push(found.path.to_string()),
            }
        }
        backups.dedup();
        Ok((backups, strange))
    }

    /// Reads an index object.
    pub async fn read_index(&self, found: &Found) -> Result<Vec<IndexedPack>> {
        let object = self.objects.get(&found.path).await?;
        let name = found.path.to_string();
        let object = object.ok_or(Error::Missing {
            object: name.clone(),
        })?;
        let bound = self.place.bound(&found.name);
        let secret = zeroize::Zeroizing::new(self.keys.objects);
        workers::one(move || {
            let plain = seal::open_object(&secret, INDEX_MAGIC, &bound, &object)
                .map_err(|error| unreadable(name.clone(), error))?;
            index::decode(&plain).map_err(|problem| Error::Damaged {
                object: name,
                problem: problem.0,
            })
        })
        .await
    }

    /// Reads the table at the end of a pack.
    pub async fn read_pack_table(&self, id: PackId, stored_bytes: u64) -> Result<IndexedPack> {
        let path = pack_path(self.place.project, id);
        let damaged = |problem| Error::Damaged {
            object: path.to_string(),
            problem,
        };
        if stored_bytes < (PACK_HEADER_BYTES + TRAILER_BYTES) as u64 {
            return Err(damaged("it is cut short"));
        }
        let header: Bytes = self
            .objects
            .get_range(&path, 0..PACK_HEADER_BYTES as u64)
            .await?;
        pack::check_header(id, &header).map_err(|error| unreadable(path.to_string(), error))?;
        let trailer_at = stored_bytes - TRAILER_BYTES as u64;
        let trailer = self
            .objects
            .get_range(&path, trailer_at..stored_bytes)
            .await?;
        let length = pack::read_trailer(&trailer).map_err(|problem| damaged(problem.0))?;
        let table_at = trailer_at
            .checked_sub(length as u64)
            .ok_or(damaged("it is cut short"))?;
        let sealed = self.objects.get_range(&path, table_at..trailer_at).await?;
        let seal = PackSeal::new(&self.keys, &self.place, id);
        let table =
            pack::open_table(&seal, &sealed, stored_bytes).map_err(|problem| damaged(problem.0))?;
        Ok(IndexedPack {
            id,
            stored_bytes,
            table,
        })
    }
}

/// Nothing where something is damaged that can be done without; any other
/// failure stays an error, since a store that stumbles says nothing of what it holds.
pub(crate) fn or_corrupt<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == Kind::Corrupt => {
            tracing::error!(%error, "A damaged object is left out.");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The error for an object of the project that does not open.
pub(crate) fn unreadable(object: String, error: OpenError) -> Error {
    match error {
        OpenError::Newer(found) => Error::UnknownFormat {
            object,
            found,
            known: FORMAT,
        },
        OpenError::Malformed(problem) => Error::Damaged { object, problem },
        OpenError::NotAuthentic => Error::Damaged {
            object,
            problem: "its seal is broken",
        },
    }
}
