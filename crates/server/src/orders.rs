//! Orders over HTTP.

use cairn_api::PeriodType;
use cairn_api::order::{
    ChangeChargeModeRequest, ChangeOrderRequest, OrderResponse, OrderVaultRequest,
    UpdateOrderResponse,
};
use cairn_api::vault::CreateVaultResponse;
use cairn_core::{Caller, OrderChange, Prepaid};

use crate::App;
use crate::error::{Failure, Result};
use crate::request::Request;
use crate::vaults::{answer_to_new, new_vault};

/// The longest number of an order.
const MAX_ORDER_CHARS: usize = 64;

/// A period that is paid for in advance.
pub(crate) const fn prepaid(unit: PeriodType, periods: u32) -> Prepaid {
    let months = match unit {
        PeriodType::Month => periods,
        PeriodType::Year => 12 * periods,
    };
    Prepaid { months }
}

pub(crate) async fn create_vault(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<CreateVaultResponse> {
    let body: OrderVaultRequest = request.json()?;
    let new = new_vault(body.vault)?;
    answer_to_new(app.service.create_vault(caller, new).await?)
}

pub(crate) async fn change(app: &App, caller: &Caller, request: &Request) -> Result<OrderResponse> {
    let change = wanted(request.json()?, None);
    let order = app.service.change_order(caller, change).await?;
    Ok(OrderResponse::settled(order))
}

pub(crate) async fn update(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<UpdateOrderResponse> {
    let order: String = request.path("order_id")?;
    let fits = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    if order.len() > MAX_ORDER_CHARS || !order.chars().all(fits) {
        return Err(Failure::invalid("order_id"));
    }
    let change = wanted(request.json()?, Some(order));
    let order = app.service.change_order(caller, change).await?;
    Ok(UpdateOrderResponse::settled(order))
}

fn wanted(body: ChangeOrderRequest, order: Option<String>) -> OrderChange {
    let product = body.product_info;
    OrderChange {
        vault: body.resource_id,
        order,
        product: product.product_id,
        spec_code: product.resource_spec_code,
        size_gb: product.resource_size,
    }
}

pub(crate) async fn change_charge_mode(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<OrderResponse> {
    let body: ChangeChargeModeRequest = request.json()?;
    let period = prepaid(body.period_type, body.period_num);
    let order = app
        .service
        .change_charge_mode(caller, &body.vault_ids, period)
        .await?;
    Ok(OrderResponse::settled(order))
}
