//! Orders: what is paid for in advance. Nothing is sold here, so an order is
//! settled in the transaction that places it, and its record stays.

use cairn_meta::{Order, Payment, Tx, Vault};
use cairn_types::{ByteCount, ObjectType, Timestamp, VaultId};

use crate::identity::random_text;
use crate::vault::view;
use crate::{Caller, Refusal, Result, Service};

/// What a vault is bought by, if it is to be paid for in advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prepaid {
    /// For how many months.
    pub months: u32,
}

/// Another size for a vault that is paid for in advance.
#[derive(Debug, Clone)]
pub struct OrderChange {
    /// The vault.
    pub vault: VaultId,
    /// The order that is changed, where the request names it.
    pub order: Option<String>,
    /// The product that is bought.
    pub product: String,
    /// That product's specification, as [`spec_code`] gives it.
    pub spec_code: String,
    /// The new size in GB.
    pub size_gb: u64,
}

impl Service {
    /// Buys another size for a vault that is paid for in advance; the number of the order.
    ///
    /// Errors: `NotFound` vault; `Invalid` for a vault without an order, another
    /// type of vault, or a size below what it holds.
    /// CBR: `ChangeOrder`, `POST /v3/{project_id}/orders/change`; `UpdateOrder`.
    pub async fn change_order(&self, caller: &Caller, change: OrderChange) -> Result<String> {
        let mut tx = self.meta().begin().await?;
        let vault = tx
            .lock_vault(caller.project, change.vault)
            .await?
            .ok_or(Refusal::VaultNotFound)?;
        if let Some(order) = &change.order {
            let found = tx.order(caller.project, order, vault.id).await?;
            found.ok_or(Refusal::OrderNotFound)?;
        }
        if !vault.payment.is_in_advance() {
            return Err(Refusal::OrderNotFound.into());
        }
        if !vault.status.is_in_service() {
            let state = vault.status.to_string();
            return Err(Refusal::VaultState { state }.into());
        }
        let mut view = view(&mut tx, vault).await?;
        change_spec(&mut view.vault, &change.spec_code)?;
        let used = ByteCount(view.usage.used_bytes).gb_ceil();
        if change.size_gb < view.allocated_gb() || change.size_gb < used {
            return Err(Refusal::VaultTooSmall.into());
        }
        let id = order_number(self.now())?;
        view.vault.size_gb = change.size_gb;
        view.vault.payment.order = Some(id.clone());
        view.vault.payment.product = Some(change.product);
        view.vault.updated_at = self.now();
        tx.update_vault(&view.vault).await?;
        settle(&mut tx, &view.vault, 0, self.now()).await?;
        self.mark_fill(&mut tx, &view.vault).await?;
        tx.commit().await?;
        Ok(id)
    }

    /// Has vaults that are paid for by use be paid for in advance; the number of the order.
    ///
    /// Errors: `NotFound` vault; `Invalid` for one that is paid for in advance already.
    /// CBR: `ChangeVaultChargeMode`, `POST /v3/{project_id}/vaults/change-charge-mode`.
    pub async fn change_charge_mode(
        &self,
        caller: &Caller,
        vaults: &[VaultId],
        prepaid: Prepaid,
    ) -> Result<String> {
        let now = self.now();
        let id = order_number(now)?;
        // In one order for every caller, so that two of them never wait for each other.
        let mut vaults = vaults.to_vec();
        vaults.sort_unstable();
        vaults.dedup();
        let mut tx = self.meta().begin().await?;
        for vault in vaults {
            let mut vault = tx
                .lock_vault(caller.project, vault)
                .await?
                .ok_or(Refusal::VaultNotFound)?;
            if vault.payment.is_in_advance() {
                return Err(Refusal::PaidInAdvance.into());
            }
            if !vault.status.is_in_service() {
                let state = vault.status.to_string();
                return Err(Refusal::VaultState { state }.into());
            }
            vault.payment = paid(&vault, id.clone(), prepaid, now);
            // Only vaults that are paid for by use grow by themselves.
            vault.auto_expand = false;
            vault.updated_at = now;
            tx.update_vault(&vault).await?;
            settle(&mut tx, &vault, prepaid.months, now).await?;
        }
        tx.commit().await?;
        Ok(id)
    }

    /// Buys a new vault, which is in `tx` already: the order comes with it.
    pub(crate) async fn buy(&self, tx: &mut Tx, vault: &mut Vault, prepaid: Prepaid) -> Result<()> {
        let now = self.now();
        let demand_billing = vault.payment.demand_billing;
        vault.payment = Payment {
            demand_billing,
            ..paid(vault, order_number(now)?, prepaid, now)
        };
        tx.update_vault(vault).await?;
        settle(tx, vault, prepaid.months, now).await
    }
}

/// What stands against the deletion of a vault: the period that is paid for.
/// Afterwards it may go, because nobody here renews anything.
pub(crate) fn refuse_paid(vault: &Vault, now: Timestamp) -> Result<()> {
    match vault.payment.paid_until {
        Some(until) if now < until => Err(Refusal::VaultPaid.into()),
        _ => Ok(()),
    }
}

fn paid(vault: &Vault, order: String, prepaid: Prepaid, now: Timestamp) -> Payment {
    Payment {
        order: Some(order),
        product: Some(spec_code(vault).replace('.', "-")),
        paid_until: Some(now.plus_months(prepaid.months)),
        demand_billing: vault.payment.demand_billing,
    }
}

/// Keeps the record of what a vault's payment says now.
async fn settle(tx: &mut Tx, vault: &Vault, months: u32, now: Timestamp) -> Result<()> {
    let payment = &vault.payment;
    let order = Order {
        id: payment.order.clone().unwrap_or_default(),
        project: vault.project,
        vault: vault.id,
        product: payment.product.clone().unwrap_or_default(),
        size_gb: vault.size_gb,
        months: months.into(),
        created_at: now,
    };
    Ok(tx.insert_order(&order).await?)
}

/// A vault keeps its specification; only a server vault's consistency may rise.
fn change_spec(vault: &mut Vault, wanted: &str) -> Result<()> {
    if wanted == spec_code(vault) {
        return Ok(());
    }
    let level = std::mem::replace(&mut vault.consistent_level, "app_consistent".to_owned());
    if vault.object_type == ObjectType::Server && wanted == spec_code(vault) {
        return Ok(());
    }
    vault.consistent_level = level;
    let text = "Invalid product_info.resource_spec_code provided. The vault is of another type.";
    Err(Refusal::Invalid(text.to_owned()).into())
}

/// A number in the form of the vendor's: the minute, and letters that nobody can guess.
fn order_number(now: Timestamp) -> Result<String> {
    let letters = random_text::<8>()?.to_uppercase();
    Ok(format!("CS{}{letters}", now.format("%y%m%d%H%M")))
}

/// The product that CBR would have sold.
/// Source: the values of `spec_code` in the vendor's definitions.
pub fn spec_code(vault: &Vault) -> &'static str {
    match (vault.protect_type.as_str(), vault.object_type) {
        ("replication", _) => "vault.replication.server.normal",
        ("hybrid", _) => "vault.hybrid.server.normal",
        (_, ObjectType::Disk) => "vault.backup.volume.normal",
        (_, ObjectType::Turbo) => "vault.backup.turbo.normal",
        (_, ObjectType::Rds) => "vault.backup.rds.normal",
        _ if vault.consistent_level == "app_consistent" => "vault.backup.database.normal",
        _ => "vault.backup.server.normal",
    }
}
