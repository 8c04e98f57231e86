//! Migrations of domains from the services before CBR.

use cairn_types::{DomainId, Timestamp};

use crate::query::{Statement, text};
use crate::{Result, Tx};

impl Tx {
    /// Notes that a domain asked for its migration, again if it did before.
    pub async fn note_migration(&mut self, domain: DomainId, now: Timestamp) -> Result<()> {
        let mut statement =
            Statement::new("INSERT INTO domain_migrations (domain_id, created_at) VALUES (");
        statement.bind(text(domain)).push(", ").bind(now);
        statement.push(") ON CONFLICT (domain_id) DO UPDATE SET created_at = excluded.created_at");
        statement.run(self).await?;
        Ok(())
    }

    /// Whether a domain ever asked for its migration.
    pub async fn has_migrated(&mut self, domain: DomainId) -> Result<bool> {
        let mut statement = Statement::new("SELECT COUNT(*) FROM domain_migrations");
        statement.equals("domain_id", Some(domain));
        Ok(statement.number(self).await? > 0)
    }
}
