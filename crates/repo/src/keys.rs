//! Keys: the master key, and what is derived from a project's data key.
//!
//! Every project has one random data key, which the master key wraps. All
//! other keys are derived from it, one for each use, and live as long as the
//! project is open. Nothing here prints a key.

use cairn_types::ProjectId;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::chunk::Hasher;
use crate::error::{Error, Result};
use crate::random;
use crate::seal::{self, OpenError};

/// Ciphertext that the catalogue keeps, such as the secret key of a user.
const SECRET_MAGIC: [u8; 8] = *b"CAIRNSEC";
/// The object at the top of a repository.
const CONFIG_MAGIC: [u8; 8] = *b"CAIRNCFG";
/// A wrapped data key.
const KEY_MAGIC: [u8; 8] = *b"CAIRNKEY";

/// The key that wraps all others: 32 bytes, wiped from memory on drop.
#[derive(ZeroizeOnDrop)]
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

    /// Seals a small secret of the catalogue; it opens under the same `context` only.
    pub fn seal(&self, context: &str, plain: &[u8]) -> Vec<u8> {
        let secret = self.derive("cairn master key: secrets of the catalogue");
        seal::seal_object(&secret, SECRET_MAGIC, context.as_bytes(), plain)
    }

    /// Opens what `seal` made.
    ///
    /// Errors: `Denied` another key or context; `Corrupt` no sealed secret.
    pub fn open(&self, context: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>> {
        let secret = self.derive("cairn master key: secrets of the catalogue");
        seal::open_object(&secret, SECRET_MAGIC, context.as_bytes(), sealed)
            .map(Zeroizing::new)
            .map_err(|error| wrapped_error("a sealed secret", error))
    }

    /// The key that the audit trail is chained with.
    pub fn audit_key(&self) -> Zeroizing<[u8; 32]> {
        self.derive("cairn master key: audit trail")
    }

    /// The secret that entries of the log are sealed with.
    pub(crate) fn log_secret(&self) -> Zeroizing<[u8; 32]> {
        self.derive("cairn master key: log")
    }

    /// The object at the top of the repository: it gives its id to who has the key.
    pub(crate) fn seal_config(&self, repository: &RepositoryId) -> Vec<u8> {
        let secret = self.derive("cairn master key: repository config");
        seal::seal_object(&secret, CONFIG_MAGIC, b"", &repository.0)
    }

    pub(crate) fn open_config(&self, object: &[u8]) -> Result<RepositoryId> {
        let secret = self.derive("cairn master key: repository config");
        let plain = seal::open_object(&secret, CONFIG_MAGIC, b"", object)
            .map_err(|error| wrapped_error("the repository's config", error))?;
        let id = plain.try_into().map_err(|_| Error::Damaged {
            object: "the repository's config".into(),
            problem: "its length is wrong",
        })?;
        Ok(RepositoryId(id))
    }

    pub(crate) fn wrap(&self, place: &Place, data_key: &[u8; 32]) -> Vec<u8> {
        let secret = self.derive("cairn master key: project keys");
        seal::seal_object(&secret, KEY_MAGIC, &place.bound("key"), data_key)
    }

    pub(crate) fn unwrap(&self, place: &Place, object: &[u8]) -> Result<Zeroizing<[u8; 32]>> {
        let secret = self.derive("cairn master key: project keys");
        let name = || format!("the key of project {}", place.project);
        let plain = seal::open_object(&secret, KEY_MAGIC, &place.bound("key"), object)
            .map(Zeroizing::new)
            .map_err(|error| wrapped_error(&name(), error))?;
        let key: [u8; 32] = plain.as_slice().try_into().map_err(|_| Error::Damaged {
            object: name(),
            problem: "its length is wrong",
        })?;
        Ok(Zeroizing::new(key))
    }

    fn derive(&self, context: &str) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(blake3::derive_key(context, &self.0))
    }
}

/// An object under the master key that does not open was sealed by another
/// key, as far as anyone can tell.
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

impl RepositoryId {
    pub fn random() -> Self {
        Self(random::bytes())
    }
}

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
        let sealed = key.seal("user 1", b"secret");
        assert_eq!(same.open("user 1", &sealed).unwrap().as_slice(), b"secret");
        assert!(MasterKey::from_hex("00").is_err());
    }

    #[test]
    fn another_key_or_context_is_denied() {
        let sealed = MasterKey::generate().seal("user 1", b"secret");
        let error = MasterKey::generate().open("user 1", &sealed).unwrap_err();
        assert_eq!(error.kind(), Kind::Denied);
        let key = MasterKey::generate();
        assert!(key.open("user 2", &key.seal("user 1", b"secret")).is_err());
    }

    #[test]
    fn a_debug_print_shows_no_key() {
        let key = MasterKey([0xab; 32]);
        assert_eq!(format!("{key:?}"), "MasterKey");
    }
}
