//! How an agent gets its secret: by a one-time token that somebody carried to its
//! host. Neither the token's secret nor the agent's ever travels. Each end proves
//! that it knows the former, by codes over both public keys; the latter follows
//! from it and from a key agreement, so that who learns a token later, or listens,
//! does not learn what an agent got by it.

use std::fmt;

use aws_lc_rs::agreement::{self, EphemeralPrivateKey, UnparsedPublicKey, X25519};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cairn_types::AgentId;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::handshake::{EphemeralKey, PUBLIC_KEY_BYTES};

const PREFIX: &str = "cat1_";
const PROOF: &str = "cairn agent enrolment 1: proof";
const SECRET: &str = "cairn agent enrolment 1: secret";
/// Who proves: one end's code is never the other's.
const BY_AGENT: &[u8] = b"agent";
const BY_SERVER: &[u8] = b"server";

/// What a server calls a token: no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId([u8; 8]);

impl TokenId {
    /// Reads 16 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut id = [0; 8];
        hex::decode_to_slice(text, &mut id).ok()?;
        Some(Self(id))
    }
}

impl fmt::Display for TokenId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// A secret that two ends share.
pub type Secret = Zeroizing<[u8; 32]>;

/// A one-time token, which makes whoever has it an agent.
pub struct Token {
    id: TokenId,
    secret: Secret,
}

impl Token {
    /// A new random one.
    pub fn generate() -> Self {
        let (mut id, mut secret) = ([0; 8], Zeroizing::new([0; 32]));
        let random = SystemRandom::new();
        let fails = "the system's random source does not fail once the machine is up";
        random.fill(&mut id).expect(fails);
        random.fill(&mut *secret).expect(fails);
        let id = TokenId(id);
        Self { id, secret }
    }

    /// Reads a token's text, as [`reveal`](Self::reveal) gives it.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, told) = text.strip_prefix(PREFIX)?.split_once('_')?;
        let decoded = Zeroizing::new(URL_SAFE_NO_PAD.decode(told).ok()?);
        let mut secret = Zeroizing::new([0; 32]);
        if decoded.len() != secret.len() {
            return None;
        }
        secret.copy_from_slice(&decoded);
        let id = TokenId::parse(id)?;
        Some(Self { id, secret })
    }

    /// What the server calls it.
    pub fn id(&self) -> TokenId {
        self.id
    }

    /// What the server keeps of it, and [`answer`] takes.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The token's text, which is shown once.
    pub fn reveal(&self) -> Zeroizing<String> {
        let told = Zeroizing::new(URL_SAFE_NO_PAD.encode(*self.secret));
        Zeroizing::new(format!("{PREFIX}{}_{}", self.id, *told))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({})", self.id)
    }
}

/// What an agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The token that it has.
    pub token: TokenId,
    /// What it calls itself.
    pub agent: AgentId,
    /// Its public key.
    pub public_key: [u8; PUBLIC_KEY_BYTES],
    /// That it knows the token's secret.
    pub proof: [u8; 32],
}

/// What the server says to that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Its public key.
    pub public_key: [u8; PUBLIC_KEY_BYTES],
    /// That it knows the token's secret too, and means this request.
    pub proof: [u8; 32],
}

/// The agent's end between its request and the reply.
pub struct AgentEnd {
    private: EphemeralPrivateKey,
    token_secret: Secret,
    agent: AgentId,
    public_key: [u8; PUBLIC_KEY_BYTES],
}

impl AgentEnd {
    /// Begins: the request is for the server.
    pub fn begin(token: &Token, agent: AgentId) -> (Self, Request) {
        let (private, public_key) = EphemeralKey::generate().into_parts();
        let request = Request {
            token: token.id,
            agent,
            public_key,
            proof: prove(&token.secret, BY_AGENT, agent, &[&public_key]).into(),
        };
        let state = Self {
            private,
            token_secret: token.secret.clone(),
            agent,
            public_key,
        };
        (state, request)
    }

    /// The agent's secret, which the server has too.
    ///
    /// Errors: `NotAuthentic` the reply is not to this request, or by nobody who knows the token.
    pub fn finish(self, reply: &Reply) -> Result<Secret> {
        let keys = [&self.public_key, &reply.public_key];
        let due = prove(&self.token_secret, BY_SERVER, self.agent, &keys);
        // Compared in a time that says nothing of where they differ.
        if due != blake3::Hash::from(reply.proof) {
            return Err(Error::NotAuthentic);
        }
        let ends = (self.agent, keys);
        agree(self.private, &reply.public_key, &self.token_secret, ends)
    }
}

/// The server's end: its reply, and the agent's secret, which the agent has once it has read that.
///
/// The caller makes sure that a token is answered for once.
///
/// Errors: `NotAuthentic` the request is by nobody who knows the token.
pub fn answer(token_secret: &Secret, request: &Request) -> Result<(Reply, Secret)> {
    let due = prove(
        token_secret,
        BY_AGENT,
        request.agent,
        &[&request.public_key],
    );
    if due != blake3::Hash::from(request.proof) {
        return Err(Error::NotAuthentic);
    }
    let (private, public_key) = EphemeralKey::generate().into_parts();
    let keys = [&request.public_key, &public_key];
    let reply = Reply {
        public_key,
        proof: prove(token_secret, BY_SERVER, request.agent, &keys).into(),
    };
    let ends = (request.agent, keys);
    let secret = agree(private, &request.public_key, token_secret, ends)?;
    Ok((reply, secret))
}

