//! Reading a trail from its first line to its last, and believing nothing.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::str::FromStr;

use crate::chain::{BEGINNING, read};
use crate::{Code, Error, Result, Trace, TrailKey, folder};

/// The longest line that a trail can hold: far more than a request's target.
const MAX_LINE: usize = 1 << 20;

/// The newest line of a trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head(Code);

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Head {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let mut code = [0; 32];
        hex::decode_to_slice(text.trim(), &mut code)?;
        Ok(Self(Code(code)))
    }
}

/// A trail whose every line is as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// How many traces there are.
    pub traces: u64,
    /// The newest one's code.
    pub head: Head,
    /// Whether the end of the newest file is a line that was never finished, as
    /// a power cut leaves it. Nobody was told that it was written.
    pub torn_end: bool,
}

/// Checks the whole trail in `folder`; if a head of an earlier check is given,
/// that it is still part of it. Each trace is handed to `seen`.
///
/// Errors: `Corrupt`, naming the file and line where the chain breaks.
pub fn verify(
    folder: &Path,
    key: &TrailKey,
    kept: Option<Head>,
    mut seen: impl FnMut(Trace),
) -> Result<Verified> {
    let mut found = kept.is_none_or(|head| head.0 == BEGINNING);
    let (mut code, mut traces, mut torn_end) = (BEGINNING, 0, false);
    let newest = folder::newest(folder)?;
    for number in 1..=newest {
        let path = folder::path(folder, number);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(_) if newest > 1 && !path.exists() => return Err(Error::Missing { path }),
            Err(error) => return Err(Error::file("open", &path)(error)),
        };
        let mut lines = Lines::new(&path, file);
        while let Some(line) = lines.next()? {
            let Some(line) = line.strip_suffix(b"\n") else {
                torn_end = number == newest;
                if torn_end {
                    break;
                }
                return Err(lines.broken("it has no end"));
            };
            let (own, text) = read(line).ok_or_else(|| lines.broken("it is no line of a trail"))?;
            if own != key.code(code, text) {
                return Err(lines.broken("it does not follow from the line before"));
            }
            let trace = serde_json::from_slice(text);
            seen(trace.map_err(|_| lines.broken("it holds no trace"))?);
            code = own;
            traces += 1;
            found |= kept == Some(Head(code));
        }
    }
    match kept {
        Some(head) if !found => Err(Error::HeadGone {
            head: head.to_string(),
        }),
        _ => Ok(Verified {
            traces,
            head: Head(code),
            torn_end,
        }),
    }
}

/// The lines of one file, with their ends, counted.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    line: Vec<u8>,
    number: u64,
}

impl<'a> Lines<'a> {
    fn new(path: &'a Path, file: File) -> Self {
        Self {
            path,
            reader: BufReader::new(file),
            line: Vec::new(),
            number: 0,
        }
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>> {
        use std::io::Read;

        self.line.clear();
        self.number += 1;
        let mut limited = (&mut self.reader).take(MAX_LINE as u64);
        let read = limited.read_until(b'\n', &mut self.line);
        let read = read.map_err(Error::file("read", self.path))?;
        if read == MAX_LINE {
            return Err(self.broken("it is too long"));
        }
        Ok((read > 0).then(|| self.line.clone()))
    }

    fn broken(&self, problem: &'static str) -> Error {
        Error::Broken {
            path: self.path.to_owned(),
            line: self.number,
            problem,
        }
    }
}
