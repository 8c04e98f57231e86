//! The configuration: one TOML file, parsed once, with a default for everything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cairn_core::{ExportSettings, Quotas, VerificationSchedule};
use cairn_repo::Parity;
use cairn_source::{ImagesConfig, LibvirtConfig, ShareConfig, SourceConfig};
use cairn_types::BYTES_PER_GB;
use serde::Deserialize;

use crate::ServerArguments;
use crate::external::{self, ExternalConfig, ExternalSection};
use crate::notifications;
use crate::region::{ReplicationConfig, ReplicationSection};
use crate::store::{StoreConfig, StoreSection};

/// How long running tasks may take to end by themselves when the server stops.
const DRAIN_SECONDS: u64 = 5;
/// GB that may be written to one export.
const EXPORT_SCRATCH_GB: u64 = 64;
/// Tasks at work at the same time.
const TASKS: usize = 4;

/// What the server runs on.
#[derive(Debug)]
pub struct Config {
    /// Where catalogue, repository, keys and credentials are kept.
    pub data_dir: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// The address that clients use, if it is not the one listened on.
    pub endpoint: Option<String>,
    /// The region that this server is; also the name of the first project.
    pub region: String,
    /// The catalogue's database; a file in `data_dir` if not given.
    pub database_url: Option<String>,
    /// Where the repository is; a folder in `data_dir` if nothing is said.
    pub repository: StoreConfig,
    /// The file that holds the master key; one in `data_dir` if not given.
    pub master_key_file: Option<PathBuf>,
    /// How packs are protected against loss, if they are.
    pub parity: Option<Parity>,
    /// Tasks at work at the same time.
    pub tasks: usize,
    /// How long running tasks may take to end by themselves when the server stops.
    pub drain_seconds: u64,
    /// How much there may be of what.
    pub quotas: Quotas,
    /// How often backups are looked at.
    pub verify: VerificationSchedule,
    /// Whether every disk that was restored is read back and compared.
    pub compare_restored: bool,
    /// How backups are exported.
    pub exports: ExportSettings,
    /// What is replicated, and where to.
    pub replication: ReplicationConfig,
    /// How notifications are sent.
    pub notifications: notifications::Config,
    /// What can be protected.
    pub sources: Vec<SourceConfig>,
    /// The repositories of other sites.
    pub externals: Vec<ExternalConfig>,
}

