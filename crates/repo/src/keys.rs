//! Keys: the master key, the root key, and what is derived from a project's data key.
//!
//! The master key opens one object, the repository's config, which holds the
//! repository's random root key; so another master key takes one object that is
//! written anew. The root key wraps the random data key of every project. All
//! other keys are derived from these two, one for each use, and live as long as
//! the repository is open. Nothing here prints a key.

use cairn_types::ProjectId;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::chunk::Hasher;
use crate::codec::{Malformed, Reader};
use crate::error::{Error, Result};
use crate::random;
use crate::seal::{self, OpenError};

/// Ciphertext that the catalogue keeps, such as the secret key of a user.
const SECRET_MAGIC: [u8; 8] = *b"CAIRNSEC";
/// The object at the top of a repository.
const CONFIG_MAGIC: [u8; 8] = *b"CAIRNCFG";
/// A wrapped data key.
const KEY_MAGIC: [u8; 8] = *b"CAIRNKEY";

/// The key that its owner keeps: 32 bytes, wiped from memory on drop. It opens
/// the repository's config, and nothing else.
#[derive(Clone, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

impl MasterKey {
    /// A new random key.
    pub fn generate() -> Self {
        Self(random::bytes())
    }

    /// Reads a key of 64 hexadecimal digits; white space around them is ignored.
    ///
    /// Errors: `Invalid`.
    pub fn from_hex(text: &str) -> Result<Self> {
        let mut key = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text.trim(), &mut *key).map_err(|_| Error::InvalidMasterKey)?;
        Ok(Self(*key))
    }

    /// The key as 64 hexadecimal digits.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(hex::encode(self.0))
    }

    /// The object at the top of the repository.
    pub(crate) fn seal_config(&self, config: &Config) -> Vec<u8> {
        let plain = Zeroizing::new([config.id.0.as_slice(), &config.root.0].concat());
        seal::seal_object(&self.config_secret(), CONFIG_MAGIC, b"", &plain)
    }

    pub(crate) fn open_config(&self, object: &[u8]) -> Result<Config> {
        let name = "the repository's config";
        let plain = seal::open_object(&self.config_secret(), CONFIG_MAGIC, b"", object)
            .map(Zeroizing::new)
            .map_err(|error| wrapped_error(name, error))?;
        let damaged = |Malformed(problem)| Error::Damaged {
            object: name.to_owned(),
            problem,
        };
        let mut reader = Reader::new(&plain);
        let id = RepositoryId(reader.array().map_err(damaged)?);
        let root = RootKey(reader.array().map_err(damaged)?);
        reader.finish().map_err(damaged)?;
        Ok(Config { id, root })
    }

    fn config_secret(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(
            "cairn master key: repository config",
            &self.0,
        ))
    }
}

/// What a repository's config holds.
pub(crate) struct Config {
    pub id: RepositoryId,
    pub root: RootKey,
}

impl Config {
    /// That of a new repository.
    pub fn random() -> Self {
        Self {
            id: RepositoryId(random::bytes()),
            root: RootKey(random::bytes()),
        }
    }
}

/// The key of a repository for as long as there is one: 32 random bytes, wiped
/// from memory on drop.
#[derive(ZeroizeOnDrop)]
pub struct RootKey([u8; 32]);

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootKey")
    }
}

impl RootKey {
    /// Seals a small secret of the catalogue; it opens under the same `context` only.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        let secret = self.derive("cairn root key: secrets of the catalogue");
        seal::seal_object(&secret, SECRET_MAGIC, context.as_bytes(), plain)
    }

    /// Opens what `seal` made.
    ///
    /// Errors: `Denied` another repository's, or another context; `Corrupt` no sealed secret.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let secret = self.derive("cairn root key: secrets of the catalogue");
        seal::open_object(&secret, SECRET_MAGIC, context.as_bytes(), sealed)
            .map(Zeroizing::new)
            .map_err(|error| wrapped_error("a sealed secret", error))
    }

    /// The secret that entries of the log are sealed with.
    pub(crate) fn log_secret(&self) -> Zeroizing<[u8; 32]> {
        self.derive("cairn root key: log")
    }

    /// The key that the audit trail is chained with.
    pub fn audit_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive("cairn root key: audit trail")
    }

    pub(crate) fn wrap(&self, place: &Place, data_key: &[u8; 32]) -> Vec<u8> {
        let secret = self.derive("cairn root key: project keys");
        seal::seal_object(&secret, KEY_MAGIC, &place.bound("key"), data_key)
    }

    pub(crate) fn unwrap(&self, place: &Place, object: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let secret = self.derive("cairn root key: project keys");
        let object_name = || format!("the key of project {}", place.project);
        let damaged = |problem| Error::Damaged {
            object: object_name(),
            problem,
        };
        let plain = seal::open_object(&secret, KEY_MAGIC, &place.bound("key"), object)
            .map(Zeroizing::new)
            .map_err(|error| match error {
                // The root key is the right one: the config says so.
                OpenError::NotAuthentic => damaged("it is of another repository or project"),
                error => wrapped_error(&object_name(), error),
            })?;
        let key: [u8; 32] = plain
            .as_slice()
            .try_into()
            .map_err(|_| damaged("its length is wrong"))?;
        Ok(Zeroizing::new(key))
    }

    fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, &self.0))
    }
}

