//! Downloads: answers that are read as they come.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use cairn_types::{BackupId, FileProblems};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{Client, Error, Request, Result};
use crate::Operation;
use crate::download::{DownloadBackupQuery, LEFT_OUT_HEADER, read_left_out};

/// How long a server may say nothing while it answers.
pub const SILENCE_TIMEOUT: Duration = Duration::from_secs(120);

/// A download that has begun.
pub struct Download {
    /// Tells these bytes from all others.
    pub tag: String,
    /// Which bytes come: from the start on, if they are others than those that were asked for; fewer
    /// than were asked for, if holes are skipped.
    pub range: Range<u64>,
    /// How long it is with all that does not come.
    pub size_bytes: u64,
    /// What is not in it because it cannot be read.
    pub left_out: Option<FileProblems>,
    client: Client,
    answer: reqwest::Response,
}

impl Download {
    /// The next bytes; nothing at the end.
    ///
    /// Errors: `Transient` the connection broke off, or too little came by it.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let next = self.answer.chunk().await;
        next.map_err(|source| self.client.unreachable(source))
    }
}

impl Client {
    /// Begins to download a backup: from the start, or from an offset on if it still has the tag.
    pub async fn download_backup(
        &self,
        backup_id: BackupId,
        query: &DownloadBackupQuery,
        go_on: Option<(u64, &str)>,
    ) -> Result<Download> {
        let parameters: &[(&str, &str)] = &[("backup_id", &backup_id.to_string())];
        let operation = Operation::DownloadBackup;
        let request = Request::new(operation, parameters).query(query.write());
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| Error::NoDownload);
        let mut headers = Vec::new();
        if let Some((offset, tag)) = go_on {
            headers.push((header::RANGE, value(&format!("bytes={offset}-"))?));
            headers.push((header::IF_RANGE, value(tag)?));
        }
        let answer = self.ask_by(&self.streams, request, headers).await?;
        if !answer.status().is_success() {
            self.receive(operation, answer).await?;
            return Err(Error::NoDownload);
        }
        let told = read_headers(answer.status(), answer.headers());
        let (tag, range, size_bytes) = told.ok_or(Error::NoDownload)?;
        let left_out = match answer.headers().get(LEFT_OUT_HEADER) {
            Some(value) => {
                let read = value.to_str().ok().and_then(read_left_out);
                Some(read.ok_or(Error::NoDownload)?)
            }
            None => None,
        };
        Ok(Download {
            tag,
            range,
            size_bytes,
            left_out,
            client: self.clone(),
            answer,
        })
    }
}

/// The tag, which bytes come, and how many there are in all.
fn read_headers(status: StatusCode, headers: &HeaderMap) -> Option<(String, Range<u64>, u64)> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let tag = text(header::ETAG)?.to_owned();
    if status != StatusCode::PARTIAL_CONTENT {
        let size_bytes = text(header::CONTENT_LENGTH)?.parse().ok()?;
        return Some((tag, 0..size_bytes, size_bytes));
    }
    let range = text(header::CONTENT_RANGE)?.strip_prefix("bytes ")?;
    let (range, size_bytes) = range.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let range = first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?;
    let size_bytes = size_bytes.parse().ok()?;
    let is_part = range.start < range.end && range.end <= size_bytes;
    is_part.then_some((tag, range, size_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_which_bytes_come() {
        let read = |status, pairs: &[(&str, &str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
                (name, HeaderValue::from_str(value).unwrap())
            });
            read_headers(StatusCode::from_u16(status).unwrap(), &pairs.collect())
        };
        let tag = ("etag", "\"a\"");
        let whole = read(200, &[tag, ("content-length", "9")]);
        assert_eq!(whole, Some(("\"a\"".to_owned(), 0..9, 9)));
        let part = read(206, &[tag, ("content-range", "bytes 5-8/9")]);
        assert_eq!(part, Some(("\"a\"".to_owned(), 5..9, 9)));
        assert_eq!(read(200, &[("content-length", "9")]), None);
        for wrong in ["bytes 5-8/*", "bytes 5-9/9", "bytes 5-4/9"] {
            assert_eq!(read(206, &[tag, ("content-range", wrong)]), None, "{wrong}");
        }
    }
}
