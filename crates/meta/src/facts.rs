//! Facts about the catalogue itself.

use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, insert, text};
use crate::{Result, Tx};

/// Under which name the id of the repository is kept.
const REPOSITORY: &str = "repository";

struct Fact(String);

impl FromRow for Fact {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self(row.text("value")?))
    }
}

impl Tx {
    /// The id of the repository that this catalogue's backups lie in; none
    /// before the first start.
    pub async fn repository_id(&mut self) -> Result<Option<String>> {
        let mut statement = Statement::new("SELECT value FROM facts");
        statement.equals("name", Some(REPOSITORY));
        Ok(statement.one::<Fact>(self).await?.map(|fact| fact.0))
    }

    /// Notes which repository this catalogue's backups lie in, once.
    ///
    /// Errors: `Conflict` it is noted already.
    pub async fn insert_repository_id(&mut self, id: &str) -> Result<()> {
        let columns = [("name", text(REPOSITORY)), ("value", text(id))];
        insert(self, "facts", columns).await
    }
}
