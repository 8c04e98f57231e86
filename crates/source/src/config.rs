//! The `[[source]]` tables of the configuration, and the rules they must obey.

use std::collections::{BTreeMap, HashSet};
use std::path::{Component, Path, PathBuf};

use cairn_types::ProjectId;
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::folder::FolderOptions;
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
    /// A folder that is protected as a whole: a share of files.
    Share(ShareConfig),
    /// The domains of a libvirt.
    Libvirt(LibvirtConfig),
}

/// The domains of a libvirt, each a server.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LibvirtConfig {
    /// The source's name. It is no part of any id: those come from the domains' own.
    pub name: String,
    /// Where libvirt is, as `virsh --connect` takes it.
    pub uri: String,
    /// The project whose resources these are; the first project if unset.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// Patterns of the names of domains that are taken; all of them if there is none.
    #[serde(default)]
    pub domains: Vec<String>,
    /// Patterns of the names of domains that are left out.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// The folder of scratch files; beside the images if unset.
    #[serde(default)]
    pub scratch: Option<PathBuf>,
    /// What all of it is tagged with, for vaults that bind by tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Which names are taken.
#[derive(Debug)]
pub(crate) struct Patterns {
    /// Nothing if all are.
    take: Option<GlobSet>,
    exclude: GlobSet,
}

impl Patterns {
    pub(crate) fn take(&self, name: &str) -> bool {
        let taken = self.take.as_ref().is_none_or(|take| take.is_match(name));
        taken && !self.exclude.is_match(name)
    }
}

impl LibvirtConfig {
    /// Errors: `Invalid` a pattern that is none.
    pub(crate) fn patterns(&self) -> Result<Patterns> {
        let take = (!self.domains.is_empty()).then(|| globs(&self.name, &self.domains));
        Ok(Patterns {
            take: take.transpose()?,
            exclude: globs(&self.name, &self.exclude)?,
        })
    }

    fn check(&self) -> Result<()> {
        self.patterns()?;
        let bad = |why: &str| Error::BadSource {
            name: self.name.clone(),
            why: why.to_owned(),
        };
        // `virsh` would take something else for it.
        if self.uri.is_empty() || self.uri.chars().any(char::is_control) {
            return Err(bad("its uri is none"));
        }
        match &self.scratch {
            Some(scratch) if !scratch.is_absolute() => Err(bad("its scratch is no absolute path")),
            _ => Ok(()),
        }
    }
}

/// Patterns as one.
fn globs(source: &str, patterns: &[String]) -> Result<GlobSet> {
    let bad = |why: String| Error::BadSource {
        name: source.to_owned(),
        why,
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        set.add(glob.map_err(|error| bad(format!("{pattern:?} is no pattern: {error}")))?);
    }
    let set = set.build();
    set.map_err(|error| bad(format!("its patterns cannot be used together: {error}")))
}

/// A folder that is protected as a whole, file by file.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShareConfig {
    /// The share's name, part of its id.
    pub name: String,
    /// The folder; whoever reads the configuration makes it absolute.
    pub path: PathBuf,
    /// The project whose resource this is; the first project if unset.
    #[serde(default)]
    pub project: Option<ProjectId>,
    /// Patterns of paths below the folder that are left out, with all below
    /// them: `*` and `?` match within a name, `**` across names.
    #[serde(default)]
    pub exclude: Vec<String>,
    /// Go into other file systems that are mounted in the folder.
    #[serde(default)]
    pub cross_file_systems: bool,
    /// What it is tagged with, for vaults that bind by tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl SourceConfig {
    /// The source's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Images(images) => &images.name,
            Self::Share(share) => &share.name,
            Self::Libvirt(libvirt) => &libvirt.name,
        }
    }

    /// The source's folder, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Images(images) => Some(&images.path),
            Self::Share(share) => Some(&share.path),
            Self::Libvirt(_) => None,
        }
    }

    /// Replaces the source's folder.
    pub fn set_path(&mut self, path: PathBuf) {
        match self {
            Self::Images(images) => images.path = path,
            Self::Share(share) => share.path = path,
            Self::Libvirt(_) => {}
        }
    }
}

