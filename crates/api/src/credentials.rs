//! Who a client is, and where its server is: from the file that a server
//! writes on its first start, or from the environment as the vendor's SDKs read it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cairn_types::{DomainId, ProjectId};
use serde::{Deserialize, Serialize};

use crate::client::Error;
use crate::identity::Secret;

/// Names the credentials file.
pub const FILE_VARIABLE: &str = "CAIRN_CREDENTIALS";
/// Names the server's address where there is no file.
pub const ENDPOINT_VARIABLE: &str = "CAIRN_ENDPOINT";
/// Begins the variables that name the address of CBR in a region.
/// Source: the region provider of the vendor's SDKs.
const REGION_PREFIX: &str = "HUAWEICLOUD_SDK_REGION_CBR_";
/// The most that a credentials file may hold, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// The file `credentials.json` of a data directory: all that a client of any
/// kind needs, the command line, the SDKs and Terraform alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CredentialsFile {
    /// The address of CBR, such as `http://127.0.0.1:8774`.
    pub endpoint: String,
    /// The address of identity.
    pub iam_endpoint: String,
    /// The region that the server is.
    pub region: String,
    /// The domain's name.
    pub domain_name: String,
    /// The domain.
    pub domain_id: DomainId,
    /// The project's name.
    pub project_name: String,
    /// The project.
    pub project_id: ProjectId,
    /// The administrator's name.
    pub user_name: String,
    /// The administrator's password.
    pub password: Secret,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Secret,
}

/// What a client signs with, and where it sends to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The address of CBR, such as `http://127.0.0.1:8774`.
    pub endpoint: String,
    /// The project that is acted in.
    pub project_id: ProjectId,
    /// The access key.
    pub access_key: String,
    /// The secret key.
    pub secret_key: Secret,
}

impl From<CredentialsFile> for Credentials {
    fn from(file: CredentialsFile) -> Self {
        let CredentialsFile {
            endpoint,
            project_id,
            access_key,
            secret_key,
            ..
        } = file;
        Self {
            endpoint,
            project_id,
            access_key,
            secret_key,
        }
    }
}

impl Credentials {
    /// Loads credentials from `file`, else from the file that the environment
    /// names, else from the environment itself.
    ///
    /// Errors: `Invalid`, with a message that says what is missing or wrong.
    pub fn load(file: Option<&Path>) -> Result<Self, Error> {
        let environment = std::env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self::load_from(file, &environment)
    }

    /// The same with the environment passed in.
    fn load_from(
        file: Option<&Path>,
        environment: &BTreeMap<String, String>,
    ) -> Result<Self, Error> {
        let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        if let Some(path) = file
            .map(Path::to_owned)
            .or_else(|| set(FILE_VARIABLE).map(PathBuf::from))
        {
            return Self::read(&path);
        }
        let required = |name: &'static str| {
            let missing = || Error::CredentialsMissing { variable: name };
            set(name).cloned().ok_or_else(missing)
        };
        let access_key = required("HUAWEICLOUD_SDK_AK")?;
        let secret_key = Secret(required("HUAWEICLOUD_SDK_SK")?);
        let project_id = required("HUAWEICLOUD_SDK_PROJECT_ID")?
            .parse()
            .map_err(|_| Error::ProjectId)?;
        let endpoint = set(ENDPOINT_VARIABLE).or_else(|| region_endpoint(environment));
        let missing = || Error::CredentialsMissing {
            variable: ENDPOINT_VARIABLE,
        };
        let endpoint = endpoint
            .ok_or_else(missing)?
            .split(',')
            .next()
            .unwrap_or_default();
        Ok(Self {
            endpoint: endpoint.trim().to_owned(),
            project_id,
            access_key,
            secret_key,
        })
    }

    /// Reads a credentials file.
    fn read(path: &Path) -> Result<Self, Error> {
        let unreadable = |source| Error::CredentialsRead {
            path: path.to_owned(),
            source,
        };
        let size = std::fs::metadata(path).map_err(unreadable)?.len();
        if size > MAX_FILE_BYTES {
            return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
        }
        let text = std::fs::read(path).map_err(unreadable)?;
        let file: CredentialsFile =
            serde_json::from_slice(&text).map_err(|source| Error::CredentialsParse {
                path: path.to_owned(),
                source,
            })?;
        Ok(file.into())
    }
}

