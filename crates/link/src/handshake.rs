//! The keys of one connection: from a secret that both ends know and two key
//! pairs that are made for it alone. Who does not know the secret has other keys
//! than who does; who learns it later cannot read what was recorded before.

use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::rand::SystemRandom;
use cairn_types::{AgentId, BackupId};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Bytes of the public key that each end tells the other.
pub const PUBLIC_KEY_BYTES: usize = 32;

/// An end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The one that is to have the replica, or the backup of an agent's files.
    Asking,
    /// The one that has the backup or the files, and opens the connection.
    Answering,
}

/// What a line is for: keys of one sort of line are none of another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Copying a backup into another region, as this replica.
    Replica(BackupId),
    /// The files of this agent's host.
    Agent(AgentId, Instance),
}

/// Which it is of the agents that have one identity, since a machine was cloned: one for
/// each boot of a machine and each folder that an identity is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance([u8; 16]);

impl Instance {
    /// The instance with this name.
    pub fn new(name: [u8; 16]) -> Self {
        Self(name)
    }

    /// The instance that is told from others by this.
    pub fn of(what: &[u8]) -> Self {
        let hash = blake3::derive_key("cairn agent 1: instance", what);
        let (name, _) = hash.split_first_chunk().expect("a hash is longer");
        Self(*name)
    }

    /// Its name.
    pub fn name(&self) -> [u8; 16] {
        self.0
    }
}

/// The sorts of lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Replica,
    Agent,
}

impl Purpose {
    pub(crate) const fn sort(self) -> Sort {
        match self {
            Self::Replica(_) => Sort::Replica,
            Self::Agent(..) => Sort::Agent,
        }
    }

    /// What makes its keys others than those of any other of its sort.
    fn names(&self) -> [&[u8]; 2] {
        match self {
            Self::Replica(id) => [id.as_bytes(), &[]],
            Self::Agent(id, instance) => [id.as_bytes(), &instance.0],
        }
    }

    /// What makes the keys of one direction other than those of the other: from the end
    /// that asks, and from the one that answers.
    const fn contexts(self) -> (&'static str, &'static str) {
        match self {
            Self::Replica(_) => (
                "cairn replication 1: from the end that asks",
                "cairn replication 1: from the end that answers",
            ),
            Self::Agent(..) => (
                "cairn agent 1: from the end that asks",
                "cairn agent 1: from the end that answers",
            ),
        }
    }
}

/// A key pair for one connection.
pub struct EphemeralKey {
    private: EphemeralPrivateKey,
    public: [u8; PUBLIC_KEY_BYTES],
}

impl EphemeralKey {
    /// A new random pair.
    pub fn generate() -> Self {
        let fails = "the system's random source does not fail once the machine is up";
        let private = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).expect(fails);
        let public = private.compute_public_key().expect("it is a whole key");
        let public = public.as_ref().try_into();
        Self {
            private,
            public: public.expect("public keys of X25519 have 32 bytes"),
        }
    }

    pub(crate) fn into_parts(self) -> (EphemeralPrivateKey, [u8; PUBLIC_KEY_BYTES]) {
        (self.private, self.public)
    }

    /// What the other end is to be told.
    pub fn public(&self) -> [u8; PUBLIC_KEY_BYTES] {
        self.public
    }

    /// The keys of the connection for `purpose`, by the other end's public key and the secret.
    ///
    /// Errors: `NotAuthentic` what came is no key.
    pub fn agree(
        self,
        end: End,
        theirs: &[u8; PUBLIC_KEY_BYTES],
        (purpose, secret): (Purpose, &[u8]),
    ) -> Result<Keys> {
        let ours = self.public;
        let peer = UnparsedPublicKey::new(&X25519, theirs);
        let (asking, answering) = match end {
            End::Asking => (&ours, theirs),
            End::Answering => (theirs, &ours),
        };
        agreement::agree_ephemeral(self.private, peer, Error::NotAuthentic, |shared| {
            let derive = |context: &str| {
                let mut hasher = blake3::Hasher::new_derive_key(context);
                hasher.update(&(secret.len() as u64).to_le_bytes());
                hasher.update(secret);
                for name in purpose.names() {
                    hasher.update(name);
                }
                hasher.update(asking);
                hasher.update(answering);
                hasher.update(shared);
                let key = Zeroizing::new(*hasher.finalize().as_bytes());
                let unbound = UnboundKey::new(&AES_256_GCM, &*key);
                LessSafeKey::new(unbound.expect("the key has the cipher's length"))
            };
            let (from_asking, from_answering) = purpose.contexts();
            let (from_asking, from_answering) = (derive(from_asking), derive(from_answering));
            let (send, receive) = match end {
                End::Asking => (from_asking, from_answering),
                End::Answering => (from_answering, from_asking),
            };
            Ok(Keys {
                send,
                receive,
                purpose,
            })
        })
    }
}

/// The two keys of a connection, one for each direction.
pub struct Keys {
    pub(crate) send: LessSafeKey,
    pub(crate) receive: LessSafeKey,
    pub(crate) purpose: Purpose,
}