impl ShareConfig {
    /// How the folder is read.
    ///
    /// Errors: `Invalid` a pattern that is none.
    pub(crate) fn options(&self) -> Result<FolderOptions> {
        let exclude = globs(&self.name, &self.exclude)?;
        Ok(FolderOptions {
            exclude,
            cross_file_systems: self.cross_file_systems,
            ..FolderOptions::default()
        })
    }
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
    /// Whether backups of qcow2 images add dirty bitmaps to them, to tell later what
    /// has changed.
    #[serde(default)]
    pub bitmaps: bool,
    /// Groups of volumes that are protected together.
    #[serde(default)]
    pub server: Vec<ServerConfig>,
    /// What all of it is tagged with, for vaults that bind by tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
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
    /// The QMP socket of its QEMU; while that answers, its disks are read through QEMU.
    #[serde(default)]
    pub qmp: Option<PathBuf>,
    /// The socket of the agent in the guest (`qemu-ga`).
    #[serde(default)]
    pub guest_agent: Option<PathBuf>,
    /// The program that starts it, with its arguments; without it a server is not started by Cairn.
    #[serde(default)]
    pub start_command: Vec<String>,
    /// What it is tagged with beside its source's tags, or instead of those with the same keys.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

impl ServerConfig {
    /// A server of images that no QEMU is asked about.
    pub fn new(name: impl Into<String>, disks: Vec<PathBuf>) -> Self {
        Self {
            name: name.into(),
            disks,
            qmp: None,
            guest_agent: None,
            start_command: Vec::new(),
            tags: BTreeMap::new(),
        }
    }
}

/// Checks what can be known without looking into the folders.
///
/// Errors: `Invalid` always.
pub(crate) fn check(sources: &[SourceConfig]) -> Result<()> {
    let mut names = HashSet::new();
    let mut monitors = HashSet::new();
    let mut hosts = HashSet::new();
    for source in sources {
        if !is_name(source.name()) {
            return Err(bad_source(
                source,
                "its name must have 1 to 64 characters and no '/'",
            ));
        }
        if !names.insert(source.name()) {
            return Err(Error::DuplicateSource {
                name: source.name().to_owned(),
            });
        }
        match source {
            SourceConfig::Images(images) => check_servers(images, &mut monitors)?,
            SourceConfig::Share(share) => drop(share.options()?),
            SourceConfig::Libvirt(libvirt) => {
                libvirt.check()?;
                if !hosts.insert(libvirt.uri.as_str()) {
                    let why = "another source has the same uri";
                    return Err(bad_source(source, why));
                }
            }
        }
    }
    // One file under two ids could be bound, backed up and restored twice at once. In
    // their order, what lies in a folder comes right behind it.
    let mut folders: Vec<(PathBuf, &SourceConfig)> = sources
        .iter()
        .filter_map(|source| Some((real_path(source.path()?), source)))
        .collect();
    folders.sort_by(|(one, _), (two, _)| one.cmp(two));
    for pair in folders.windows(2) {
        let [(folder, other), (inner, source)] = pair else {
            continue;
        };
        if inner.starts_with(folder) {
            let why = format!(
                "its folder and that of {:?} hold the same files",
                other.name()
            );
            return Err(bad_source(source, &why));
        }
    }
    Ok(())
}

/// Checks the servers of a source; no two servers have one QEMU.
fn check_servers(source: &ImagesConfig, monitors: &mut HashSet<PathBuf>) -> Result<()> {
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
        let sockets = server.qmp.iter().chain(&server.guest_agent);
        for socket in sockets {
            if !socket.is_absolute() {
                return Err(bad(format!("{socket:?} is not an absolute path")));
            }
        }
        if server.qmp.is_none() && server.guest_agent.is_some() {
            return Err(bad("it has a guest_agent, and no qmp".to_owned()));
        }
        if server.qmp.is_none() && !server.start_command.is_empty() {
            return Err(bad("it has a start_command, and no qmp".to_owned()));
        }
        if let Some(qmp) = &server.qmp
            && !monitors.insert(real_path(qmp))
        {
            return Err(bad("another server has the same qmp".to_owned()));
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

fn bad_source(source: &SourceConfig, why: &str) -> Error {
    Error::BadSource {
        name: source.name().to_owned(),
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

    fn read(text: &str) -> std::result::Result<Vec<SourceConfig>, toml::de::Error> {
        #[derive(serde::Deserialize)]
        struct File {
            source: Vec<SourceConfig>,
        }
        let file: File = toml::from_str(text)?;
        Ok(file.source)
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
        let SourceConfig::Images(images) = &sources[0] else {
            panic!("it is {:?}", sources[0]);
        };
        assert_eq!(images.server[0].disks.len(), 2);
        assert!(read("[[source]]\nkind='images'\nname='a'\npath='b'\nspeed=3").is_err());
        assert!(read("[[source]]\nkind='tapes'\nname='a'\npath='b'").is_err());
    }

    #[test]
    fn a_share_is_read_and_its_patterns_checked() {
        let share = |exclude: &str| {
            let text = format!(
                "[[source]]\nkind = 'share'\nname = 'home'\npath = '/nowhere/home'\n\
                 exclude = {exclude}\n"
            );
            check(&read(&text).unwrap())
        };
        share("['*.tmp', '**/cache', '{a,b}/[0-9]*']").unwrap();
        assert!(share("['[']").is_err());
        assert!(read("[[source]]\nkind='share'\nname='a'\npath='b'\nserver=[]").is_err());
    }

    #[test]
    fn a_libvirt_is_read_and_its_patterns_checked() {
        let libvirt = |more: &str| {
            let text = format!("[[source]]\nkind='libvirt'\nname='host'\n{more}");
            let sources = read(&text).unwrap();
            check(&sources).map(|()| sources)
        };
        let sources = libvirt("uri='qemu:///system'\ndomains=['web-*']\nexclude=['web-9']");
        let SourceConfig::Libvirt(host) = &sources.unwrap()[0] else {
            panic!("it is a libvirt");
        };
        let patterns = host.patterns().unwrap();
        assert!(patterns.take("web-1") && !patterns.take("web-9") && !patterns.take("db-1"));
        assert!(libvirt("uri=''").is_err());
        assert!(libvirt("uri='qemu:///system'\ndomains=['[']").is_err());
        assert!(libvirt("uri='qemu:///system'\nscratch='here'").is_err());
        let twice = "uri='x:///'\n[[source]]\nkind='libvirt'\nname='other'\nuri='x:///'";
        assert!(libvirt(twice).is_err());
        assert!(read("[[source]]\nkind='libvirt'\nname='a'\nuri='b'\npath='c'").is_err());
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
