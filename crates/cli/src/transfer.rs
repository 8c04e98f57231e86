//! A download that goes on by itself when its connection breaks off.

use std::time::Duration;

use cairn_api::Client;
use cairn_api::client::{self, Download};
use cairn_api::download::DownloadBackupQuery;
use cairn_types::{BackupId, FileProblems, Kind};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use crate::Error;

/// How often in a row a connection may break off, or not come about, before there is another byte.
const MISSES_MAX: u32 = 8;
/// The wait before the second attempt; it doubles up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);
/// How long a server may say that it is not ready yet.
const NOT_READY: Duration = Duration::from_secs(3600);
/// The status by which it says so.
const UNAVAILABLE: u16 = 503;

/// What is downloaded, and where from.
pub(crate) struct Wish<'c> {
    pub client: &'c Client,
    pub backup: BackupId,
    pub query: DownloadBackupQuery,
}

impl Wish<'_> {
    /// Whether an answer goes on at a place.
    fn is_next(&self, at: u64, answer: &Download) -> bool {
        match self.query.skip_holes {
            Some(true) => answer.range.start >= at,
            _ => answer.range.start == at,
        }
    }
}

/// A download under way.
pub(crate) struct Transfer<'c> {
    wish: Wish<'c>,
    /// Tells its bytes from all others.
    pub tag: String,
    /// How many there are.
    pub size_bytes: u64,
    /// What is not among them because it cannot be read.
    pub left_out: Option<FileProblems>,
    /// The place of the next.
    pub at: u64,
    answer: Option<Download>,
    misses: u32,
    bar: ProgressBar,
}

impl<'c> Transfer<'c> {
    /// Begins at the start; or near the end of so many bytes with a tag that somebody has already, if
    /// they still have it.
    pub async fn begin(wish: Wish<'c>, had: Option<(u64, &str)>) -> Result<Self, Error> {
        // The last of them once more: there is always one to ask for.
        let go_on = had.map(|(bytes, tag)| (bytes.saturating_sub(1), tag));
        let mut misses = 0;
        let answer = connect(&wish, go_on, &mut misses).await?;
        // Who has a part of something else gets all of this.
        let same = go_on.filter(|(_, tag)| *tag == answer.tag);
        if !wish.is_next(same.map_or(0, |(at, _)| at), &answer) {
            return Err(Error::OtherBytes);
        }
        Ok(Self {
            bar: bar(answer.size_bytes, answer.range.start),
            wish,
            tag: answer.tag.clone(),
            size_bytes: answer.size_bytes,
            left_out: answer.left_out.clone(),
            at: answer.range.start,
            answer: Some(answer),
            misses,
        })
    }

    /// The next bytes, with their place; nothing at the end. Where holes are skipped, all between
    /// two of them is zero.
    pub async fn next(&mut self) -> Result<Option<(u64, impl AsRef<[u8]> + Send + use<>)>, Error> {
        while self.at < self.size_bytes {
            let answer = match &mut self.answer {
                Some(answer) => answer,
                none => {
                    let go_on = Some((self.at, self.tag.as_str()));
                    let answer = connect(&self.wish, go_on, &mut self.misses).await?;
                    if answer.tag != self.tag || !self.wish.is_next(self.at, &answer) {
                        return Err(Error::OtherBytes);
                    }
                    self.at = answer.range.start;
                    none.insert(answer)
                }
            };
            match answer.next().await {
                Ok(Some(bytes)) => {
                    self.misses = 0;
                    let offset = self.at;
                    self.at += bytes.len() as u64;
                    self.bar.set_position(self.at);
                    if self.at > answer.range.end {
                        return Err(Error::OtherBytes);
                    }
                    return Ok(Some((offset, bytes)));
                }
                // What comes next is behind a hole.
                Ok(None) if self.at == answer.range.end => {}
                Ok(None) => miss(&mut self.misses, None).await?,
                Err(error) => miss(&mut self.misses, Some(error)).await?,
            }
            self.answer = None;
        }
        self.bar.finish_and_clear();
        Ok(None)
    }
}

/// Asks for the bytes from a place on, until a server has them ready.
async fn connect(
    wish: &Wish<'_>,
    go_on: Option<(u64, &str)>,
    misses: &mut u32,
) -> Result<Download, Error> {
    let until = Instant::now() + NOT_READY;
    loop {
        let begun = wish.client.download_backup(wish.backup, &wish.query, go_on);
        match begun.await {
            Ok(download) => return Ok(download),
            Err(client::Error::Service { status, .. })
                if status == UNAVAILABLE && Instant::now() < until =>
            {
                tokio::time::sleep(LONGEST_WAIT / 8).await;
            }
            Err(error) if error.kind() == Kind::Transient => miss(misses, Some(error)).await?,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits before another attempt, if there may be one.
async fn miss(misses: &mut u32, error: Option<client::Error>) -> Result<(), Error> {
    *misses += 1;
    if *misses == MISSES_MAX {
        let broken = std::io::ErrorKind::UnexpectedEof;
        return Err(error.map_or_else(|| Error::Connection(broken.into()), Error::from));
    }
    let wait = FIRST_WAIT * 2_u32.pow(*misses - 1);
    tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
    Ok(())
}

/// A bar on standard error, where that is a terminal.
fn bar(size_bytes: u64, at: u64) -> ProgressBar {
    let style = "{bar:40} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta}";
    let style = ProgressStyle::with_template(style).expect("the form above is right");
    let bar = ProgressBar::new(size_bytes)
        .with_position(at)
        .with_style(style);
    bar.reset_eta();
    bar
}
