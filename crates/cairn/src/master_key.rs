//! The master key's file: how it is made, read, and replaced by another.
//!
//! Between a rotation's steps two files hold a key: the one that is kept, and
//! beside it the new one under the name with `.new` behind it. One of them opens
//! the repository, whenever the process or the machine stops.

use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cairn_repo::{MasterKey, Repository};
use cairn_types::Kind;
use object_store::ObjectStore;
use zeroize::Zeroizing;

use crate::data_dir::{sync_folder_of, write_secret};

/// Which file's key has opened the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// The one that is kept.
    Kept,
    /// The new one of a rotation that was interrupted; [`adopt`] finishes it.
    New,
}

/// The key in a file: 64 hexadecimal digits.
pub fn read(file: &Path) -> Result<MasterKey> {
    read_if_there(file)?.with_context(|| {
        format!(
            "cannot read the master key {}: no such file",
            file.display()
        )
    })
}

fn read_if_there(file: &Path) -> Result<Option<MasterKey>> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| format!("cannot read the master key {}", file.display()))?,
    };
    let key = MasterKey::from_hex(&Zeroizing::new(text));
    let key = key.with_context(|| format!("{} holds no master key", file.display()))?;
    Ok(Some(key))
}

/// The key in a file, made if the file is not there.
pub fn read_or_make(file: &Path) -> Result<MasterKey> {
    if let Some(key) = read_if_there(file)? {
        return Ok(key);
    }
    let key = MasterKey::generate();
    write(file, &key)?;
    Ok(key)
}

fn write(file: &Path, key: &MasterKey) -> Result<()> {
    let text = Zeroizing::new(format!("{}\n", key.to_hex().as_str()));
    write_secret(file, &text)
}

/// Where the new key lies until it is the one that is kept.
fn new_file(file: &Path) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(".new");
    name.into()
}

/// Opens a repository with the key in `file` or, where a rotation was
/// interrupted, with the new one beside it. Writes nothing.
pub async fn open(store: Arc<dyn ObjectStore>, file: &Path) -> Result<(Repository, Opener)> {
    let denied = match Repository::open(Arc::clone(&store), &read(file)?).await {
        Err(error) if error.kind() == Kind::Denied => error,
        opened => return Ok((opened?, Opener::Kept)),
    };
    let Some(new) = read_if_there(&new_file(file))? else {
        return Err(denied.into());
    };
    Ok((Repository::open(store, &new).await?, Opener::New))
}

/// Keeps the new key of a rotation that was interrupted, in place of the old one.
pub fn adopt(file: &Path) -> Result<()> {
    let new = new_file(file);
    std::fs::rename(&new, file)
        .and_then(|()| sync_folder_of(file))
        .with_context(|| format!("cannot rename {} to {}", new.display(), file.display()))
}

/// Gives a repository another master key and keeps that in place of the old
/// one: the key in the file `given`, or a new one. A rotation that was
/// interrupted is gone on with. The caller holds the repository's lock.
pub async fn rotate(store: Arc<dyn ObjectStore>, file: &Path, given: Option<&Path>) -> Result<()> {
    let given = given.map(read).transpose()?;
    let wanted = |key: &MasterKey| given.as_ref().is_none_or(|given| same(given, key));
    if let (_, Opener::New) = open(Arc::clone(&store), file).await? {
        adopt(file)?;
        if wanted(&read(file)?) {
            return Ok(());
        }
    }
    let (from, new) = (read(file)?, new_file(file));
    let to = match read_if_there(&new)? {
        Some(begun) if wanted(&begun) => begun,
        Some(_) => bail!(
            "{} holds the key of a rotation that was interrupted: give no other key, to go on with it",
            new.display()
        ),
        None => {
            let to = given.unwrap_or_else(MasterKey::generate);
            if same(&from, &to) {
                bail!("the new master key is the one that is in use");
            }
            write(&new, &to)?;
            to
        }
    };
    Repository::rotate_master_key(store, &from, &to).await?;
    adopt(file)
}

fn same(one: &MasterKey, other: &MasterKey) -> bool {
    *one.to_hex() == *other.to_hex()
}

#[cfg(test)]
#[path = "master_key/tests.rs"]
mod tests;
