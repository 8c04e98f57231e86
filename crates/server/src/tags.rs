//! Tags of vaults over HTTP.

use cairn_api::tag::{
    BatchTagsRequest, CreateVaultTagsRequest, ENTERPRISE_PROJECT_TAG, ProjectTagsResponse,
    SearchByTagsQuery, SearchByTagsRequest, SearchByTagsResponse, SysTag, TagValues, TaggedVault,
    TaggedVaultDetail, VaultTagsResponse,
};
use cairn_api::{Invalid, TagAction, TagSearchAction};
use cairn_core::records::{Page, Vault, VaultFilter};
use cairn_core::{Caller, Refusal, TagCondition, TagQuery, ValuePattern, VaultView};
use cairn_types::VaultId;

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;
use crate::vaults::ALL_ENTERPRISE_PROJECTS;

/// The key of which the path of a deletion is that of a batch as well.
const KEY_LIKE_A_BATCH: &str = "action";
/// What a value that is only a part begins with.
const PART: char = '*';

pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<VaultTagsResponse> {
    let vault = app.service.vault_with_tags(caller, id(request)?).await?;
    Ok(VaultTagsResponse {
        tags: vault.tags.iter().map(convert::tag).collect(),
        sys_tags: vec![system_tag(&vault)],
    })
}

pub(crate) async fn show_all(app: &App, caller: &Caller) -> Result<ProjectTagsResponse> {
    let keys = app.service.project_tags(caller).await?.into_iter();
    let tags = keys.map(|(key, values)| TagValues {
        key,
        values: values.into_iter().collect(),
    });
    Ok(ProjectTagsResponse {
        tags: tags.collect(),
    })
}

pub(crate) async fn create(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    let id = id(request)?;
    let body: CreateVaultTagsRequest = request.json()?;
    let tags = vec![convert::stored_tag(body.tag)];
    Ok(app.service.add_tags(caller, id, tags).await?)
}

pub(crate) async fn batch(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    let id = id(request)?;
    let body: BatchTagsRequest = request.json()?;
    // Only other services of the cloud set system tags.
    if body.sys_tags.is_some() {
        return Err(Refusal::NotAllowed.into());
    }
    let tags = body.tags.unwrap_or_default().into_iter();
    let tags = tags.map(convert::stored_tag);
    match body.action {
        TagAction::Create => app.service.add_tags(caller, id, tags.collect()).await?,
        TagAction::Delete => {
            let keys: Vec<String> = tags.map(|tag| tag.key).collect();
            app.service.remove_tags(caller, id, &keys).await?;
        }
    }
    Ok(())
}

pub(crate) async fn delete(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    let id = id(request)?;
    let key: String = request.path("key")?;
    let key = match key.as_str() {
        "" => KEY_LIKE_A_BATCH,
        key => key.trim(),
    };
    if key.is_empty() {
        return Err(Invalid::key("key").into());
    }
    Ok(app.service.remove_tag(caller, id, key).await?)
}

pub(crate) async fn search(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<SearchByTagsResponse> {
    let query = SearchByTagsQuery::parse(request.query())?;
    let body: SearchByTagsRequest = request.json()?;
    let name = body.matches.iter().flatten().next().map(|one| &one.value);
    let filter = VaultFilter {
        name: name.cloned(),
        object_type: body.object_type.map(|word| word.to_string()),
        cloud_type: body.cloud_type.map(|word| word.to_string()),
        enterprise_project: query
            .enterprise_project_id
            .filter(|project| project != ALL_ENTERPRISE_PROJECTS),
        ..VaultFilter::default()
    };
    let page = Page {
        limit: body.limit.unwrap_or(cairn_api::page::MAX_LIMIT),
        offset: body.offset.unwrap_or(0).into(),
        marker: None,
    };
    let shown = body.action == TagSearchAction::Filter;
    // To match an empty name is to match it exactly, and no vault has one.
    if name.is_some_and(String::is_empty) {
        return Ok(SearchByTagsResponse {
            resources: shown.then(Vec::new),
            total_count: 0,
        });
    }
    let (found, total_count) = app
        .service
        .vaults_by_tags(caller, &filter, &tag_query(body), shown.then_some(&page))
        .await?;
    let resources: Result<Vec<_>> = found.iter().map(tagged_vault).collect();
    Ok(SearchByTagsResponse {
        resources: shown.then_some(resources?),
        total_count,
    })
}

fn id(request: &Request) -> Result<VaultId> {
    request.path("vault_id")
}

fn tag_query(body: SearchByTagsRequest) -> TagQuery {
    let system = body.sys_tags.into_iter().flatten();
    TagQuery {
        tags: conditions(body.tags),
        tags_any: conditions(body.tags_any),
        not_tags: conditions(body.not_tags),
        not_tags_any: conditions(body.not_tags_any),
        without_any_tag: body.without_any_tag.unwrap_or(false),
        enterprise_projects: system.flat_map(|tag| tag.values).collect(),
    }
}

fn conditions(list: Option<Vec<TagValues>>) -> Vec<TagCondition> {
    let list = list.unwrap_or_default().into_iter();
    list.map(|tag| TagCondition {
        key: tag.key.trim().to_owned(),
        values: tag
            .values
            .iter()
            .map(|value| pattern(value.trim()))
            .collect(),
    })
    .collect()
}

fn pattern(value: &str) -> ValuePattern {
    match value.strip_prefix(PART) {
        Some(part) => ValuePattern::Contains(part.to_owned()),
        None => ValuePattern::Is(value.to_owned()),
    }
}

fn tagged_vault(view: &VaultView) -> Result<TaggedVault> {
    let vault = &view.vault;
    Ok(TaggedVault {
        resource_id: vault.id,
        resource_name: vault.name.clone(),
        resource_detail: TaggedVaultDetail {
            vault: convert::vault(view)?,
        },
        tags: vault.tags.iter().map(convert::tag).collect(),
        sys_tags: vec![system_tag(vault)],
    })
}

fn system_tag(vault: &Vault) -> SysTag {
    SysTag {
        key: ENTERPRISE_PROJECT_TAG.to_owned(),
        value: vault.enterprise_project.clone(),
    }
}
