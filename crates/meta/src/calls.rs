//! Signed calls and their answers, for those that are sent again.

use cairn_types::Timestamp;
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement};
use crate::{Result, Tx};

/// What a call was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptAnswer {
    /// The status; nothing as long as there is no answer.
    pub status: Option<u16>,
    /// The body.
    pub body: String,
}

impl FromRow for KeptAnswer {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            status: row.optional_parsed("status")?,
            body: row.text("body")?,
        })
    }
}

impl Tx {
    /// Notes that a call is being carried out, until `kept_until`; `false` if it was noted before.
    pub async fn claim_call(&mut self, digest: &str, kept_until: Timestamp) -> Result<bool> {
        let mut statement = Statement::new("INSERT INTO calls (digest, body, kept_until) VALUES (");
        statement.bind(digest).push(", ").bind("").push(", ");
        statement
            .bind(kept_until)
            .push(") ON CONFLICT (digest) DO NOTHING");
        Ok(statement.run(self).await? > 0)
    }

    /// A call that was noted.
    pub async fn call(&mut self, digest: &str) -> Result<Option<KeptAnswer>> {
        let mut statement =
            Statement::new("SELECT CAST(status AS TEXT) AS status, body FROM calls");
        statement.equals("digest", Some(digest));
        statement.one(self).await
    }

    /// Keeps the answer of a call.
    pub async fn keep_answer(&mut self, digest: &str, status: u16, body: &str) -> Result<()> {
        let mut statement = Statement::new("UPDATE calls SET status = ");
        statement
            .bind(i64::from(status))
            .push(", body = ")
            .bind(body);
        statement.equals("digest", Some(digest));
        statement.run(self).await?;
        Ok(())
    }

    /// Forgets a call, so that it may be carried out.
    pub async fn remove_call(&mut self, digest: &str) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM calls");
        statement.equals("digest", Some(digest));
        statement.run(self).await?;
        Ok(())
    }

    /// Forgets the calls that were kept until `now`.
    pub async fn remove_ended_calls(&mut self, now: Timestamp) -> Result<()> {
        let mut statement = Statement::new("DELETE FROM calls WHERE kept_until <= ");
        statement.bind(now);
        statement.run(self).await?;
        Ok(())
    }
}
