//! Notifications over HTTP: an extension, CBR leaves this to another service.

use cairn_api::notification::{
    CreateNotificationTargetRequest, ListNotificationTargetsResponse, ListNotificationsQuery,
    ListNotificationsResponse, MailAddresses, Notification as WireNotification,
    NotificationResponse, NotificationTarget as WireTarget, NotificationTargetResponse,
    UpdateNotificationTargetRequest, Webhook,
};
use cairn_core::records::{Notification, NotificationFilter, NotificationTarget};
use cairn_core::{Address, Caller, NewTarget, TargetChange};
use cairn_types::{NotificationStatus, TargetId, TargetKind};

use crate::App;
use crate::convert;
use crate::error::{Failure, Result};
use crate::request::Request;

pub(crate) async fn create_target(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<NotificationTargetResponse> {
    let body: CreateNotificationTargetRequest = request.json()?;
    let wish = body.notification_target;
    let address = match (wish.webhook, wish.mail) {
        (Some(webhook), None) => Address::Webhook {
            url: webhook.url,
            secret: webhook.secret.0.into(),
        },
        (None, Some(mail)) => Address::Mail {
            addresses: mail.addresses,
        },
        _ => return Err(Failure::invalid("notification_target")),
    };
    let new = NewTarget {
        name: wish.name,
        address,
        events: wish.events.unwrap_or_default(),
        vault: wish.vault_id,
    };
    Ok(response(app.service.create_target(caller, new).await?))
}

pub(crate) async fn list_targets(
    app: &App,
    caller: &Caller,
) -> Result<ListNotificationTargetsResponse> {
    let targets = app.service.targets(caller).await?;
    let count = targets.len() as u64;
    Ok(ListNotificationTargetsResponse {
        notification_targets: targets.into_iter().map(target).collect(),
        count,
    })
}

pub(crate) async fn show_target(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<NotificationTargetResponse> {
    let id = target_id(request)?;
    Ok(response(app.service.target(caller, id).await?))
}

pub(crate) async fn update_target(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<NotificationTargetResponse> {
    let id = target_id(request)?;
    let body: UpdateNotificationTargetRequest = request.json()?;
    let wish = body.notification_target;
    let webhook = wish.webhook.unwrap_or_default();
    let change = TargetChange {
        name: wish.name,
        url: webhook.url,
        secret: webhook.secret.map(|secret| secret.0.into()),
        addresses: wish.mail.map(|mail| mail.addresses),
        events: wish.events,
        vault: wish.vault_id,
    };
    let changed = app.service.update_target(caller, id, change).await?;
    Ok(response(changed))
}

pub(crate) async fn delete_target(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    let id = target_id(request)?;
    Ok(app.service.delete_target(caller, id).await?)
}

pub(crate) async fn test_target(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<NotificationResponse> {
    let id = target_id(request)?;
    let sent = app.service.test_target(caller, id).await?;
    Ok(NotificationResponse {
        notification: notification(sent),
    })
}

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListNotificationsResponse> {
    let query = ListNotificationsQuery::parse(request.query())?;
    let wanted = query.page();
    let filter = NotificationFilter {
        status: query.status,
        event: query.event,
        target: query.target_id,
        vault: query.vault_id,
    };
    let page = convert::page(&wanted);
    let (found, count) = app.service.notifications(caller, &filter, &page).await?;
    Ok(ListNotificationsResponse {
        notifications: found.into_iter().map(notification).collect(),
        count,
        limit: wanted.limit,
        offset: wanted.offset,
        dropped: app.service.dropped_notifications(caller).await?,
    })
}

pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<NotificationResponse> {
    let id = request.path("notification_id")?;
    let found = app.service.notification(caller, id).await?;
    Ok(NotificationResponse {
        notification: notification(found),
    })
}

fn target_id(request: &Request) -> Result<TargetId> {
    request.path("target_id")
}

fn response(made: NotificationTarget) -> NotificationTargetResponse {
    NotificationTargetResponse {
        notification_target: target(made),
    }
}

fn target(target: NotificationTarget) -> WireTarget {
    let (webhook, mail) = match target.kind {
        TargetKind::Webhook => (Some(Webhook { url: target.url }), None),
        TargetKind::Mail => {
            let addresses = target.addresses;
            (None, Some(MailAddresses { addresses }))
        }
    };
    WireTarget {
        id: target.id,
        project_id: target.project,
        name: target.name,
        kind: target.kind,
        webhook,
        mail,
        events: target.events,
        vault_id: target.vault,
        created_at: target.created_at,
        updated_at: target.updated_at,
    }
}

fn notification(told: Notification) -> WireNotification {
    let waits = told.status == NotificationStatus::Waiting;
    WireNotification {
        id: told.id,
        target_id: told.target,
        target_name: told.target_name,
        event: told.event,
        vault_id: told.vault,
        summary: told.summary,
        status: told.status,
        attempts: told.attempts,
        last_error: Some(told.last_error).filter(|error| !error.is_empty()),
        created_at: told.created_at,
        next_attempt_at: waits.then_some(told.not_before),
        ended_at: told.ended_at,
    }
}
