//! Change files: what another program (a storage system's snapshot difference,
//! a hypervisor) has written down beside an image, `disk.img.changes` for
//! `disk.img`. `docs/CHANGE-FILES.md` describes the format for those who write one.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};

use cairn_types::disk::{NoChangeMap, Point};

use super::RANGES_MAX;
use crate::raw::open_data;

/// What the first line says.
const TITLE: &str = "cairn-changes 1";
/// Bytes of a change file at most.
const BYTES_MAX: u64 = 64 << 20;
/// Goes before the names in points, so that no other kind of point has the same.
const PREFIX: &str = "file:";

/// A change file, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangeFile {
    /// The state that its changes count from, if they count from one.
    from: Option<Point>,
    /// The state that the image is in.
    pub(crate) to: Point,
    changes: Vec<Range<u64>>,
}

impl ChangeFile {
    /// Reads the change file of the image at `path`, if it has one.
    ///
    /// Errors: why the one that it has cannot be used.
    pub(crate) fn find(
        path: &Path,
        image: &File,
        size_bytes: u64,
    ) -> Result<Option<Self>, NoChangeMap> {
        let failed = |error: io::Error| NoChangeMap(format!("its change file: {error}"));
        let file = match open_data(&path_of(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let (metadata, image) = (
            file.metadata().map_err(failed)?,
            image.metadata().map_err(failed)?,
        );
        if !metadata.is_file() || metadata.len() > BYTES_MAX {
            let why = format!("its change file is no file of at most {BYTES_MAX} bytes");
            return Err(NoChangeMap(why));
        }
        let is_older = metadata.modified().map_err(failed)? < image.modified().map_err(failed)?;
        if !image.is_file() {
            // Nothing would tell that it was written to since.
            let why = "change files are not used for block devices";
            return Err(NoChangeMap(why.to_owned()));
        }
        if is_older {
            let why = "the image was written to after its change file";
            return Err(NoChangeMap(why.to_owned()));
        }
        let mut text = String::new();
        file.take(BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(failed)?;
        let read = Self::read(&text, size_bytes);
        read.map(Some)
            .map_err(|(line, why)| NoChangeMap(format!("its change file, line {line}: {why}")))
    }

    /// Reads a change file's text. An error has the number of the line, from 1.
    fn read(text: &str, size_bytes: u64) -> Result<Self, (usize, &'static str)> {
        let mut lines = Lines {
            rest: text,
            line: 0,
        };
        let at = |lines: &Lines<'_>, why| (lines.line, why);
        if lines.next()? != TITLE {
            return Err(at(&lines, "it does not begin with \"cairn-changes 1\""));
        }
        let from = match lines.value("from ")? {
            "-" => None,
            name => Some(point(name).ok_or(at(&lines, BAD_NAME))?),
        };
        let to = point(lines.value("to ")?).ok_or(at(&lines, BAD_NAME))?;
        let size = number(lines.value("size ")?).ok_or(at(&lines, "this is no size"))?;
        if size != size_bytes {
            return Err(at(&lines, "the disk has another size"));
        }
        let mut changes: Vec<Range<u64>> = Vec::new();
        loop {
            let line = lines.next()?;
            if line == "end" {
                break;
            }
            let range = range(line).ok_or(at(&lines, "this is no offset and length"))?;
            let start = changes.last().map_or(0, |last| last.end);
            if range.start < start || range.end > size_bytes {
                return Err(at(&lines, "the range is out of order or behind the end"));
            }
            if changes.len() == RANGES_MAX {
                return Err(at(&lines, "there are too many ranges"));
            }
            changes.push(range);
        }
        if from.is_none() && !changes.is_empty() {
            return Err(at(&lines, "changes count from no state"));
        }
        match lines.rest {
            "" => Ok(Self { from, to, changes }),
            _ => Err(at(&lines, "something follows the end")),
        }
    }

    /// As [`DiskReader::changes_since`](cairn_types::disk::DiskReader::changes_since).
    pub(crate) fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        if self.from.as_ref() == Some(earlier) {
            return Ok(self.changes.clone());
        }
        let why = "its change file does not count from the earlier backup";
        Err(NoChangeMap(why.to_owned()))
    }
}

const BAD_NAME: &str = "a name has 1 to 100 visible ASCII characters";

/// Where the change file of an image lies.
fn path_of(image: &Path) -> PathBuf {
    let mut path = image.as_os_str().to_owned();
    path.push(".changes");
    path.into()
}

fn point(name: &str) -> Option<Point> {
    let fits = name != "-" && (1..=100).contains(&name.len());
    Point::new(&format!("{PREFIX}{name}")).filter(|_| fits)
}

fn range(line: &str) -> Option<Range<u64>> {
    let (offset, length) = line.split_once(' ')?;
    let (offset, length) = (number(offset)?, number(length)?);
    let end = offset.checked_add(length)?;
    (length > 0).then_some(offset..end)
}

/// A number in decimal digits and nothing else.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The lines of a text, each of which must be ended.
struct Lines<'t> {
    rest: &'t str,
    line: usize,
}

impl<'t> Lines<'t> {
    fn next(&mut self) -> Result<&'t str, (usize, &'static str)> {
        self.line += 1;
        let (line, rest) = self
            .rest
            .split_once('\n')
            .ok_or((self.line, "the file is cut short"))?;
        self.rest = rest;
        Ok(line)
    }

    /// What follows these words in the next line.
    fn value(&mut self, words: &str) -> Result<&'t str, (usize, &'static str)> {
        let line = self.next()?;
        line.strip_prefix(words)
            .ok_or((self.line, "the line is not the one that belongs here"))
    }
}

#[cfg(test)]
#[path = "file/tests.rs"]
mod tests;
