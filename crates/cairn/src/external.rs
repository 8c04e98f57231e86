//! The repositories of other sites, as the configuration names them: what hybrid
//! vaults mirror. Each is opened for reading only, when something is taken over.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cairn_core::{External, ExternalSettings, OpenFailed};
use cairn_repo::Repository;
use cairn_types::{Kind, ProjectId};
use serde::Deserialize;

use crate::config::Config;
use crate::master_key;
use crate::store::{LimitsSection, S3Section, StoreConfig, StoreSection};

/// A section `external` of the configuration.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalSection {
    name: String,
    project: Option<ProjectId>,
    #[serde(default)]
    vaults: Vec<String>,
    #[serde(default)]
    from_projects: Vec<ProjectId>,
    path: Option<PathBuf>,
    s3: Option<S3Section>,
    #[serde(default)]
    limits: LimitsSection,
    master_key_file: PathBuf,
}

/// A repository of another site that is not open yet.
#[derive(Debug, Clone)]
pub struct ExternalConfig {
    settings: ExternalSettings,
    store: StoreConfig,
    master_key_file: PathBuf,
}

/// What the sections come to; relative paths are in `base`.
pub fn resolve(sections: Vec<ExternalSection>, base: &Path) -> Result<Vec<ExternalConfig>> {
    let mut names = BTreeSet::new();
    let mut resolved = Vec::with_capacity(sections.len());
    for section in sections {
        let name = section.name.clone();
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(plain) {
            bail!("external.name: it takes letters, digits, hyphens and underscores");
        }
        if !names.insert(name.clone()) {
            bail!("external: two are called {name}");
        }
        let one = section.resolve(base);
        resolved.push(one.with_context(|| format!("external {name}"))?);
    }
    Ok(resolved)
}

impl ExternalSection {
    fn resolve(self, base: &Path) -> Result<ExternalConfig> {
        let place = StoreSection::of(self.path, self.s3, self.limits);
        if !place.names_a_place() {
            bail!("give path or s3");
        }
        let store = place.resolve(base, PathBuf::new())?;
        Ok(ExternalConfig {
            settings: ExternalSettings {
                name: self.name,
                bucket: store.bucket().map(str::to_owned),
                project: self.project,
                vaults: self.vaults,
                from_projects: self.from_projects,
            },
            store,
            master_key_file: base.join(self.master_key_file),
        })
    }
}

/// What the service reads of other sites.
pub fn all(config: &Config) -> Vec<External> {
    let externals = config.externals.iter();
    let one = |external: &ExternalConfig| {
        let index = config.external_index(&external.settings.name);
        let this = external.clone();
        let open = move || {
            let (this, index) = (this.clone(), index.clone());
            let opening: std::pin::Pin<Box<dyn Future<Output = _> + Send>> =
                Box::pin(async move { this.open(index).await });
            opening
        };
        External::new(external.settings.clone(), Box::new(open))
    };
    externals.map(one).collect()
}

impl ExternalConfig {
    async fn open(&self, index: PathBuf) -> std::result::Result<Repository, OpenFailed> {
        let opened = async {
            let store = self.store.open_read_only().await?;
            master_key::open(store, &self.master_key_file).await
        };
        match opened.await {
            Ok((repository, _)) => Ok(repository.with_index_in(index)),
            Err(error) => {
                tracing::warn!(
                    external = self.settings.name,
                    error = format!("{error:#}"),
                    "The repository of another site cannot be opened."
                );
                Err(failed(&error))
            }
        }
    }
}

/// What the owner of a vault is told: why, and nothing of this machine.
fn failed(error: &anyhow::Error) -> OpenFailed {
    let cause = error.chain().find_map(|cause| cause.downcast_ref());
    match cause {
        Some(cause) => <OpenFailed as From<&cairn_repo::Error>>::from(cause),
        None => OpenFailed {
            kind: Kind::Denied,
            text: "its master key cannot be read".to_owned(),
        },
    }
}

impl fmt::Display for ExternalConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = &self.settings;
        write!(f, "\n\n[[external]]\nname = {:?}", settings.name)?;
        if let Some(project) = settings.project {
            write!(f, "\nproject = \"{project}\"")?;
        }
        if !settings.vaults.is_empty() {
            write!(f, "\nvaults = {:?}", settings.vaults)?;
        }
        if !settings.from_projects.is_empty() {
            let projects = settings.from_projects.iter().map(ProjectId::to_string);
            write!(f, "\nfrom_projects = {:?}", projects.collect::<Vec<_>>())?;
        }
        if let Some(path) = self.store.path() {
            write!(f, "\npath = {path:?}")?;
        }
        writeln!(f, "\nmaster_key_file = {:?}", self.master_key_file)?;
        self.store.show_in("external", f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct File {
        external: Vec<ExternalSection>,
    }

    fn read(text: &str) -> Result<Vec<ExternalConfig>> {
        let file: File = toml::from_str(text)?;
        resolve(file.external, Path::new("etc"))
    }

    #[test]
    fn a_section_names_a_place_and_a_key() {
        let text = "[[external]]\nname = \"a\"\npath = \"r\"\nmaster_key_file = \"/k\"\n\
            vaults = [\"mirror\"]\nfrom_projects = [\"075e6035d300d48c2fd0c00b78b71ebf\"]\n\
            [external.limits]\nrequests = 3\n";
        let resolved = read(text).unwrap();
        let [one] = &resolved[..] else {
            panic!("{resolved:?}");
        };
        assert_eq!(one.store.path(), Some(Path::new("etc/r")));
        assert_eq!(one.master_key_file, Path::new("/k"));
        assert_eq!(one.settings.bucket, None);
        // What it comes to is printed so that it comes to the same.
        let printed = one.to_string();
        let again = read(&printed).unwrap().remove(0);
        assert_eq!(again.to_string(), printed.replace("etc/r", "etc/etc/r"));
        assert!(printed.contains("requests = 3"), "{printed}");
    }

    #[test]
    fn what_would_be_taken_for_something_else_is_refused() {
        let good = "[[external]]\nname = \"a\"\npath = \"r\"\nmaster_key_file = \"k\"\n";
        assert!(read(good).is_ok());
        for (text, why) in [
            (format!("{good}{good}"), "two are called a"),
            (good.replace("\"a\"", "\"a/b\""), "letters"),
            (good.replace("\"a\"", "\"\""), "letters"),
            (good.replace("path = \"r\"\n", ""), "path or s3"),
            (
                good.replace("master_key_file = \"k\"\n", ""),
                "master_key_file",
            ),
            (format!("{good}parity = 1\n"), "parity"),
            (format!("{good}[external.s3]\nbucket = \"b\"\n"), "not both"),
        ] {
            let refused = format!("{:#}", read(&text).unwrap_err());
            assert!(refused.contains(why), "{why}: {refused}");
        }
    }
}
