//! Signed calls that are sent again: each is carried out once, and every
//! further attempt gets the first one's answer.

use crate::{Result, Service};

/// How long a call is remembered. A signature can be made up to 15 minutes
/// before and up to 15 minutes after the server's time, and is good all that while.
const KEPT_SECONDS: i64 = 31 * 60;

/// What is known of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// It was never seen: carry it out, then keep its answer or forget it.
    First,
    /// It was carried out, and answered so.
    Answered {
        /// The status.
        status: u16,
        /// The body.
        body: String,
    },
    /// It was begun. Either it is at work elsewhere, or a server ended in the
    /// midst of it: whether it was carried out can only be seen by looking.
    Unfinished,
}

impl Service {
    /// Notes that the call with this digest is about to be carried out, unless it was before.
    pub async fn begin_call(&self, digest: &str) -> Result<Call> {
        let now = self.now();
        let mut tx = self.meta().begin().await?;
        tx.remove_ended_calls(now).await?;
        let first = tx
            .claim_call(digest, now.plus_seconds(KEPT_SECONDS))
            .await?;
        let known = match first {
            true => None,
            false => tx.call(digest).await?,
        };
        tx.commit().await?;
        Ok(match known {
            None => Call::First,
            Some(answer) => match answer.status {
                Some(status) => Call::Answered {
                    status,
                    body: answer.body,
                },
                None => Call::Unfinished,
            },
        })
    }

    /// Keeps the answer of a call for those who ask again.
    pub async fn keep_answer(&self, digest: &str, status: u16, body: &str) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        tx.keep_answer(digest, status, body).await?;
        Ok(tx.commit().await?)
    }

    /// Forgets a call that changed nothing, so that it may be tried again.
    pub async fn forget_call(&self, digest: &str) -> Result<()> {
        let mut tx = self.meta().begin().await?;
        tx.remove_call(digest).await?;
        Ok(tx.commit().await?)
    }
}
