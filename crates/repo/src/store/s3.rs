//! A bucket of an S3-compatible server as a repository's store.
//!
//! The client of `object_store` speaks the protocol, one request at a time and
//! without repetition; `remote.rs` makes it dependable. Requests are signed with
//! the digest of their body (SHA-256), which the server checks, and carry it as
//! a checksum besides, unless the server knows no checksums.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use futures::TryStreamExt;
use futures::stream::{self, BoxStream, StreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum};
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    Certificate, ClientOptions, CopyOptions, Error as StoreError, GetOptions, GetResult,
    ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, RetryConfig,
};
use zeroize::Zeroizing;

use super::answer::Connector;
use super::probe_path;
use super::remote::{Creation, RemoteStore};
use super::retry::RetryPolicy;
use crate::error::{Error, Result};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Which bucket, and what opens it.
#[derive(Debug, Clone)]
pub struct S3Config {
    /// The bucket, which must exist.
    pub bucket: String,
    /// Where in the bucket the repository lies; empty for all of it.
    pub prefix: String,
    /// The server's address, `http://` or `https://`; Amazon's for the region if not given.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// Who asks.
    pub credentials: S3Credentials,
    /// Whether the bucket is named in the path, and not in the host.
    pub path_style: bool,
    /// Whether the server is sent checksums to keep.
    pub checksums: bool,
    /// Whether objects are created conditionally, which keeps two writers apart.
    pub creation: Creation,
    /// Certificates to trust besides the system's, PEM.
    pub ca_file: Option<PathBuf>,
    /// How the server is asked again.
    pub retry: RetryPolicy,
}

/// A key pair, as the server knows it.
#[derive(Clone)]
pub struct S3Credentials {
    /// The public half.
    pub access_key: String,
    /// The secret half.
    pub secret_key: Zeroizing<String>,
    /// What goes with a key pair that is lent for a time.
    pub session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Credentials(hidden)")
    }
}

impl fmt::Display for S3Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s3://{}", self.bucket)?;
        if !self.prefix.is_empty() {
            write!(f, "/{}", self.prefix)?;
        }
        Ok(())
    }
}

/// A part of a bucket, as an object store.
#[derive(Debug)]
pub struct S3Store {
    remote: RemoteStore<PrefixStore<AmazonS3>>,
    writable: bool,
}

impl S3Store {
    /// Opens a bucket for reading and writing.
    ///
    /// Errors: `Denied` the server does not take the credentials; `Invalid` it
    /// does not create conditionally, and it was not said that nobody else
    /// writes; `Transient` there is no such bucket, or no answer.
    pub async fn open(config: &S3Config) -> Result<Self> {
        let store = Self::connect(config, true).await?;
        if config.creation == Creation::Conditional {
            store
                .probe()
                .await
                .map_err(|source| unusable(config, source))?;
        }
        Ok(store)
    }

    /// Opens a bucket for reading only.
    ///
    /// Errors: as `open`.
    pub async fn open_read_only(config: &S3Config) -> Result<Self> {
        Self::connect(config, false).await
    }

    async fn connect(config: &S3Config, writable: bool) -> Result<Self> {
        let client = client(config).map_err(|source| unusable(config, source))?;
        let inner = PrefixStore::new(client, config.prefix.as_str());
        let store = Self {
            remote: RemoteStore::new(inner, config.retry.clone(), config.creation),
            writable,
        };
        // Without a bucket, or without access to it, this is the clearest moment to fail.
        let looked = store.list(None).try_next().await;
        looked.map_err(|source| unusable(config, source))?;
        Ok(store)
    }

    /// Finds out whether the server refuses to create what exists.
    async fn probe(&self) -> StoreResult<()> {
        let path = probe_path();
        let create = || PutOptions::from(PutMode::Create);
        self.remote
            .put_opts(&path, "first".into(), create())
            .await?;
        let second = self.remote.put_opts(&path, "second".into(), create());
        let refused = match second.await {
            Err(StoreError::AlreadyExists { .. }) => {
                self.remote.get(&path).await?.bytes().await? == "first"
            }
            Ok(_) => false,
            Err(error) => return Err(error),
        };
        self.remote.delete(&path).await?;
        if refused {
            return Ok(());
        }
        Err(StoreError::NotSupported {
            source: "the server creates over what exists, so that two writers could not be \
                     kept apart"
                .into(),
        })
    }

    fn may_write(&self, location: &Path) -> StoreResult<()> {
        if self.writable {
            return Ok(());
        }
        Err(StoreError::PermissionDenied {
            path: location.to_string(),
            source: "the store is open for reading only".into(),
        })
    }
}

fn unusable(config: &S3Config, source: StoreError) -> Error {
    Error::Bucket {
        bucket: config.to_string(),
        source,
    }
}

fn client(config: &S3Config) -> StoreResult<AmazonS3> {
    let once = RetryConfig {
        max_retries: 0,
        ..Default::default()
    };
    let mut options = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        // Every request has a time of its own, by its size.
        .with_timeout_disabled();
    if let Some(path) = &config.ca_file {
        let pem = std::fs::read(path).map_err(|error| StoreError::Generic {
            store: "S3",
            source: format!("cannot read {}: {error}", path.display()).into(),
        })?;
        for certificate in Certificate::from_pem_bundle(&pem)? {
            options = options.with_root_certificate(certificate);
        }
    }
    let credentials = &config.credentials;
    let mut builder = AmazonS3Builder::new()
        .with_http_connector(Connector)
        .with_retry(once)
        .with_bucket_name(&config.bucket)
        .with_region(&config.region)
        .with_virtual_hosted_style_request(!config.path_style)
        .with_access_key_id(&credentials.access_key)
        .with_secret_access_key(credentials.secret_key.as_str())
        .with_disable_bulk_delete(true);
    if let Some(token) = &credentials.session_token {
        builder = builder.with_token(token.as_str());
    }
    if config.checksums {
        builder = builder.with_checksum_algorithm(Checksum::SHA256);
    }
    if let Some(endpoint) = &config.endpoint {
        options = options.with_allow_http(endpoint.starts_with("http://"));
        builder = builder.with_endpoint(address(endpoint, config));
    }
    builder.with_client_options(options).build()
}

/// The address that requests go to: of the server, or of the bucket if it has a host of its own.
fn address(endpoint: &str, config: &S3Config) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, host)) if !config.path_style => {
            format!("{scheme}://{}.{host}", config.bucket)
        }
        _ => endpoint.to_owned(),
    }
}

impl fmt::Display for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.remote.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        self.may_write(location)?;
        self.remote.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.may_write(location)?;
        self.remote.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.remote.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        match self.may_write(&Path::default()) {
            Ok(()) => self.remote.delete_stream(locations),
            Err(refused) => stream::once(std::future::ready(Err(refused))).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.remote.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.remote.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.remote.copy_opts(from, to, options).await
    }
}