/// The address of the one region that the environment has, if there is just one.
fn region_endpoint(environment: &BTreeMap<String, String>) -> Option<&String> {
    let mut regions = environment
        .iter()
        .filter(|(name, _)| name.starts_with(REGION_PREFIX));
    match (regions.next(), regions.next()) {
        (Some((_, endpoint)), None) => Some(endpoint),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const PROJECT: &str = "f841e01fd2b14e7fa41b6ae7aa6b0594";

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let base = [
            ("HUAWEICLOUD_SDK_AK", "ak"),
            ("HUAWEICLOUD_SDK_SK", "sk"),
            ("HUAWEICLOUD_SDK_PROJECT_ID", PROJECT),
        ];
        base.iter()
            .chain(pairs)
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    fn file() -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let contents = serde_json::json!({
            "endpoint": "http://127.0.0.1:1", "iam_endpoint": "http://127.0.0.1:1/v3",
            "region": "local", "domain_name": "d", "domain_id": PROJECT, "project_name": "p",
            "project_id": PROJECT, "user_name": "admin", "password": "pw",
            "access_key": "file-ak", "secret_key": "file-sk"
        });
        file.write_all(contents.to_string().as_bytes()).unwrap();
        file
    }

    #[test]
    fn a_file_that_is_named_wins_over_the_environment() {
        let file = file();
        let environment = environment(&[(ENDPOINT_VARIABLE, "http://env")]);
        let loaded = Credentials::load_from(Some(file.path()), &environment).unwrap();
        assert_eq!(loaded.access_key, "file-ak");
        let mut named = environment.clone();
        named.insert(
            FILE_VARIABLE.to_owned(),
            file.path().to_str().unwrap().to_owned(),
        );
        assert_eq!(Credentials::load_from(None, &named).unwrap(), loaded);
    }

    #[test]
    fn the_environment_of_the_sdks_is_enough() {
        let loaded = |pairs: &[(&str, &str)]| Credentials::load_from(None, &environment(pairs));
        assert_eq!(
            loaded(&[(ENDPOINT_VARIABLE, "http://a")]).unwrap().endpoint,
            "http://a"
        );
        let region = ("HUAWEICLOUD_SDK_REGION_CBR_LOCAL_1", "http://b, http://c");
        assert_eq!(loaded(&[region]).unwrap().endpoint, "http://b");
        let other = ("HUAWEICLOUD_SDK_REGION_CBR_LOCAL_2", "http://d");
        assert!(
            loaded(&[region, other])
                .unwrap_err()
                .to_string()
                .contains(ENDPOINT_VARIABLE)
        );
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for name in [
            "HUAWEICLOUD_SDK_AK",
            "HUAWEICLOUD_SDK_SK",
            "HUAWEICLOUD_SDK_PROJECT_ID",
        ] {
            let mut environment = environment(&[(ENDPOINT_VARIABLE, "http://a")]);
            environment.remove(name);
            let error = Credentials::load_from(None, &environment).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let error = Credentials::load_from(Some(Path::new("/no/such/file")), &BTreeMap::new());
        assert!(error.unwrap_err().to_string().contains("/no/such/file"));
        let mut broken = tempfile::NamedTempFile::new().unwrap();
        broken.write_all(b"{}").unwrap();
        let error = Credentials::load_from(Some(broken.path()), &BTreeMap::new()).unwrap_err();
        assert!(matches!(error, Error::CredentialsParse { .. }), "{error}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let file = file();
        let loaded = Credentials::load_from(Some(file.path()), &BTreeMap::new()).unwrap();
        assert!(!format!("{loaded:?}").contains("file-sk"));
    }
}
