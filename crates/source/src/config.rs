//! The `[[source]]` tables of the configuration, and the rules they must obey.

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

use cairn_types::ProjectId;

use crate::protectable::ImageFormat;
use crate::{Error, Result};

/// Characters that a source's or server's name may have at most.
const MAX_NAME_CHARS: usize = 64;

/// One `[[source]]` table.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum SourceConfig {
    /// A folder of disk images.
    Images(ImagesConfig),
}

/// A folder of disk images: every `*.raw`, `*.img` and `*.qcow2` below it is a volume.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagesConfig {
    /// The source's name, part of the ids of what it holds.
    pub name: String,
    /// The folder; whoever reads the configuration makes it absolute.
    pub path: PathBuf,
    /// The project whose resources these are; the first project if unset.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// Whether backups of raw images on XFS and Btrfs read a reflink, and one of each
    /// image is kept to tell later what has changed.
    #[serde(default = "yes")]
    pub reflinks: bool,
    /// Groups of volumes that are protected together.
    #[serde(default)]
    pub server: Vec<ServerConfig>,
}

const fn yes() -> bool {
    true
}

/// A named group of volumes, protected as one server.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// The server's name, unique in its source.
    pub name: String,
    /// Its disks by their paths below the folder; the first is the system disk.
    pub disks: Vec<PathBuf>,
}

/// Checks what can be known without looking into the folders.
///
/// Errors: `Invalid` always.
pub(crate) fn check(sources: &[ImagesConfig]) -> Result<()> {
    let mut names = HashSet::new();
    for source in sources {
        if !is_name(&source.name) {
            return Err(bad_source(
                source,
                "its name must have 1 to 64 characters and no '/'",
            ));
        }
        if !names.insert(source.name.as_str()) {
            return Err(Error::DuplicateSource {
                name: source.name.clone(),
            });
        }
        check_servers(source)?;
    }
    for (at, source) in sources.iter().enumerate() {
        // One file under two ids could be bound, backed up and restored twice at once.
        let overlaps = |other: &&ImagesConfig| {
            let (one, two) = (real_path(&source.path), real_path(&other.path));
            one.starts_with(&two) || two.starts_with(&one)
        };
        if let Some(other) = sources[..at].iter().find(overlaps) {
            let why = format!(
                "its folder and that of {:?} hold the same files",
                other.name
            );
            return Err(bad_source(source, &why));
        }
    }
    Ok(())
}

fn check_servers(source: &ImagesConfig) -> Result<()> {
    let mut names = HashSet::new();
    let mut disks = HashSet::new();
    for server in &source.server {
        let bad = |why: String| Error::BadServer {
            name: source.name.clone(),
            server: server.name.clone(),
            why,
        };
        if !is_name(&server.name) {
            return Err(bad(
                "its name must have 1 to 64 characters and no '/'".to_owned()
            ));
        }
        if !names.insert(server.name.as_str()) {
            return Err(bad("another server has the same name".to_owned()));
        }
        if server.disks.is_empty() {
            return Err(bad("it has no disk".to_owned()));
        }
        for disk in &server.disks {
            let Some(name) = volume_name(disk) else {
                return Err(bad(format!(
                    "{disk:?} is not a plain path below the folder"
                )));
            };
            if ImageFormat::of(disk).is_none() {
                return Err(bad(format!(
                    "{disk:?} does not end in .raw, .img or .qcow2"
                )));
            }
            if !disks.insert(name) {
                return Err(bad(format!(
                    "{disk:?} is a disk of two servers, or listed twice"
                )));
            }
        }
    }
    Ok(())
}

fn bad_source(source: &ImagesConfig, why: &str) -> Error {
    Error::BadSource {
        name: source.name.clone(),
        why: why.to_owned(),
    }
}

fn is_name(name: &str) -> bool {
    (1..=MAX_NAME_CHARS).contains(&name.chars().count())
        && !name.chars().any(|c| c == '/' || c.is_control())
}

/// The folder without links, as far as it exists.
fn real_path(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// The name of the volume at `relative`: its path below the folder with plain
/// `/` between the parts. `None` if the path leaves the folder or is no text.
pub(crate) fn volume_name(relative: &Path) -> Option<String> {
    let mut name = String::new();
    for part in relative.components() {
        let Component::Normal(part) = part else {
            return None;
        };
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part.to_str()?);
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> std::result::Result<Vec<ImagesConfig>, toml::de::Error> {
        #[derive(serde::Deserialize)]
        struct File {
            source: Vec<SourceConfig>,
        }
        let file: File = toml::from_str(text)?;
        Ok(file
            .source
            .into_iter()
            .map(|SourceConfig::Images(images)| images)
            .collect())
    }

    fn lab(disks: &str) -> String {
        format!(
            "[[source]]\nkind = 'images'\nname = 'lab'\npath = '/nowhere/images'\n\
             [[source.server]]\nname = 'web-1'\ndisks = {disks}\n"
        )
    }

    #[test]
    fn the_documented_table_is_read() {
        let sources = read(&lab("['web-root.qcow2', 'sub/web-data.img']")).unwrap();
        check(&sources).unwrap();
        assert_eq!(sources[0].server[0].disks.len(), 2);
        assert!(read("[[source]]\nkind='images'\nname='a'\npath='b'\nspeed=3").is_err());
        assert!(read("[[source]]\nkind='tapes'\nname='a'\npath='b'").is_err());
    }

    #[test]
    fn disks_that_cannot_be_are_refused() {
        for disks in [
            "[]",
            "['../secret.img']",
            "['/etc/disk.img']",
            "['a.img', 'a.img']",
            "['a.img', './a.img', 'b/../a.img']",
            "['disk.vmdk']",
        ] {
            let error = check(&read(&lab(disks)).unwrap()).expect_err(disks);
            assert_eq!(error.kind(), cairn_types::Kind::Invalid, "{disks}");
        }
    }

    #[test]
    fn sources_that_share_a_name_or_a_folder_are_refused() {
        let one = "[[source]]\nkind='images'\nname='a'\npath='/nowhere/x'\n";
        let same_name = "[[source]]\nkind='images'\nname='a'\npath='/nowhere/y'\n";
        let inside = "[[source]]\nkind='images'\nname='b'\npath='/nowhere/x/deep'\n";
        let beside = "[[source]]\nkind='images'\nname='b'\npath='/nowhere/xy'\n";
        assert!(check(&read(&format!("{one}{same_name}")).unwrap()).is_err());
        assert!(check(&read(&format!("{one}{inside}")).unwrap()).is_err());
        assert!(check(&read(&format!("{one}{beside}")).unwrap()).is_ok());
    }
}
