//! The store of a repository, as the configuration names it: a folder, or a
//! bucket of an S3-compatible server.

use std::fmt;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use cairn_repo::{
    Creation, LimitedStore, Limits, LocalStore, Parity, RetryPolicy, S3Config, S3Credentials,
    S3Store,
};
use object_store::ObjectStore;
use serde::Deserialize;
use zeroize::Zeroizing;

/// The section `repository` of the configuration, but for the master key.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSection {
    path: Option<PathBuf>,
    s3: Option<S3Section>,
    #[serde(default)]
    limits: LimitsSection,
    /// The file that holds the master key.
    pub master_key_file: Option<PathBuf>,
    parity: Option<ParitySection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Section {
    bucket: String,
    #[serde(default)]
    prefix: String,
    endpoint: Option<String>,
    region: Option<String>,
    credentials_file: Option<PathBuf>,
    profile: Option<String>,
    path_style: Option<bool>,
    #[serde(default = "yes")]
    checksums: bool,
    #[serde(default)]
    single_writer: bool,
    ca_file: Option<PathBuf>,
    patience_seconds: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LimitsSection {
    upload_bytes_per_second: Option<NonZeroU64>,
    download_bytes_per_second: Option<NonZeroU64>,
    requests: Option<NonZeroUsize>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct ParitySection {
    data: usize,
    parity: usize,
}

/// A store that is not open yet.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    place: Place,
    limits: Limits,
}

#[derive(Debug, Clone)]
enum Place {
    Folder(PathBuf),
    Bucket(Box<Bucket>),
}

#[derive(Debug, Clone)]
struct Bucket {
    s3: S3Config,
    credentials_file: Option<PathBuf>,
}

fn yes() -> bool {
    true
}

impl StoreSection {
    /// The section of a repository that is only read.
    pub fn of(path: Option<PathBuf>, s3: Option<S3Section>, limits: LimitsSection) -> Self {
        Self {
            path,
            s3,
            limits,
            ..Self::default()
        }
    }

    /// Whether it says where the repository is.
    pub const fn names_a_place(&self) -> bool {
        self.path.is_some() || self.s3.is_some()
    }

    /// How packs are protected, if they are to be.
    pub fn parity(&self) -> Result<Option<Parity>> {
        let Some(ParitySection { data, parity }) = self.parity else {
            return Ok(None);
        };
        let setting = Parity::new(data, parity);
        let setting = setting.context("repository.parity: data is 1 to 32, parity 1 to 4")?;
        Ok(Some(setting))
    }

    /// What the section comes to; relative paths are in `base`, and so is the folder
    /// that is taken where nothing is said.
    pub fn resolve(self, base: &Path, folder: PathBuf) -> Result<StoreConfig> {
        let place = match (self.path, self.s3) {
            (Some(_), Some(_)) => bail!("repository: give path or s3, not both"),
            (Some(path), None) => Place::Folder(base.join(path)),
            (None, Some(s3)) => Place::Bucket(Box::new(s3.resolve(base)?)),
            (None, None) => Place::Folder(folder),
        };
        let given = self.limits;
        let mut limits = Limits {
            upload_bytes_per_second: given.upload_bytes_per_second.map(NonZeroU64::get),
            download_bytes_per_second: given.download_bytes_per_second.map(NonZeroU64::get),
            ..Limits::default()
        };
        if let Some(requests) = given.requests {
            limits.requests = requests.get();
        }
        Ok(StoreConfig { place, limits })
    }
}

impl S3Section {
    fn resolve(self, base: &Path) -> Result<Bucket> {
        if self.bucket.is_empty() || self.bucket.contains('/') {
            bail!("repository.s3.bucket: the name of a bucket, without a slash");
        }
        if let Some(endpoint) = &self.endpoint
            && !["http://", "https://"]
                .iter()
                .any(|scheme| endpoint.starts_with(scheme))
        {
            bail!("repository.s3.endpoint: an address that starts with http:// or https://");
        }
        let credentials_file = self.credentials_file.map(|path| base.join(path));
        let credentials = match &credentials_file {
            Some(path) => read_credentials(path, self.profile.as_deref().unwrap_or("default"))?,
            None if self.profile.is_some() => {
                bail!("repository.s3.profile: it is a section of credentials_file")
            }
            None => credentials_from_environment()?,
        };
        let mut retry = RetryPolicy::default();
        if let Some(seconds) = self.patience_seconds {
            retry.patience = Duration::from_secs(seconds);
        }
        let s3 = S3Config {
            bucket: self.bucket,
            prefix: self.prefix.trim_matches('/').to_owned(),
            path_style: self.path_style.unwrap_or(self.endpoint.is_some()),
            endpoint: self.endpoint,
            region: self.region.unwrap_or_else(|| "us-east-1".to_owned()),
            credentials,
            checksums: self.checksums,
            creation: if self.single_writer {
                Creation::Alone
            } else {
                Creation::Conditional
            },
            ca_file: self.ca_file.map(|path| base.join(path)),
            retry,
        };
        Ok(Bucket {
            s3,
            credentials_file,
        })
    }
}

impl StoreConfig {
    /// A folder, without limits.
    pub fn folder(path: PathBuf) -> Self {
        Self {
            place: Place::Folder(path),
            limits: Limits::default(),
        }
    }

    /// Opens the store for reading and writing. A folder is made if need be.
    pub async fn open(&self) -> Result<Arc<dyn ObjectStore>> {
        let opened: cairn_repo::Result<Arc<dyn ObjectStore>> = match &self.place {
            Place::Folder(path) => LocalStore::open(path).map(|store| Arc::new(store) as _),
            Place::Bucket(bucket) => S3Store::open(&bucket.s3)
                .await
                .map(|store| Arc::new(store) as _),
        };
        self.limited(opened)
    }

    /// Opens the store for reading only.
    pub async fn open_read_only(&self) -> Result<Arc<dyn ObjectStore>> {
        let opened: cairn_repo::Result<Arc<dyn ObjectStore>> = match &self.place {
            Place::Folder(path) => {
                LocalStore::open_read_only(path).map(|store| Arc::new(store) as _)
            }
            Place::Bucket(bucket) => S3Store::open_read_only(&bucket.s3)
                .await
                .map(|store| Arc::new(store) as _),
        };
        self.limited(opened)
    }

    fn limited(
        &self,
        opened: cairn_repo::Result<Arc<dyn ObjectStore>>,
    ) -> Result<Arc<dyn ObjectStore>> {
        let store = opened.with_context(|| format!("cannot open {}", self.shown()))?;
        Ok(Arc::new(LimitedStore::new(store, self.limits)))
    }

    /// The folder, if it is one.
    pub fn path(&self) -> Option<&Path> {
        match &self.place {
            Place::Folder(path) => Some(path),
            Place::Bucket(_) => None,
        }
    }

    /// The bucket, if it is in one.
    pub fn bucket(&self) -> Option<&str> {
        match &self.place {
            Place::Folder(_) => None,
            Place::Bucket(bucket) => Some(&bucket.s3.bucket),
        }
    }

    /// How the store is named to people.
    pub fn shown(&self) -> String {
        match &self.place {
            Place::Folder(path) => path.display().to_string(),
            Place::Bucket(bucket) => bucket.s3.to_string(),
        }
    }
}

/// The configuration that would come to this store, secrets left out. It
/// goes behind the keys of the section `repository`.
impl fmt::Display for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.show_in("repository", f)
    }
}

