//! Files out of backups over HTTP: an extension.

use std::ops::Range;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use cairn_api::file::{
    BackupFile as WireFile, BackupPartition, FetchBackupFileQuery, ListBackupFilesQuery,
    ListBackupFilesResponse, PathText,
};
use cairn_core::{BackupFile, Caller, FILES_MAX, OpenFile};
use cairn_types::tree::{EntryKind, FileTime, read_name, write_name};
use cairn_types::{BackupId, Timestamp};
use futures::stream;
use tokio::sync::OwnedSemaphorePermit;

use crate::App;
use crate::error::{Failure, Result};
use crate::request::Request;

/// Bytes of a file that are read at a time.
const PIECE_BYTES: usize = 1 << 20;

pub(crate) async fn list(
    app: &App,
    caller: &Caller,
    request: &Request,
) -> Result<ListBackupFilesResponse> {
    let backup: BackupId = request.path("backup_id")?;
    let query = ListBackupFilesQuery::parse(request.query())?;
    let path = query.path.map_or_else(String::new, |path| path.0);
    let after = query.marker.map(|marker| name("marker", &marker.0));
    let limit = query.limit.map_or(FILES_MAX, |limit| limit as usize);
    let place = (after.transpose()?, limit);
    let found = app
        .service
        .backup_files(caller, backup, name("path", &path)?, place);
    let found = found.await?;
    let folder = path.trim_end_matches('/').to_owned();
    let files = found.entries.iter().map(|entry| {
        let path = format!("{folder}/{}", write_name(&entry.name));
        file(entry, path)
    });
    Ok(ListBackupFilesResponse {
        backup_id: backup,
        files: files.collect(),
        entry: file(
            &found.entry,
            if folder.is_empty() {
                "/".to_owned()
            } else {
                folder
            },
        ),
        next_marker: found.next.as_deref().map(write_name),
        notes: found.notes,
    })
}

fn name(key: &str, text: &str) -> Result<Vec<u8>> {
    read_name(text).ok_or_else(|| Failure::invalid(key))
}

fn file(entry: &BackupFile, path: String) -> WireFile {
    let metadata = &entry.metadata;
    let partition = entry.partition.as_ref();
    WireFile {
        name: write_name(&entry.name),
        path,
        kind: kind(metadata.kind).to_owned(),
        size_bytes: metadata.size_bytes,
        mode: format!("{:04o}", metadata.mode),
        uid: metadata.uid,
        gid: metadata.gid,
        modified_at: match partition {
            Some(_) => None,
            None => Some(instant(metadata.modified)),
        },
        target: entry.target.as_deref().map(write_name),
        partition: partition.map(|found| BackupPartition {
            content: found.content.to_owned(),
            label: found.label.clone(),
        }),
    }
}

const fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::Socket => "socket",
        EntryKind::CharacterDevice => "character_device",
        EntryKind::BlockDevice => "block_device",
    }
}

/// An instant of a file system. What a guest wrote may lie outside of all calendars.
fn instant(time: FileTime) -> String {
    let seconds = Timestamp::from_micros(time.seconds.saturating_mul(1_000_000));
    match (-60_000_000_000..250_000_000_000).contains(&time.seconds) {
        true => format!(
            "{}.{:09}Z",
            seconds.format("%Y-%m-%dT%H:%M:%S"),
            time.nanoseconds
        ),
        false => format!("@{}.{:09}", time.seconds, time.nanoseconds),
    }
}

/// A file's bytes, or the range of them that is asked for.
pub(crate) async fn fetch(app: &App, caller: &Caller, request: &Request) -> Result<Response> {
    let backup: BackupId = request.path("backup_id")?;
    let query = FetchBackupFileQuery::parse(request.query())?;
    let path = path(query.path)?;
    let place = place(app)?;
    let opened = app.service.open_backup_file(caller, backup, path).await?;
    let size = opened.size_bytes;
    let wanted = wanted(request, size)?;
    let sent = wanted.clone().unwrap_or(0..size);
    Ok(answer(size, wanted, body(opened, sent, place)))
}

/// The path that a query names; the uppermost directory's if it names none.
pub(crate) fn path(path: Option<PathText>) -> Result<Vec<u8>> {
    path.map_or(Ok(Vec::new()), |path| name("path", &path.0))
}

