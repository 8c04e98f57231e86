//! What was known of a resource when its backup was made, over HTTP: in the
//! forms of the services that would have told it, as far as it is known.

use cairn_api::metadata::MetadataResponse;
use cairn_core::records::Backup;
use cairn_core::{Caller, ResourceMetadata};
use cairn_types::{ByteCount, ResourceType};
use serde_json::{Value, json};

use crate::App;
use crate::convert;
use crate::error::Result;
use crate::request::Request;

pub(crate) async fn show(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<MetadataResponse> {
    let id = request.path("backup_id")?;
    let (view, resource) = app.service.backup_metadata(caller, id).await?;
    let backup = &view.backup;
    let is_volume = resource.resource_type == ResourceType::Volume;
    let volumes: Vec<String> = match is_volume {
        true => vec![volume(backup, &resource, None)],
        false => {
            let disks = resource.disks.iter().enumerate();
            disks
                .map(|(position, disk)| volume(backup, disk, Some((&resource, position))))
                .collect()
        }
    };
    let server = match is_volume {
        true => Value::Null,
        false => server(backup, &resource),
    };
    Ok(MetadataResponse {
        backup_id: backup.id,
        backups: convert::to_json(&convert::backup(&view)?).to_string(),
        // An image has no processors, and no network.
        flavor: json!({ "flavor": null }).to_string(),
        floatingips: Vec::new(),
        interface: json!({ "interfaceAttachments": [] }).to_string(),
        ports: Vec::new(),
        server: json!({ "server": server }).to_string(),
        volumes,
        workspace: None,
    })
}

fn server(backup: &Backup, server: &ResourceMetadata) -> Value {
    let attached = server.disks.iter().map(|disk| json!({ "id": disk.id }));
    json!({
        "id": server.id,
        "name": server.name,
        "tenant_id": backup.project,
        "status": "SHUTOFF",
        "os-extended-volumes:volumes_attached": attached.collect::<Vec<_>>(),
        "metadata": source(server),
    })
}

fn volume(
    backup: &Backup,
    disk: &ResourceMetadata,
    server: Option<(&ResourceMetadata, usize)>,
) -> String {
    let attachments: Vec<Value> = server
        .iter()
        .map(|(server, position)| {
            let letter = char::from(b'a' + u8::try_from(*position % 26).unwrap_or(0));
            json!({
                "id": disk.id,
                "volume_id": disk.id,
                "server_id": server.id,
                "device": format!("/dev/vd{letter}"),
            })
        })
        .collect();
    let volume = json!({
        "id": disk.id,
        "name": disk.name,
        "size": ByteCount(disk.size_bytes).gb_ceil(),
        "size_bytes": disk.size_bytes,
        "bootable": disk.system_disk.to_string(),
        "encrypted": false,
        "status": if attachments.is_empty() { "available" } else { "in-use" },
        "enterprise_project_id": backup.enterprise_project,
        "os-vol-tenant-attr:tenant_id": backup.project,
        "attachments": attachments,
        "metadata": source(disk),
    });
    json!({ "volume": volume }).to_string()
}

/// Where a resource came from, how it was stored and how a server is defined, as far as that was recorded.
fn source(resource: &ResourceMetadata) -> Value {
    let mut known = serde_json::Map::new();
    for (key, value) in [
        ("source", &resource.source),
        ("format", &resource.format),
        ("definition", &resource.definition),
    ] {
        if let Some(value) = value {
            known.insert(key.to_owned(), value.as_str().into());
        }
    }
    Value::Object(known)
}
