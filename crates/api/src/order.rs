//! Orders on the wire: vaults that are paid for in advance.

use cairn_types::VaultId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::validate::{self, Invalid, Validate, require};
use crate::vault::{CreateVaultRequest, NewVault};
use crate::{ChargingMode, PeriodType};

/// The largest number of vaults that one request has paid for in advance.
const MAX_VAULTS: usize = 60;
/// The longest id of a product.
const MAX_PRODUCT_CHARS: usize = 64;
/// The longest address that the console returns to, in orders.
const MAX_ORDER_URL_CHARS: usize = 512;

/// The body of `CreatePostPaidVault`, which makes a vault that is paid for in
/// advance, whatever its name says.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct OrderVaultRequest {
    /// The vault that is wished for.
    pub vault: NewVault,
}

impl Validate for OrderVaultRequest {
    fn validate(&self) -> Result<(), Invalid> {
        let mode = self.vault.billing.charging_mode;
        require(
            mode == Some(ChargingMode::PrePaid),
            "vault.billing.charging_mode",
            "It takes pre_paid.",
        )?;
        // The description may be longer than that of `CreateVault`.
        validate::optional(&self.vault.description, |text| {
            validate::description("vault.description", text, validate::MAX_DESCRIPTION_CHARS)
        })?;
        let vault = NewVault {
            description: None,
            ..self.vault.clone()
        };
        CreateVaultRequest { vault }.validate()
    }
}

/// The body of `ChangeOrder`: in snake case as it is declared, or in camel
/// case as the vendor's example has it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangeOrderRequest {
    /// What is bought.
    #[serde(alias = "productInfo")]
    pub product_info: Product,
    /// The vault.
    #[serde(alias = "resourceId")]
    pub resource_id: VaultId,
    /// Where the console returns to.
    #[serde(
        alias = "cloudServiceConsoleURL",
        skip_serializing_if = "Option::is_none"
    )]
    pub cloud_service_console_url: Option<String>,
    /// Pay without asking.
    #[serde(alias = "isAutoPay", skip_serializing_if = "Option::is_none")]
    pub is_auto_pay: Option<bool>,
    /// A discount.
    #[serde(alias = "promotionInfo", skip_serializing_if = "Option::is_none")]
    pub promotion_info: Option<String>,
}

/// What is bought.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Product {
    /// The product.
    #[serde(alias = "productId")]
    pub product_id: String,
    /// The new size, in GB.
    #[serde(alias = "resourceSize")]
    pub resource_size: u64,
    /// The unit of the size: 17, which is GB.
    #[serde(
        alias = "resourceSizeMeasureId",
        skip_serializing_if = "Option::is_none"
    )]
    pub resource_size_measure_id: Option<u32>,
    /// The product's specification, such as `vault.backup.server.normal`.
    #[serde(alias = "resourceSpecCode")]
    pub resource_spec_code: String,
}

impl Product {
    fn validate_at(&self, key: &str) -> Result<(), Invalid> {
        let id = &self.product_id;
        let fits = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        require(
            (1..=MAX_PRODUCT_CHARS).contains(&id.len()) && id.chars().all(fits),
            &format!("{key}.product_id"),
            "It takes 1 to 64 letters, digits, underscores and hyphens.",
        )?;
        let sizes = (validate::MIN_NEW_VAULT_GB, validate::MAX_VAULT_GB);
        validate::range(&format!("{key}.resource_size"), self.resource_size, sizes)?;
        require(
            self.resource_size_measure_id.is_none_or(|unit| unit == 17),
            &format!("{key}.resource_size_measure_id"),
            "It takes 17.",
        )
    }
}

impl Validate for ChangeOrderRequest {
    fn validate(&self) -> Result<(), Invalid> {
        validate::optional(&self.cloud_service_console_url, |url| {
            validate::text("cloud_service_console_url", url, MAX_ORDER_URL_CHARS)
        })?;
        self.product_info.validate_at("product_info")
    }
}

/// What `ChangeOrder` and `ChangeVaultChargeMode` answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderResponse {
    /// The order.
    pub order_id: String,
    /// 0: it is settled.
    pub ret_code: i32,
    /// The same in a word.
    pub ret_msg: String,
}

impl OrderResponse {
    /// The answer to an order that is settled.
    pub fn settled(order_id: String) -> Self {
        Self {
            order_id,
            ret_code: 0,
            ret_msg: "success".to_owned(),
        }
    }
}

/// What `UpdateOrder` answers: the same, with a text for the code.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateOrderResponse {
    /// The order.
    pub order_id: String,
    /// `0`: it is settled.
    pub ret_code: String,
    /// The same in a word.
    pub ret_msg: String,
}

impl UpdateOrderResponse {
    /// The answer to an order that is settled.
    pub fn settled(order_id: String) -> Self {
        Self {
            order_id,
            ret_code: "0".to_owned(),
            ret_msg: "success".to_owned(),
        }
    }
}

/// The body of `ChangeVaultChargeMode`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangeChargeModeRequest {
    /// How the vaults are to be paid for: only in advance can be asked for.
    pub charging_mode: ChargingMode,
    /// The unit of the period.
    pub period_type: PeriodType,
    /// How many periods.
    pub period_num: u32,
    /// Renew without asking.
    pub is_auto_renew: bool,
    /// Pay without asking.
    pub is_auto_pay: bool,
    /// The vaults.
    pub vault_ids: Vec<VaultId>,
    /// Where the console returns to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_url: Option<String>,
}

impl Validate for ChangeChargeModeRequest {
    fn validate(&self) -> Result<(), Invalid> {
        require(
            self.charging_mode == ChargingMode::PrePaid,
            "charging_mode",
            "It takes pre_paid.",
        )?;
        validate::range("period_num", self.period_num, (1, 9))?;
        validate::count("vault_ids", self.vault_ids.len(), (1, MAX_VAULTS))?;
        validate::optional(&self.console_url, |url| {
            validate::text("console_url", url, 255)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::parse_body;

    #[test]
    fn a_change_is_read_in_both_spellings() {
        let id = VaultId::random();
        let snake = format!(
            r#"{{"resource_id":"{id}","product_info":{{"product_id":"p-1","resource_size":50,
                "resource_spec_code":"vault.backup.server.normal"}}}}"#
        );
        let camel = format!(
            r#"{{"resourceId":"{id}","productInfo":{{"productId":"p-1","resourceSize":50,
                "resourceSizeMeasureId":17,"resourceSpecCode":"vault.backup.server.normal"}}}}"#
        );
        for body in [snake, camel] {
            let read: ChangeOrderRequest = parse_body(body.as_bytes()).unwrap();
            assert_eq!(
                (read.resource_id, read.product_info.resource_size),
                (id, 50)
            );
        }
        let small = format!(
            r#"{{"resource_id":"{id}","product_info":{{"product_id":"p 1","resource_size":5,
                "resource_spec_code":"x"}}}}"#
        );
        assert!(parse_body::<ChangeOrderRequest>(small.as_bytes()).is_err());
    }
}