/// The file as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    data_dir: Option<PathBuf>,
    listen: Option<SocketAddr>,
    endpoint: Option<String>,
    region: Option<String>,
    #[serde(default)]
    catalogue: Catalogue,
    #[serde(default)]
    repository: StoreSection,
    #[serde(default)]
    tasks: Tasks,
    #[serde(default)]
    quotas: Quotas,
    #[serde(default)]
    verify: VerificationSchedule,
    #[serde(default)]
    restore: Restore,
    #[serde(default)]
    exports: Exports,
    #[serde(default)]
    replication: ReplicationSection,
    #[serde(default)]
    notifications: notifications::Section,
    #[serde(default)]
    source: Vec<SourceConfig>,
    #[serde(default)]
    external: Vec<ExternalSection>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Catalogue {
    url: Option<String>,
    url_file: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Restore {
    compare: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exports {
    folder: Option<PathBuf>,
    scratch_gb: Option<u64>,
}

impl Exports {
    /// Fills in the defaults; paths are those of the configuration's folder.
    fn resolve(self, base: &Path, data_dir: &Path) -> Result<ExportSettings> {
        let scratch_gb = self.scratch_gb.unwrap_or(EXPORT_SCRATCH_GB);
        let scratch_bytes = scratch_gb.checked_mul(BYTES_PER_GB);
        Ok(ExportSettings {
            folder: self
                .folder
                .map_or(data_dir.to_owned(), |path| base.join(path)),
            scratch_bytes: scratch_bytes.context("exports.scratch_gb: it is too much")?,
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Tasks {
    concurrent: Option<usize>,
    drain_seconds: Option<u64>,
}

/// Reads the configuration and the command line over it.
pub fn load(arguments: &ServerArguments) -> Result<Config> {
    let (file, base) = match &arguments.config {
        Some(path) => (
            read(path)?,
            path.parent().unwrap_or(Path::new("")).to_owned(),
        ),
        None => (File::default(), PathBuf::new()),
    };
    let inside = |path: PathBuf| base.join(path);
    let database_url = match (file.catalogue.url, file.catalogue.url_file) {
        (Some(_), Some(_)) => bail!("catalogue: give url or url_file, not both"),
        (None, Some(path)) => {
            let path = inside(path);
            let text = std::fs::read_to_string(&path);
            Some(
                text.with_context(|| format!("cannot read {}", path.display()))?
                    .trim()
                    .to_owned(),
            )
        }
        (url, None) => url,
    };
    let mut sources = Vec::new();
    for mut source in file.source {
        if let Some(path) = source.path() {
            let path = inside(path.to_owned());
            source.set_path(std::path::absolute(path).context("a source's path")?);
        }
        sources.push(source);
    }
    let externals = external::resolve(file.external, &base)?;
    let tasks = file.tasks.concurrent.unwrap_or(TASKS);
    if !(1..=64).contains(&tasks) {
        bail!("tasks.concurrent: it takes 1 to 64");
    }
    let region = file.region.unwrap_or_else(|| "cairn-1".to_owned());
    if region.is_empty()
        || !region
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '-')
    {
        bail!("region: it takes letters, digits and hyphens");
    }
    let data_dir = arguments.data_dir.clone().or(file.data_dir.map(inside));
    let data_dir = data_dir.unwrap_or_else(|| PathBuf::from("cairn-data"));
    let master_key_file = file.repository.master_key_file.clone().map(inside);
    let folder = data_dir.join("repository");
    let parity = file.repository.parity()?;
    let replication = file.replication.resolve(&region, &base)?;
    let exports = file.exports.resolve(&base, &data_dir)?;
    Ok(Config {
        data_dir,
        listen: arguments
            .listen
            .or(file.listen)
            .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 8774))),
        endpoint: file
            .endpoint
            .map(|url| url.trim_end_matches('/').to_owned()),
        region,
        database_url,
        repository: file.repository.resolve(&base, folder)?,
        master_key_file,
        parity,
        tasks,
        drain_seconds: file.tasks.drain_seconds.unwrap_or(DRAIN_SECONDS),
        quotas: file.quotas,
        verify: file.verify,
        compare_restored: file.restore.compare,
        exports,
        replication,
        notifications: file.notifications.resolve(&base)?,
        sources,
        externals,
    })
}

/// Checks what only the parts themselves can tell, and prints what the configuration comes to.
pub fn check(config: &Config) -> Result<()> {
    cairn_source::Inventory::new(config.sources.clone())?;
    config.notifications.sender(&config.region)?;
    println!("{config}");
    for source in &config.sources {
        if let Some(path) = source.path()
            && !path.is_dir()
        {
            let path = path.display();
            bail!("source {:?}: there is no folder {path}", source.name());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<File> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not as it should be", path.display()))
}

impl Config {
    /// The catalogue's URL.
    pub fn database_url(&self) -> String {
        match &self.database_url {
            Some(url) => url.clone(),
            None => {
                let path = self.data_dir.join("catalogue.sqlite");
                let path = path.to_string_lossy();
                let path = percent_encoding::utf8_percent_encode(&path, URL_PATH);
                format!("sqlite:{path}")
            }
        }
    }

    /// Whether no other server can use the same catalogue.
    pub fn owns_catalogue(&self) -> bool {
        self.database_url.is_none()
    }

    /// The folder of the local index, which is a cache.
    pub fn index(&self) -> PathBuf {
        self.data_dir.join("index")
    }

    /// The folder of what is known of the chunks of a repository of another site,
    /// which is a cache.
    pub fn external_index(&self, name: &str) -> PathBuf {
        self.data_dir.join("external").join(name)
    }

    /// The folder of the audit trail.
    pub fn audit(&self) -> PathBuf {
        self.data_dir.join("audit")
    }

    /// The file that holds the master key.
    pub fn master_key_file(&self) -> PathBuf {
        self.master_key_file
            .clone()
            .unwrap_or_else(|| self.data_dir.join("master.key"))
    }
}

/// What has a meaning of its own in a URL's path.
const URL_PATH: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS
    .add(b' ')
    .add(b'%')
    .add(b'?')
    .add(b'#');

impl std::fmt::Display for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "data_dir = {:?}", self.data_dir)?;
        writeln!(f, "listen = {:?}", self.listen.to_string())?;
        if let Some(endpoint) = &self.endpoint {
            writeln!(f, "endpoint = {endpoint:?}")?;
        }
        writeln!(f, "region = {:?}", self.region)?;
        let url = if self.owns_catalogue() {
            self.database_url()
        } else {
            "(hidden)".to_owned()
        };
        writeln!(f, "\n[catalogue]\nurl = {url:?}")?;
        writeln!(f, "\n[repository]")?;
        if let Some(path) = self.repository.path() {
            writeln!(f, "path = {path:?}")?;
        }
        writeln!(f, "master_key_file = {:?}", self.master_key_file())?;
        if let Some(parity) = self.parity {
            writeln!(f, "parity = {parity}")?;
        }
        write!(f, "{}", self.repository)?;
        writeln!(f, "\n[tasks]\nconcurrent = {}", self.tasks)?;
        writeln!(f, "drain_seconds = {}", self.drain_seconds)?;
        let quotas = toml::to_string(&self.quotas).map_err(|_| std::fmt::Error)?;
        writeln!(f, "\n[quotas]\n{}", quotas.trim_end())?;
        let verify = toml::to_string(&self.verify).map_err(|_| std::fmt::Error)?;
        writeln!(f, "\n[verify]\n{}", verify.trim_end())?;
        write!(f, "\n[restore]\ncompare = {}", self.compare_restored)?;
        let scratch_gb = self.exports.scratch_bytes / BYTES_PER_GB;
        write!(f, "\n\n[exports]\nfolder = {:?}", self.exports.folder)?;
        write!(f, "\nscratch_gb = {scratch_gb}")?;
        write!(f, "{}", self.replication)?;
        write!(f, "\n\n{}", self.notifications)?;
        for source in &self.sources {
            match source {
                SourceConfig::Images(images) => show_images(images, f)?,
                SourceConfig::Share(share) => show_share(share, f)?,
                SourceConfig::Libvirt(libvirt) => show_libvirt(libvirt, f)?,
            }
        }
        self.externals.iter().try_for_each(|one| write!(f, "{one}"))
    }
}

fn show_images(source: &ImagesConfig, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    write!(f, "\n\n[[source]]\nkind = \"images\"")?;
    write!(f, "\nname = {:?}", source.name)?;
    write!(f, "\npath = {:?}", source.path)?;
    if let Some(project) = source.project {
        write!(f, "\nproject = \"{project}\"")?;
    }
    write!(f, "\nreflinks = {}", source.reflinks)?;
    write!(f, "\nbitmaps = {}", source.bitmaps)?;
    show_tags(&source.tags, f)?;
    for server in &source.server {
        write!(f, "\n\n[[source.server]]\nname = {:?}", server.name)?;
        write!(f, "\ndisks = {:?}", server.disks)?;
        if let Some(qmp) = &server.qmp {
            write!(f, "\nqmp = {qmp:?}")?;
        }
        if let Some(agent) = &server.guest_agent {
            write!(f, "\nguest_agent = {agent:?}")?;
        }
        if !server.start_command.is_empty() {
            write!(f, "\nstart_command = {:?}", server.start_command)?;
        }
        show_tags(&server.tags, f)?;
    }
    Ok(())
}

fn show_tags(tags: &BTreeMap<String, String>, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    if tags.is_empty() {
        return Ok(());
    }
    let tags = tags
        .iter()
        .map(|(key, value)| format!("{key:?} = {value:?}"));
    write!(f, "\ntags = {{ {} }}", tags.collect::<Vec<_>>().join(", "))
}

fn show_libvirt(source: &LibvirtConfig, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    write!(f, "\n\n[[source]]\nkind = \"libvirt\"")?;
    write!(f, "\nname = {:?}", source.name)?;
    write!(f, "\nuri = {:?}", source.uri)?;
    if let Some(project) = source.project {
        write!(f, "\nproject = \"{project}\"")?;
    }
    write!(f, "\ndomains = {:?}", source.domains)?;
    write!(f, "\nexclude = {:?}", source.exclude)?;
    if let Some(scratch) = &source.scratch {
        write!(f, "\nscratch = {scratch:?}")?;
    }
    show_tags(&source.tags, f)
}

fn show_share(source: &ShareConfig, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
    write!(f, "\n\n[[source]]\nkind = \"share\"")?;
    write!(f, "\nname = {:?}", source.name)?;
    write!(f, "\npath = {:?}", source.path)?;
    if let Some(project) = source.project {
        write!(f, "\nproject = \"{project}\"")?;
    }
    write!(f, "\nexclude = {:?}", source.exclude)?;
    write!(f, "\ncross_file_systems = {}", source.cross_file_systems)?;
    show_tags(&source.tags, f)
}
