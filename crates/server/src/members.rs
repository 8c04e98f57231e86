//! Members of backups over HTTP.

use cairn_api::BackupSortKey;
use cairn_api::member::{
    AddMembersRequest, AddMembersResponse, ListMembersQuery, ListMembersResponse, Member,
    MemberResponse, UpdateMemberRequest,
};
use cairn_core::records::{Share, ShareFilter, ShareSort};
use cairn_core::{Caller, MemberQuery};
use cairn_types::{BackupId, ProjectId};

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;

pub(crate) async fn add(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<AddMembersResponse> {
    let backup = backup(request)?;
    let body: AddMembersRequest = request.json()?;
    let shares = app.service.add_members(caller, backup, &body.members);
    Ok(AddMembersResponse {
        members: shares.await?.into_iter().map(wire).collect(),
    })
}

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListMembersResponse> {
    let backup = backup(request)?;
    let query = ListMembersQuery::parse(request.query())?;
    // No image is made of a backup here, so none has the one that is asked for.
    let of_image = query.image_id.is_some();
    let query = member_query(query);
    let (shares, count) = app.service.members(caller, backup, &query).await?;
    let (shares, count) = if of_image {
        (Vec::new(), 0)
    } else {
        (shares, count)
    };
    Ok(ListMembersResponse {
        members: shares.into_iter().map(wire).collect(),
        count,
    })
}

fn member_query(query: ListMembersQuery) -> MemberQuery {
    let page = convert::page(&query.page());
    let keys = query.sort.map(|sort| sort.0).unwrap_or_default();
    let sort = keys.into_iter().map(|key| ShareSort {
        column: match key.key {
            BackupSortKey::UpdatedAt => "COALESCE(updated_at, created_at)",
            BackupSortKey::Status => "status",
            BackupSortKey::Id => "id",
            _ => "created_at",
        },
        descending: !key.ascending,
    });
    MemberQuery {
        filter: ShareFilter {
            member: query.dest_project_id,
            status: query.status,
            vault: query.vault_id,
        },
        sort: sort.collect(),
        page,
    }
}

pub(crate) async fn show(app: &App, caller: &Caller, request: &Request) -> Result<MemberResponse> {
    let (backup, member) = (backup(request)?, member(request)?);
    response(app.service.member(caller, backup, member).await?)
}

pub(crate) async fn update(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<MemberResponse> {
    let (backup, member) = (backup(request)?, member(request)?);
    let body: UpdateMemberRequest = request.json()?;
    let (decision, vault) = (body.decision(), body.vault_id);
    let decided = app
        .service
        .decide_on_share(caller, backup, member, decision, vault);
    response(decided.await?)
}

pub(crate) async fn delete(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    let (backup, member) = (backup(request)?, member(request)?);
    Ok(app.service.remove_member(caller, backup, member).await?)
}

fn backup(request: &Request) -> Result<BackupId> {
    request.path("backup_id")
}

fn member(request: &Request) -> Result<ProjectId> {
    request.path("member_id")
}

fn response(share: Share) -> Result<MemberResponse> {
    Ok(MemberResponse {
        member: wire(share),
    })
}

fn wire(share: Share) -> Member {
    Member {
        id: share.id,
        backup_id: share.backup,
        dest_project_id: share.member,
        status: share.status,
        vault_id: share.vault,
        image_id: None,
        created_at: share.created_at,
        updated_at: share.updated_at,
    }
}