impl StoreConfig {
    /// As `Display`, below a section of another name.
    pub fn show_in(&self, section: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Place::Bucket(bucket) = &self.place {
            let s3 = &bucket.s3;
            writeln!(f, "\n[{section}.s3]\nbucket = {:?}", s3.bucket)?;
            writeln!(f, "prefix = {:?}", s3.prefix)?;
            if let Some(endpoint) = &s3.endpoint {
                writeln!(f, "endpoint = {endpoint:?}")?;
            }
            writeln!(f, "region = {:?}", s3.region)?;
            if let Some(path) = &bucket.credentials_file {
                writeln!(f, "credentials_file = {path:?}")?;
            }
            writeln!(f, "path_style = {}", s3.path_style)?;
            writeln!(f, "checksums = {}", s3.checksums)?;
            writeln!(f, "single_writer = {}", s3.creation == Creation::Alone)?;
            writeln!(f, "patience_seconds = {}", s3.retry.patience.as_secs())?;
            if let Some(path) = &s3.ca_file {
                writeln!(f, "ca_file = {path:?}")?;
            }
        }
        writeln!(
            f,
            "\n[{section}.limits]\nrequests = {}",
            self.limits.requests
        )?;
        if let Some(rate) = self.limits.upload_bytes_per_second {
            writeln!(f, "upload_bytes_per_second = {rate}")?;
        }
        if let Some(rate) = self.limits.download_bytes_per_second {
            writeln!(f, "download_bytes_per_second = {rate}")?;
        }
        Ok(())
    }
}

/// A key pair out of a section of a file as the tools of S3 keep it.
fn read_credentials(path: &Path, profile: &str) -> Result<S3Credentials> {
    let text = std::fs::read_to_string(path);
    let text = text.with_context(|| format!("cannot read {}", path.display()))?;
    let text = Zeroizing::new(text);
    let found = |name: &str| {
        let lines = text
            .lines()
            .map(str::trim)
            .skip_while(|line| section(line) != Some(profile))
            .skip(1)
            .take_while(|line| section(line).is_none());
        let mut pairs = lines.filter_map(|line| line.split_once('='));
        let pair = pairs.find(|(key, _)| key.trim() == name);
        pair.map(|(_, value)| value.trim().to_owned())
    };
    credentials(found).with_context(|| format!("the section [{profile}] of {}", path.display()))
}

/// The name of a section, if a line begins one.
fn section(line: &str) -> Option<&str> {
    Some(line.strip_prefix('[')?.strip_suffix(']')?.trim())
}

fn credentials_from_environment() -> Result<S3Credentials> {
    let found = |name: &str| std::env::var(name.to_uppercase()).ok();
    credentials(found).context("without repository.s3.credentials_file, the environment")
}

fn credentials(found: impl Fn(&str) -> Option<String>) -> Result<S3Credentials> {
    let wanted = |name: &str| found(name).with_context(|| format!("has no {name}"));
    Ok(S3Credentials {
        access_key: wanted("aws_access_key_id")?,
        secret_key: wanted("aws_secret_access_key")?.into(),
        session_token: found("aws_session_token").map(Zeroizing::new),
    })
}

#[cfg(test)]
mod tests;
