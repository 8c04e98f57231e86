//! Vaults that are paid for in advance: their orders, and what these allow.

use cairn_api::Operation as Op;
use serde_json::{Value, json};

use crate::client::{Answer, Client, vault_body};

const NOBODYS: &str = "3b5816b5-f29c-4172-9d9a-76c719a659ce";
/// More than a month.
const MONTH_SECONDS: i64 = 32 * 24 * 3600;

fn prepaid_body() -> Value {
    let mut body = vault_body("server", 100, json!([]));
    let billing = &mut body["vault"]["billing"];
    billing["charging_mode"] = json!("pre_paid");
    billing["period_type"] = json!("month");
    billing["period_num"] = json!(1);
    body
}

/// Buys a vault; the order and the vault.
async fn buy(client: &Client, operation: Op, body: Value) -> (String, String) {
    let bought = client.call(operation, &[], body).await;
    assert_eq!(bought.status, 200, "{bought:?}");
    assert!(bought.body.get("vault").is_none());
    let answer = &bought.body;
    assert_eq!(
        (&answer["retCode"], &answer["errText"]),
        (&json!(0), &json!("success"))
    );
    assert_eq!(answer["error_code"], "0");
    let order = &answer["orders"][0];
    assert_eq!(order["subscribeResult"], 1);
    let text = |key: &str| order[key].as_str().unwrap().to_owned();
    (text("orderId"), text("resourceId"))
}

async fn vault(client: &Client, id: &str) -> Value {
    let shown = client.call(Op::ShowVault, &[id], Value::Null).await;
    assert_eq!(shown.status, 200, "{shown:?}");
    shown.body["vault"].clone()
}

fn assert_code(answer: &Answer, code: &str) {
    let expected = format!("BackupService.{code}");
    assert_eq!(answer.body["error_code"], *expected, "{answer:?}");
}

fn change(vault: &str, size: u64, spec: &str) -> Value {
    json!({ "resource_id": vault, "product_info": {
        "product_id": "00301-231147-0--0", "resource_size": size, "resource_spec_code": spec } })
}

const SERVER: &str = "vault.backup.server.normal";
const DATABASE: &str = "vault.backup.database.normal";

#[tokio::test]
async fn a_vault_is_bought_and_shows_its_order() {
    let client = Client::new().await;
    for operation in [Op::CreateVault, Op::CreatePostPaidVault] {
        let (order, id) = buy(&client, operation, prepaid_body()).await;
        let shown = vault(&client, &id).await;
        let billing = &shown["billing"];
        assert_eq!(billing["charging_mode"], "pre_paid");
        assert_eq!(billing["order_id"], *order);
        assert_eq!(billing["product_id"], "vault-backup-server-normal");
        assert_eq!(billing["status"], "available");
        assert_eq!(shown["demand_billing"], false);
    }
    // One call is for vaults that are paid for in advance alone.
    let body = vault_body("server", 100, json!([]));
    let refused = client.call(Op::CreatePostPaidVault, &[], body).await;
    assert_code(&refused, "9900");
    // A period is needed, and what only others may have is not taken.
    for (key, value) in [
        ("/vault/billing/period_num", Value::Null),
        ("/vault/billing/period_type", Value::Null),
        ("/vault/billing/period_num", json!(10)),
    ] {
        let mut body = prepaid_body();
        *body.pointer_mut(key).unwrap() = value;
        assert_code(&client.call(Op::CreateVault, &[], body).await, "9900");
    }
    let mut body = prepaid_body();
    body["vault"]["auto_expand"] = json!(true);
    assert_code(&client.call(Op::CreateVault, &[], body).await, "9900");
    let mut body = vault_body("server", 100, json!([]));
    body["vault"]["demand_billing"] = json!(true);
    assert_code(&client.call(Op::CreateVault, &[], body).await, "9900");
    let listed = client.call(Op::ListVault, &[], Value::Null).await;
    assert_eq!(listed.body["count"], 2);
}

#[tokio::test]
async fn a_bought_vault_is_not_deleted_before_its_period_ends() {
    let client = Client::new().await;
    let (_, id) = buy(&client, Op::CreateVault, prepaid_body()).await;
    let refused = client.call(Op::DeleteVault, &[&id], Value::Null).await;
    assert_code(&refused, "6111");
    client.world.clock.advance(MONTH_SECONDS);
    let client = client.signed_in_again().await;
    let gone = client.call(Op::DeleteVault, &[&id], Value::Null).await;
    assert_eq!(gone.status, 204, "{gone:?}");
}