/// The code by which an end proves that it knows the token's secret.
fn prove(
    token_secret: &Secret,
    role: &[u8],
    agent: AgentId,
    public_keys: &[&[u8; PUBLIC_KEY_BYTES]],
) -> blake3::Hash {
    let key = Zeroizing::new(blake3::derive_key(PROOF, &**token_secret));
    let mut hasher = blake3::Hasher::new_keyed(&key);
    hasher.update(&(role.len() as u64).to_le_bytes());
    hasher.update(role);
    hasher.update(agent.as_bytes());
    for key in public_keys {
        hasher.update(*key);
    }
    hasher.finalize()
}

/// The secret that both ends come to; `ends` are the agent and both public keys, its own first.
fn agree(
    private: EphemeralPrivateKey,
    theirs: &[u8; PUBLIC_KEY_BYTES],
    token_secret: &Secret,
    (agent, keys): (AgentId, [&[u8; PUBLIC_KEY_BYTES]; 2]),
) -> Result<Secret> {
    let peer = UnparsedPublicKey::new(&X25519, theirs);
    agreement::agree_ephemeral(private, peer, Error::NotAuthentic, |shared| {
        let mut hasher = blake3::Hasher::new_derive_key(SECRET);
        hasher.update(&**token_secret);
        hasher.update(agent.as_bytes());
        for key in keys {
            hasher.update(key);
        }
        hasher.update(shared);
        Ok(Zeroizing::new(*hasher.finalize().as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_come_to_one_secret_and_another_each_time() {
        let (token, agent) = (Token::generate(), AgentId::random());
        let mut secrets = Vec::new();
        for _ in 0..2 {
            let (state, request) = AgentEnd::begin(&token, agent);
            assert_eq!((request.token, request.agent), (token.id(), agent));
            let (reply, theirs) = answer(token.secret(), &request).unwrap();
            let ours = state.finish(&reply).unwrap();
            assert_eq!(ours, theirs);
            assert_ne!(ours, *token.secret());
            secrets.push(ours);
        }
        assert_ne!(secrets[0], secrets[1]);
    }

    #[test]
    fn a_token_is_read_as_it_is_shown() {
        let token = Token::generate();
        let text = token.reveal();
        assert_eq!(text.len(), 5 + 16 + 1 + 43);
        let read = Token::parse(&text).unwrap();
        assert_eq!((read.id(), read.secret()), (token.id(), token.secret()));
        assert!(!format!("{token:?}").contains(&text[22..]));
        for wrong in ["", "cat1_", &text[1..], &text[..64], &format!("{}A", *text)] {
            assert!(Token::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn who_does_not_know_the_token_is_answered_nothing() {
        let (token, other) = (Token::generate(), Token::generate());
        let (state, request) = AgentEnd::begin(&other, AgentId::random());
        assert!(answer(token.secret(), &request).is_err());
        // Nor does an agent believe a server that does not know it.
        let (reply, _) = answer(other.secret(), &request).unwrap();
        let keys = [&request.public_key, &reply.public_key];
        let proof = prove(token.secret(), BY_SERVER, request.agent, &keys).into();
        assert!(state.finish(&Reply { proof, ..reply }).is_err());
    }

    #[test]
    fn nothing_of_a_request_can_be_another() {
        let token = Token::generate();
        let (_, request) = AgentEnd::begin(&token, AgentId::random());
        assert!(answer(token.secret(), &request).is_ok());
        let changed: [fn(&mut Request); 3] = [
            |request| request.agent = AgentId::random(),
            |request| request.public_key[9] ^= 1,
            |request| request.proof[31] ^= 1,
        ];
        for change in changed {
            let mut other = request;
            change(&mut other);
            let error = answer(token.secret(), &other).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::NotAuthentic));
        }
    }

    #[test]
    fn a_reply_is_to_its_request_alone() {
        let (token, agent) = (Token::generate(), AgentId::random());
        let (_, first) = AgentEnd::begin(&token, agent);
        let (replayed, _) = answer(token.secret(), &first).unwrap();
        let (state, second) = AgentEnd::begin(&token, agent);
        assert!(state.finish(&replayed).is_err());
        // The agent's own proof, sent back to it, proves nothing either.
        let (state, third) = AgentEnd::begin(&token, agent);
        let mirrored = Reply {
            public_key: third.public_key,
            proof: third.proof,
        };
        assert!(state.finish(&mirrored).is_err());
        let (state, fourth) = AgentEnd::begin(&token, agent);
        let (reply, _) = answer(token.secret(), &fourth).unwrap();
        let mut public_key = reply.public_key;
        public_key[0] ^= 1;
        assert!(
            state
                .finish(&Reply {
                    public_key,
                    ..reply
                })
                .is_err()
        );
        assert_ne!(second.public_key, fourth.public_key);
    }
}
