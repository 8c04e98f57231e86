//! Whole backups, and directories in them, over HTTP: an extension.

use std::ops::Range;

use axum::body::{Body, Bytes};
use axum::http::header::{CONTENT_DISPOSITION, ETAG, HeaderName, HeaderValue, IF_RANGE};
use axum::response::Response;
use cairn_api::download::{DownloadBackupQuery, LEFT_OUT_HEADER, write_left_out};
use cairn_api::query;
use cairn_core::{Caller, Download, Pieces};
use cairn_types::BackupId;
use futures::{TryStreamExt, stream};
use tokio::sync::OwnedSemaphorePermit;

use crate::App;
use crate::error::{Failure, Result};
use crate::files;
use crate::request::Request;

/// Pieces that are read at the same time, for one who downloads.
const AHEAD: usize = 4;

/// A backup's bytes, or the range of them that is asked for.
pub(crate) async fn download(app: &App, caller: &Caller, request: &Request) -> Result<Response> {
    let backup: BackupId = request.path("backup_id")?;
    let query = DownloadBackupQuery::parse(request.query())?;
    let format = query.format.ok_or_else(|| Failure::invalid("format"))?;
    let path = files::path(query.path)?;
    let place = files::place(app)?;
    let service = &app.service;
    let download = service.open_download(caller, backup, format, path).await?;
    let size = download.size_bytes;
    let tag = format!("\"{}\"", download.tag);
    // Who has a part of something else gets all of this.
    let wanted = match request.header(IF_RANGE.as_str()) {
        Some(other) if other != tag => None,
        _ => files::wanted(request, size)?,
    };
    let wanted = match query.skip_holes {
        Some(true) if size > 0 => Some(download.next_run(wanted.unwrap_or(0..size)).await?),
        _ => wanted,
    };
    let sent = wanted.clone().unwrap_or(0..size);
    let name = disposition(&download.file_name);
    let mut response = files::answer(size, wanted, body(&download, sent, place));
    let headers = response.headers_mut();
    let plain = |text: &str| HeaderValue::from_str(text).expect("it is written in ASCII");
    headers.insert(ETAG, plain(&tag));
    headers.insert(CONTENT_DISPOSITION, plain(&name));
    if let Some(problems) = &download.left_out {
        let name = HeaderName::from_static(LEFT_OUT_HEADER);
        headers.insert(name, plain(&write_left_out(problems)));
    }
    Ok(response)
}

/// What a browser is told to call the file. Source: RFC 6266, appendix D.
fn disposition(name: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_. ".contains(c);
    let plain: String = name
        .chars()
        .map(|c| if is_plain(c) { c } else { '_' })
        .collect();
    let exact = query::encode(name);
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

/// The bytes as they are read, some pieces ahead. An error breaks the connection off: what was
/// sent is too short, and nobody takes it for all.
fn body(download: &Download, range: Range<u64>, place: OwnedSemaphorePermit) -> Body {
    let state = (download.pieces(range), place);
    let pieces = stream::try_unfold(state, |(pieces, place)| async move {
        let (pieces, piece) = off_thread(move || next(pieces)).await?;
        Ok(piece.map(|piece| (piece, (pieces, place))))
    });
    let read = pieces.map_ok(|piece| off_thread(move || piece.read().map(Bytes::from)));
    Body::from_stream(read.try_buffered(AHEAD))
}

fn next(mut pieces: Pieces) -> cairn_core::Result<(Pieces, Option<cairn_core::Piece>)> {
    let piece = pieces.next_piece()?;
    Ok((pieces, piece))
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> cairn_core::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(std::io::Error::other)?;
    done.map_err(|error| {
        tracing::error!(
            error = &error as &(dyn std::error::Error + 'static),
            "a download broke off"
        );
        std::io::Error::other(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_is_told_to_a_browser() {
        for (name, wanted) in [
            (
                "disk.img",
                "filename=\"disk.img\"; filename*=UTF-8''disk.img",
            ),
            (
                "a\"\r\nb",
                "filename=\"a___b\"; filename*=UTF-8''a%22%0D%0Ab",
            ),
            ("ü.tar", "filename=\"_.tar\"; filename*=UTF-8''%C3%BC.tar"),
        ] {
            assert_eq!(disposition(name), format!("attachment; {wanted}"));
        }
    }
}
