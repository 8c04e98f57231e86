//! The part of the configuration about replication: what is replicated beyond what
//! CBR replicates, how fast, and the other regions with who this server is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cairn_api::Credentials;
use cairn_api::identity::Secret;
use cairn_core::ReplicationRules;
use cairn_server::RegionSettings;
use cairn_types::ProjectId;
use serde::Deserialize;

/// The section `[replication]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationSection {
    /// What all regions together are sent at most.
    bandwidth_mbit: Option<u64>,
    disks: bool,
    replicas: bool,
    /// After such a silence a replication is given up.
    give_up_hours: Option<i64>,
    region: Vec<Region>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Region {
    name: String,
    endpoint: String,
    access_key: String,
    secret_key_file: PathBuf,
    bandwidth_mbit: Option<u64>,
    projects: Option<BTreeMap<ProjectId, Vec<ProjectId>>>,
}

/// What the server replicates, and where to.
#[derive(Debug)]
pub struct ReplicationConfig {
    /// What is replicated, and when it is given up.
    pub rules: ReplicationRules,
    /// Bytes that all regions together are sent in a second.
    pub bytes_per_second: Option<u64>,
    /// The other regions.
    pub regions: Vec<RegionSettings>,
}

/// Bytes in a second that one Mbit/s is.
const BYTES_PER_MBIT: u64 = 1_000_000 / 8;

impl ReplicationSection {
    /// Checks the section and reads the files that it names, which are beside `base`.
    pub fn resolve(self, here: &str, base: &Path) -> Result<ReplicationConfig> {
        let mut rules = ReplicationRules {
            disks: self.disks,
            replicas: self.replicas,
            ..ReplicationRules::default()
        };
        if let Some(hours) = self.give_up_hours {
            if !(1..=24 * 365).contains(&hours) {
                bail!("replication.give_up_hours: it takes 1 to {}", 24 * 365);
            }
            rules.patience_seconds = hours * 3600;
        }
        let mut names = BTreeSet::from([here.to_owned()]);
        let mut regions = Vec::with_capacity(self.region.len());
        for region in self.region {
            if !names.insert(region.name.clone()) {
                bail!(
                    "replication.region: there are two regions {:?}",
                    region.name
                );
            }
            regions.push(region.resolve(base)?);
        }
        Ok(ReplicationConfig {
            rules,
            bytes_per_second: rate("replication.bandwidth_mbit", self.bandwidth_mbit)?,
            regions,
        })
    }
}

impl Region {
    fn resolve(self, base: &Path) -> Result<RegionSettings> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.name.is_empty() || !self.name.chars().all(fits) {
            bail!("replication.region: {:?} is no region's name", self.name);
        }
        let path = base.join(self.secret_key_file);
        let secret = std::fs::read_to_string(&path);
        let secret = secret.with_context(|| format!("cannot read {}", path.display()))?;
        let key = format!("replication.region {:?}: bandwidth_mbit", self.name);
        Ok(RegionSettings {
            bytes_per_second: rate(&key, self.bandwidth_mbit)?,
            name: self.name,
            credentials: Credentials {
                endpoint: self.endpoint,
                project_id: ProjectId::from_uuid(uuid::Uuid::nil()),
                access_key: self.access_key,
                secret_key: Secret(secret.trim().to_owned()),
            },
            projects: self.projects,
        })
    }
}

fn rate(key: &str, mbit: Option<u64>) -> Result<Option<u64>> {
    match mbit {
        Some(0) => bail!("{key}: it takes 1 or more"),
        Some(mbit) => Ok(Some(mbit.saturating_mul(BYTES_PER_MBIT))),
        None => Ok(None),
    }
}

impl fmt::Display for ReplicationConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mbit = |rate: u64| rate / BYTES_PER_MBIT;
        write!(f, "\n\n[replication]\ndisks = {}", self.rules.disks)?;
        write!(f, "\nreplicas = {}", self.rules.replicas)?;
        let hours = self.rules.patience_seconds / 3600;
        write!(f, "\ngive_up_hours = {hours}")?;
        if let Some(rate) = self.bytes_per_second {
            write!(f, "\nbandwidth_mbit = {}", mbit(rate))?;
        }
        for region in &self.regions {
            write!(f, "\n\n[[replication.region]]\nname = {:?}", region.name)?;
            write!(f, "\nendpoint = {:?}", region.credentials.endpoint)?;
            write!(f, "\naccess_key = {:?}", region.credentials.access_key)?;
            write!(f, "\nsecret_key_file = \"(hidden)\"")?;
            if let Some(rate) = region.bytes_per_second {
                write!(f, "\nbandwidth_mbit = {}", mbit(rate))?;
            }
            if let Some(projects) = &region.projects {
                write!(f, "\n\n[replication.region.projects]")?;
                for (here, there) in projects {
                    let there: Vec<_> = there.iter().map(ToString::to_string).collect();
                    write!(f, "\n{here} = {there:?}")?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROJECT: &str = "68589cac08274b82b4e254268a3862d8";

    fn resolve(text: &str) -> Result<ReplicationConfig> {
        let folder = tempfile::tempdir().unwrap();
        let secret = tempfile::NamedTempFile::new_in(folder.path()).unwrap();
        std::io::Write::write_all(&mut secret.as_file(), b" hush\n").unwrap();
        let name = secret.path().file_name().unwrap().to_str().unwrap();
        let section: ReplicationSection = toml::from_str(&text.replace("SECRET", name))?;
        section.resolve("cairn-1", folder.path())
    }

    fn region(more: &str) -> String {
        format!(
            "[[region]]\nname = \"cairn-2\"\nendpoint = \"http://b\"\naccess_key = \"AK\"\n\
             secret_key_file = \"SECRET\"\n{more}"
        )
    }

    #[test]
    fn nothing_said_is_what_cbr_does() {
        let config = resolve("").unwrap();
        assert_eq!(config.rules, ReplicationRules::default());
        assert!(config.regions.is_empty() && config.bytes_per_second.is_none());
    }

    #[test]
    fn a_region_is_read_and_its_secret_is_not_shown() {
        let projects = format!("[region.projects]\n{PROJECT} = [{PROJECT:?}]");
        let text = format!(
            "bandwidth_mbit = 8\ndisks = true\ngive_up_hours = 2\n{}",
            region(&format!("bandwidth_mbit = 4\n{projects}"))
        );
        let config = resolve(&text).unwrap();
        assert_eq!(config.bytes_per_second, Some(1_000_000));
        assert_eq!((config.rules.disks, config.rules.replicas), (true, false));
        assert_eq!(config.rules.patience_seconds, 7200);
        let region = &config.regions[0];
        assert_eq!(region.bytes_per_second, Some(500_000));
        assert_eq!(region.credentials.secret_key.0, "hush");
        let project: ProjectId = PROJECT.parse().unwrap();
        assert_eq!(region.projects.as_ref().unwrap()[&project], [project]);
        let shown = config.to_string();
        assert!(
            shown.contains("cairn-2") && !shown.contains("hush"),
            "{shown}"
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for text in [
            "bandwidth_mbit = 0".to_owned(),
            "give_up_hours = 0".to_owned(),
            "speed = 1".to_owned(),
            region("bandwidth_mbit = 0"),
            region("").replace("cairn-2", "cairn-1"),
            region("").replace("cairn-2", "a b"),
            region("").replace("SECRET", "nowhere"),
            region("") + &region(""),
        ] {
            assert!(resolve(&text).is_err(), "{text}");
        }
    }
}