/// An object that is whole and does not open was sealed by another key.
fn wrapped_error(object: &str, error: OpenError) -> Error {
    let object = object.to_owned();
    match error {
        OpenError::Newer(found) => Error::UnknownFormat {
            object,
            found,
            known: seal::FORMAT,
        },
        OpenError::Malformed(problem) => Error::Damaged { object, problem },
        OpenError::NotAuthentic => Error::WrongMasterKey { object },
    }
}

/// The random name that a repository gets when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RepositoryId(pub [u8; 16]);

/// Where objects belong; every sealed object is bound to it, so that one that
/// was moved to another repository, project or name does not open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub repository: RepositoryId,
    pub project: ProjectId,
}

impl Place {
    /// The bytes that bind an object to this place and its name there.
    pub fn bound(&self, name: &str) -> Vec<u8> {
        [
            &self.repository.0[..],
            self.project.as_bytes(),
            name.as_bytes(),
        ]
        .concat()
    }
}

/// The keys of a project, each derived from its data key for one use.
#[derive(ZeroizeOnDrop)]
pub(crate) struct ProjectKeys {
    /// Makes the ids of chunks and roots.
    pub hasher: Hasher,
    /// Derives the key of each pack.
    pub packs: [u8; 32],
    /// Seals index objects and manifests.
    pub objects: [u8; 32],
    /// Signs receipts.
    pub receipts: [u8; 32],
}

impl ProjectKeys {
    pub fn new(data_key: &[u8; 32]) -> Self {
        Self {
            hasher: Hasher::new(data_key),
            packs: blake3::derive_key("cairn repository format 1: packs", data_key),
            objects: blake3::derive_key("cairn repository format 1: sealed objects", data_key),
            receipts: blake3::derive_key("cairn repository format 1: receipts", data_key),
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_types::Kind;

    use super::*;

    #[test]
    fn a_master_key_survives_its_text_form() {
        let key = MasterKey::generate();
        let same = MasterKey::from_hex(&format!("{}\n", key.to_hex().as_str())).unwrap();
        let config = Config::random();
        let opened = same.open_config(&key.seal_config(&config)).unwrap();
        assert_eq!((opened.id, opened.root.0), (config.id, config.root.0));
        assert!(MasterKey::from_hex("00").is_err());
    }

    #[test]
    fn another_key_or_context_is_denied() {
        let root = Config::random().root;
        let sealed = root.seal("user 1", b"secret");
        assert_eq!(root.open("user 1", &sealed).unwrap().as_slice(), b"secret");
        assert_eq!(
            root.open("user 2", &sealed).unwrap_err().kind(),
            Kind::Denied
        );
        let other = Config::random().root;
        let error = other.open("user 1", &sealed).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        let config = MasterKey::generate().seal_config(&Config::random());
        let error = MasterKey::generate().open_config(&config).map(drop);
        assert_eq!(error.unwrap_err().kind(), Kind::Denied);
    }

    #[test]
    fn damage_is_told_from_a_wrong_key() {
        let key = MasterKey::generate();
        let mut config = key.seal_config(&Config::random());
        config[30] ^= 1;
        let error = key.open_config(&config).map(drop).unwrap_err();
        assert_eq!(error.kind(), Kind::Corrupt);
    }

    #[test]
    fn a_debug_print_shows_no_key() {
        let key = MasterKey([0xab; 32]);
        assert_eq!(format!("{key:?}"), "MasterKey");
        assert_eq!(format!("{:?}", RootKey([0xab; 32])), "RootKey");
    }
}
