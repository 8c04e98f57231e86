//! Where results go: a table or the API's own objects.

use std::io::{BufWriter, Write};

use cairn_types::{BYTES_PER_GB, BYTES_PER_MB, FileProblems, Timestamp};
use serde::Serialize;

use crate::table::pairs;
use crate::{Error, Format};

/// Prints results in one of the formats.
pub(crate) struct Printer {
    format: Format,
    out: BufWriter<Box<dyn Write + Send>>,
}

impl Printer {
    pub(crate) fn new(format: Format, out: Box<dyn Write + Send>) -> Self {
        let out = BufWriter::new(out);
        Self { format, out }
    }

    /// Prints a result: `object` for programs, `text` for people.
    pub(crate) fn print(
        &mut self,
        object: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut self.out, object)
                    .map_err(std::io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
            Format::Table => self.out.write_all(text().as_bytes())?,
        }
        Ok(self.out.flush()?)
    }

    /// Prints a sentence for people; programs go by the exit code.
    pub(crate) fn say(&mut self, sentence: &str) -> Result<(), Error> {
        if self.format == Format::Table {
            writeln!(self.out, "{sentence}")?;
            self.out.flush()?;
        }
        Ok(())
    }
}

/// Why a backup is crash consistent that was to be of applications at rest: nothing, if it is.
pub(crate) fn not_at_rest(of: &str, why: Option<&str>) -> String {
    let Some(why) = why else {
        return String::new();
    };
    let why = format!("the applications of {of} were not brought to rest, or to go on: {why}");
    format!("\n{}", pairs(&[("crash consistent", why)]))
}

/// Which entries of a tree of files are not as they were: nothing, if all are.
pub(crate) fn file_problems(of: &str, found: Option<&FileProblems>) -> String {
    let Some(problems) = found else {
        return String::new();
    };
    let count = problems.count;
    format!("\nnot as they were, of the files of {of}: {count}\n") + &named(problems, "  ")
}

/// The problems that are named, one a line, and how many more there are.
fn named(problems: &FileProblems, indent: &str) -> String {
    let lines = problems.first.iter();
    let mut text: String = lines.map(|one| format!("{indent}{one}\n")).collect();
    let more = problems.count.saturating_sub(problems.first.len() as u64);
    if more > 0 {
        text.push_str(&format!("{indent}and {more} more\n"));
    }
    text
}

/// Ends a command that got everything but what the backup itself does not give, which is named.
pub(crate) fn whole_or(left_out: Option<FileProblems>) -> Result<(), Error> {
    let Some(problems) = left_out else {
        return Ok(());
    };
    eprint!("{}", named(&problems, ""));
    Err(Error::LeftOut { problems })
}

/// A size of so many GB.
pub(crate) fn gb(size: u64) -> String {
    format!("{size} GB")
}

/// A size of so many MB, in the unit that suits it.
pub(crate) fn mb(size: u64) -> String {
    bytes(size.saturating_mul(BYTES_PER_MB))
}

/// A size in the unit that suits it. Units are CBR's, powers of 1024.
pub(crate) fn bytes(size: u64) -> String {
    let (unit, name) = match size {
        BYTES_PER_GB.. => (BYTES_PER_GB, "GB"),
        BYTES_PER_MB.. => (BYTES_PER_MB, "MB"),
        1024.. => (1024, "KB"),
        _ => return format!("{size} B"),
    };
    let tenths = u128::from(size) * 10 / u128::from(unit);
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// An instant, to the second, or nothing.
pub(crate) fn time(instant: Option<Timestamp>) -> String {
    instant
        .map(|instant| instant.format("%Y-%m-%d %H:%M:%S"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(gb(40), "40 GB");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KB");
        assert_eq!(mb(1), "1.0 MB");
        assert_eq!(mb(2560), "2.5 GB");
        assert_eq!(mb(u64::MAX), "17179869183.9 GB");
    }

    #[test]
    fn instants_are_shown_to_the_second() {
        assert_eq!(
            time(Some(Timestamp::from_micros(1_557_475_152_733_403))),
            "2019-05-10 07:59:12"
        );
        assert_eq!(time(None), "");
    }
}
