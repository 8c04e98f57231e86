//! Why the agent could not do what it was asked.

use std::io;
use std::path::PathBuf;

use cairn_types::Kind;

/// What the functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the agent could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of the state cannot be used.
    #[error("cannot {action} {}", path.display())]
    State {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Others can read the secret, or put another in its place.
    #[error("others can read or replace {}: chmod go= it, and register anew if they may have", path.display())]
    Exposed {
        /// The file or the folder.
        path: PathBuf,
    },
    /// The state is not what the agent has written.
    #[error("{} is not what an agent has written", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// No agent was registered.
    #[error("no agent is registered in {}: run `cairn agent register` first", path.display())]
    NotRegistered {
        /// The folder.
        path: PathBuf,
    },
    /// An agent was registered already.
    #[error("an agent is registered already: remove {} to register another", path.display())]
    Registered {
        /// The file that says so.
        path: PathBuf,
    },
    /// Another process is this agent.
    #[error("this agent is running already")]
    Running,
    /// The rules are not as they should be.
    #[error("cannot read the rules in {}", path.display())]
    Rules {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// The rules name a path that is not absolute.
    #[error("allow_paths in {} takes absolute paths", path.display())]
    RelativePath {
        /// The file.
        path: PathBuf,
    },
    /// The token is none.
    #[error("that is no token: it starts with cat1_")]
    Token,
    /// No token was given.
    #[error("no token: give --token, or CAIRN_AGENT_TOKEN, or pipe it in")]
    TokenMissing,
    /// The server does not take the enrolment, or cannot be reached.
    #[error("the server did not enrol this agent")]
    Enrolment(#[source] cairn_api::client::Error),
    /// Whoever answered the enrolment does not know the token.
    #[error("whoever answered is not the server that made the token")]
    Impostor(#[source] cairn_link::Error),
    /// The server's address is none, or nothing can be sent.
    #[error("the server cannot be asked")]
    Client(#[source] cairn_api::client::Error),
    /// Somebody ended it before it was done.
    #[error("stopped as asked")]
    Stopped,
    /// The agent was removed at the server.
    #[error("the server does not know this agent any more: register it anew to go on")]
    Removed,
}

impl Error {
    /// What a caller should do about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::State { .. } => Kind::Denied,
            Self::Exposed { .. } => Kind::Denied,
            Self::Damaged { .. } => Kind::Corrupt,
            Self::NotRegistered { .. } => Kind::NotFound,
            Self::Registered { .. } | Self::Running => Kind::Conflict,
            Self::Rules { .. } | Self::RelativePath { .. } | Self::Token | Self::TokenMissing => {
                Kind::Invalid
            }
            Self::Enrolment(error) | Self::Client(error) => error.kind(),
            Self::Impostor(error) => error.kind(),
            Self::Stopped => Kind::Cancelled,
            Self::Removed => Kind::NotFound,
        }
    }
}
