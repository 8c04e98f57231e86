//! Exports over HTTP: an extension. A connection to one is upgraded to the
//! Network Block Device protocol, which `crates/nbd` speaks.

use axum::http::HeaderMap;
use axum::response::Response;
use cairn_api::export::{
    CreateExportRequest, Export as WireExport, ExportResponse, ListExportsResponse, PROTOCOL,
};
use cairn_core::{Caller, ExportView};
use cairn_types::ExportId;
use hyper_util::rt::TokioIo;

use crate::App;
use crate::error::Result;
use crate::request::Request;
use crate::upgrade;

pub(crate) async fn create(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ExportResponse> {
    let backup = request.path("backup_id")?;
    let wish = request.json::<CreateExportRequest>()?.export;
    let made = app.service.create_export(caller, backup, wish.writable);
    Ok(ExportResponse {
        export: export(made.await?),
    })
}

pub(crate) async fn list(app: &App, caller: &Caller) -> Result<ListExportsResponse> {
    let exports = app.service.list_exports(caller);
    let count = exports.len() as u64;
    Ok(ListExportsResponse {
        exports: exports.into_iter().map(export).collect(),
        count,
    })
}

pub(crate) async fn show(app: &App, caller: &Caller, request: &Request) -> Result<ExportResponse> {
    let id = request.path("export_id")?;
    Ok(ExportResponse {
        export: export(app.service.show_export(caller, id)?),
    })
}

pub(crate) async fn end(app: &App, caller: &Caller, request: &Request) -> Result<()> {
    let id = request.path("export_id")?;
    Ok(app.service.end_export(caller, id)?)
}

/// Makes the request's connection one to the export's disk.
pub(crate) async fn connect(app: &App, caller: &Caller, request: &Request) -> Result<Response> {
    let id: ExportId = request.path("export_id")?;
    let upgrade = upgrade::asked(request, PROTOCOL)?;
    let connection = app.service.connect_export(caller, id)?;
    app.calls.spawn(async move {
        let serving = async {
            let stream = upgrade.await.map_err(std::io::Error::other)?;
            cairn_nbd::serve(TokioIo::new(stream), connection.disk()).await
        };
        tokio::select! {
            served = serving => {
                if let Err(error) = served {
                    tracing::info!(export.id = %id, %error, "A connection to an export has ended.");
                }
            }
            () = connection.ended() => {}
        }
    });
    Ok(upgrade::switched(PROTOCOL, HeaderMap::new()))
}

fn export(view: ExportView) -> WireExport {
    WireExport {
        id: view.id,
        backup_id: view.backup,
        resource_name: view.resource_name,
        size_bytes: view.size_bytes,
        writable: view.writable,
        written_bytes: view.written_bytes,
        connections: view.connections as u64,
        created_at: view.created_at,
    }
}
