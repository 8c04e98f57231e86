//! What a host's owner allows the server to do with its files, whatever that asks: the
//! file `agent.toml` in the state's folder, which may be missing.

use std::path::Path;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::error::{Error, Result};

/// The rules of a host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Only what lies in these is told of; everything, if there are none, which the file says by
    /// leaving it out.
    #[serde(deserialize_with = "some_paths")]
    pub allow_paths: Vec<String>,
    /// Whether the server may write.
    pub allow_restore: bool,
    /// How much may be sent in a second; no limit, if unset.
    pub bandwidth_mbit: Option<u64>,
}

/// Refuses an empty list: whoever writes one means that nothing is allowed.
fn some_paths<'de, D: Deserializer<'de>>(from: D) -> std::result::Result<Vec<String>, D::Error> {
    let paths = Vec::deserialize(from)?;
    match paths.is_empty() {
        true => Err(D::Error::custom(
            "an empty list allows nothing: leave it out to allow everything, or remove the agent",
        )),
        false => Ok(paths),
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            allow_paths: Vec::new(),
            allow_restore: true,
            bandwidth_mbit: None,
        }
    }
}

impl Rules {
    /// Reads the rules; those that allow everything, where there are none.
    ///
    /// Errors: `Invalid` the file says something else.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(source) => {
                return Err(Error::State {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let rules: Self = toml::from_str(&text).map_err(|source| Error::Rules {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let all_absolute = rules.allow_paths.iter().all(|path| path.starts_with('/'));
        match all_absolute {
            true => Ok(rules),
            false => Err(Error::RelativePath {
                path: path.to_owned(),
            }),
        }
    }

    /// Bytes that may be sent in a second.
    pub fn bytes_per_second(&self) -> Option<u64> {
        let mbit = self.bandwidth_mbit?;
        Some(mbit.saturating_mul(1_000_000 / 8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::replace;

    #[test]
    fn an_empty_list_is_not_taken_for_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.toml");
        assert_eq!(Rules::load(&path).unwrap(), Rules::default());
        replace(&path, b"allow_paths = [\"/srv\"]", false).unwrap();
        assert_eq!(Rules::load(&path).unwrap().allow_paths, ["/srv"]);
        replace(&path, b"allow_paths = []", false).unwrap();
        let refused = Rules::load(&path).unwrap_err();
        assert!(matches!(refused, Error::Rules { .. }), "{refused}");
    }
}