/// A place among those who are sent what is in backups.
pub(crate) fn place(app: &App) -> Result<OwnedSemaphorePermit> {
    let place = Arc::clone(&app.downloads).try_acquire_owned();
    place.map_err(|_| Failure::unavailable("Too many files are fetched at once."))
}

/// The range that a request asks for, if it does.
///
/// Errors: 400 it is none of a file of this size.
pub(crate) fn wanted(request: &Request, size: u64) -> Result<Option<Range<u64>>> {
    match request.header(RANGE.as_str()) {
        Some(text) => {
            let range = range(text, size).ok_or_else(|| Failure::invalid(RANGE.as_str()))?;
            Ok(Some(range))
        }
        None => Ok(None),
    }
}

/// The answer that is all of a file of this size, or a range of it.
pub(crate) fn answer(size: u64, wanted: Option<Range<u64>>, body: Body) -> Response {
    let sent = wanted.clone().unwrap_or(0..size);
    let mut headers = HeaderMap::new();
    let octets = HeaderValue::from_static("application/octet-stream");
    headers.insert(CONTENT_TYPE, octets);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(sent.end - sent.start));
    if let Some(range) = &wanted {
        let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        let told = HeaderValue::from_str(&told).expect("digits are plain text");
        headers.insert(CONTENT_RANGE, told);
    }
    let status = match wanted {
        Some(_) => StatusCode::PARTIAL_CONTENT,
        None => StatusCode::OK,
    };
    (status, headers, body).into_response()
}

/// The one range of bytes that a header names, if it is one of a file of this size.
/// Source: RFC 9110, 14.1.2.
fn range(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|_| digits)
    };
    let range = match (first.is_empty(), last.is_empty()) {
        (true, false) => size.saturating_sub(number(last)?)..size,
        (false, true) => number(first)?..size,
        (false, false) => number(first)?..number(last)?.checked_add(1)?.min(size),
        (true, true) => return None,
    };
    (range.start < range.end).then_some(range)
}

/// The bytes as they are read. An error breaks the connection off: what was sent is
/// too short, and nobody takes it for the file.
fn body(file: OpenFile, range: Range<u64>, place: OwnedSemaphorePermit) -> Body {
    let state = (Arc::new(file), range, place);
    Body::from_stream(stream::try_unfold(
        state,
        |(file, left, place)| async move {
            if left.is_empty() {
                return Ok(None);
            }
            let length = usize::try_from(left.end - left.start).unwrap_or(usize::MAX);
            let (reader, at) = (Arc::clone(&file), left.start);
            let piece = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; length.min(PIECE_BYTES)];
                let read = reader.read_at(at, &mut piece)?;
                piece.truncate(read);
                cairn_core::Result::Ok(piece)
            });
            let piece = piece.await.map_err(std::io::Error::other)?;
            let piece = piece.map_err(std::io::Error::other)?;
            if piece.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let left = left.start + piece.len() as u64..left.end;
            Ok::<_, std::io::Error>(Some((Bytes::from(piece), (file, left, place))))
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_one_of_the_file() {
        for (text, wanted) in [
            ("bytes=0-0", Some(0..1)),
            ("bytes=5-", Some(5..10)),
            ("bytes=5-99", Some(5..10)),
            ("bytes=-3", Some(7..10)),
            ("bytes=-99", Some(0..10)),
            ("bytes=10-", None),
            ("bytes=5-4", None),
            ("bytes=-0", None),
            ("bytes=-", None),
            ("bytes=0-1,3-4", None),
            ("bytes=+1-2", None),
            ("lines=0-1", None),
            ("bytes=99999999999999999999-", None),
        ] {
            assert_eq!(range(text, 10), wanted, "{text}");
        }
        assert_eq!(range("bytes=0-", 0), None);
    }

    #[test]
    fn times_of_any_year_are_told() {
        let at = |seconds| {
            instant(FileTime {
                seconds,
                nanoseconds: 5,
            })
        };
        assert_eq!(at(0), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(-1), "1969-12-31T23:59:59.000000005Z");
        assert_eq!(at(i64::MAX), "@9223372036854775807.000000005");
    }
}