#[tokio::test]
async fn a_bought_vault_changes_its_size_by_an_order_alone() {
    let client = Client::new().await;
    let (first, id) = buy(&client, Op::CreateVault, prepaid_body()).await;
    for change in [
        json!({ "vault": { "billing": { "size": 200 } } }),
        json!({ "vault": { "auto_expand": true } }),
    ] {
        let refused = client.call(Op::UpdateVault, &[&id], change).await;
        assert_code(&refused, "6110");
    }
    // The size that it has is no change.
    let same = json!({ "vault": { "name": "other", "billing": { "size": 100 } } });
    assert_eq!(client.call(Op::UpdateVault, &[&id], same).await.status, 200);

    let changed = client
        .call(Op::ChangeOrder, &[], change(&id, 200, SERVER))
        .await;
    assert_eq!(changed.body["retCode"], 0);
    let second = changed.body["orderId"].as_str().unwrap();
    assert_ne!(second, first);
    let shown = vault(&client, &id).await;
    assert_eq!(shown["billing"]["size"], 200);
    assert_eq!(shown["billing"]["order_id"], *second);
    assert_eq!(shown["billing"]["product_id"], "00301-231147-0--0");

    // The older call names the order; its consistency may rise with it.
    let older = json!({ "resourceId": id, "productInfo": {
        "productId": "p", "resourceSize": 150, "resourceSpecCode": DATABASE } });
    let updated = client.call(Op::UpdateOrder, &[second], older.clone()).await;
    assert_eq!(updated.body["retCode"], "0");
    let shown = vault(&client, &id).await;
    assert_eq!(shown["billing"]["size"], 150);
    assert_eq!(shown["billing"]["spec_code"], DATABASE);
    assert_eq!(shown["billing"]["consistent_level"], "app_consistent");

    let missing = client
        .call(Op::UpdateOrder, &["CS0000000000XX"], older)
        .await;
    assert_code(&missing, "6109");
    let down = client
        .call(Op::ChangeOrder, &[], change(&id, 150, SERVER))
        .await;
    assert_code(&down, "9900");
    let other = change(&id, 150, "vault.backup.volume.normal");
    assert_code(&client.call(Op::ChangeOrder, &[], other).await, "9900");
    let nobodys = change(NOBODYS, 150, SERVER);
    assert_code(&client.call(Op::ChangeOrder, &[], nobodys).await, "6105");
    let small = change(&id, 9, DATABASE);
    assert_code(&client.call(Op::ChangeOrder, &[], small).await, "9900");
    let server = client.world.server().await.to_string();
    let body = json!({ "resources": [{ "id": server, "type": "OS::Nova::Server" }] });
    client.call(Op::AddVaultResource, &[&id], body).await;
    let backup = client.back_up(&id).await;
    client.let_backup_occupy(&backup, 20 << 30).await;
    let used = change(&id, 19, DATABASE);
    assert_code(&client.call(Op::ChangeOrder, &[], used).await, "6101");
    assert_eq!(vault(&client, &id).await["billing"]["size"], 150);
}

#[tokio::test]
async fn a_vault_that_is_paid_by_use_becomes_one_that_is_bought() {
    let mut client = Client::new().await;
    let (one, two) = (client.disk_vault().await, client.server_vault().await);
    assert_code(
        &client
            .call(Op::ChangeOrder, &[], change(&two, 200, SERVER))
            .await,
        "6109",
    );
    let body = |vaults: &[&str]| {
        json!({ "charging_mode": "pre_paid", "period_type": "year", "period_num": 2,
            "is_auto_renew": true, "is_auto_pay": true, "vault_ids": vaults })
    };
    let some = body(&[&one, NOBODYS]);
    let refused = client.call(Op::ChangeVaultChargeMode, &[], some).await;
    assert_code(&refused, "6105");
    assert_eq!(
        vault(&client, &one).await["billing"]["charging_mode"],
        "post_paid"
    );

    let changed = client
        .call(Op::ChangeVaultChargeMode, &[], body(&[&one, &two]))
        .await;
    let order = &changed.body["orderId"];
    for id in [&one, &two] {
        let billing = vault(&client, id).await["billing"].clone();
        assert_eq!(
            (&billing["charging_mode"], &billing["order_id"]),
            (&json!("pre_paid"), order)
        );
    }
    let again = client
        .call(Op::ChangeVaultChargeMode, &[], body(&[&one]))
        .await;
    assert_code(&again, "6110");
    let mut back = body(&[&one]);
    back["charging_mode"] = json!("post_paid");
    assert_code(
        &client.call(Op::ChangeVaultChargeMode, &[], back).await,
        "9900",
    );

    // Another's vault and order are as if they were not there.
    let order = order.as_str().unwrap().to_owned();
    client.become_stranger().await;
    for id in [&*two, NOBODYS] {
        let foreign = client
            .call(Op::ChangeVaultChargeMode, &[], body(&[id]))
            .await;
        assert_code(&foreign, "6105");
        let foreign = client
            .call(Op::UpdateOrder, &[&order], change(id, 200, SERVER))
            .await;
        assert_code(&foreign, "6105");
    }
}
