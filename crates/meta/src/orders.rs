//! Orders: what was bought for which vault. They settle at once, so a row is
//! a record and never changes.

use cairn_types::{ProjectId, Timestamp, VaultId};
use sqlx::any::AnyRow;

use crate::query::{Columns, FromRow, Statement, insert, text};
use crate::vaults::signed;
use crate::{Result, Tx};

/// What was bought for a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Its number; several vaults may be bought by one order.
    pub id: String,
    /// The project.
    pub project: ProjectId,
    /// The vault.
    pub vault: VaultId,
    /// The product.
    pub product: String,
    /// The capacity that the vault has by it, in GB.
    pub size_gb: u64,
    /// The months that it pays for; 0 if it changes the size alone.
    pub months: u64,
    /// When it was placed, and settled.
    pub created_at: Timestamp,
}

impl FromRow for Order {
    fn from_row(row: &AnyRow) -> Result<Self> {
        Ok(Self {
            id: row.text("id")?,
            project: row.parsed("project_id")?,
            vault: row.parsed("vault_id")?,
            product: row.text("product_id")?,
            size_gb: row.unsigned("size_gb")?,
            months: row.unsigned("months")?,
            created_at: row.time("created_at")?,
        })
    }
}

impl Tx {
    /// Adds an order.
    pub async fn insert_order(&mut self, order: &Order) -> Result<()> {
        let columns = [
            ("id", text(&order.id)),
            ("project_id", text(order.project)),
            ("vault_id", text(order.vault)),
            ("product_id", text(&order.product)),
            ("size_gb", signed(order.size_gb).into()),
            ("months", signed(order.months).into()),
            ("created_at", order.created_at.into()),
        ];
        insert(self, "orders", columns).await
    }

    /// What a project's order says of a vault.
    pub async fn order(
        &mut self,
        project: ProjectId,
        id: &str,
        vault: VaultId,
    ) -> Result<Option<Order>> {
        let mut statement = Statement::new("SELECT * FROM orders");
        statement
            .equals("project_id", Some(project))
            .equals("id", Some(id))
            .equals("vault_id", Some(vault));
        statement.one(self).await
    }
}
