//! Why a notification did not arrive.

use std::path::PathBuf;

use cairn_types::Kind;

/// What a call of this crate gives.
pub type Result<T> = std::result::Result<T, Error>;

/// The longest reason that is told of a receiver's, in characters.
const MAX_REASON_CHARS: usize = 200;

/// Why a notification did not arrive, or may not have; or why none can be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is none that notifications are sent to.
    #[error("the URL is no http or https address")]
    Url,
    /// The receiver is where nothing is sent to. Whether there is anything is not told.
    #[error("{host} leads to no address that notifications may be sent to")]
    NotAllowed {
        /// The host of the URL.
        host: String,
    },
    /// No answer came in time.
    #[error("no answer within {seconds} s")]
    TimedOut {
        /// How long it was waited for.
        seconds: u64,
    },
    /// The answer says that it was not taken.
    #[error("the answer was {status}")]
    Refused {
        /// The answer's status.
        status: u16,
    },
    /// There was no connection, or it broke.
    #[error("the receiver cannot be reached: {}", reason(source))]
    Unreachable {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// This server sends no mail.
    #[error("this server sends no mail: no SMTP server is configured")]
    NoMail,
    /// The mail cannot be written.
    #[error("the mail cannot be written: {0}")]
    Write(#[source] lettre::error::Error),
    /// An address is none.
    #[error("{address:?} is no mail address")]
    MailAddress {
        /// The address.
        address: String,
    },
    /// The SMTP server did not take the mail.
    #[error("the mail server did not take it: {}", reason(source))]
    Smtp {
        /// Why.
        #[source]
        source: lettre::transport::smtp::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The certificates cannot be used.
    #[error("the file of certificates holds none, or one that cannot be read")]
    Certificates,
    /// What sends cannot be set up.
    #[error("cannot set up the HTTP client")]
    Setup(#[source] reqwest::Error),
}

impl Error {
    /// What a caller should do about it. Receivers and names change, so nothing
    /// that one says is for ever.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::NotAllowed { .. } => Kind::Denied,
            Self::TimedOut { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Smtp { .. } => Kind::Transient,
            Self::Url
            | Self::NoMail
            | Self::Write(_)
            | Self::MailAddress { .. }
            | Self::File { .. }
            | Self::Certificates => Kind::Invalid,
            Self::Setup(_) => Kind::Bug,
        }
    }
}

/// The last cause, which says what went wrong; those before it say where.
fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut last = error;
    while let Some(source) = last.source() {
        last = source;
    }
    last.to_string().chars().take(MAX_REASON_CHARS).collect()
}
