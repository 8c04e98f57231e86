//! The chain: how a line's code follows from the line before.

use aws_lc_rs::hmac;

/// A line's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code(pub(crate) [u8; 32]);

/// What comes before the first line.
pub(crate) const BEGINNING: Code = Code([0; 32]);
/// The bytes before a line's code, between it and its trace, and behind that.
const PARTS: [&str; 3] = [r#"{"code":""#, r#"","trace":"#, "}"];
/// The digits of a code.
const DIGITS: usize = 64;

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// The key of the chain.
pub struct TrailKey(hmac::Key);

impl TrailKey {
    /// The key of these bytes.
    pub fn new(bytes: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// The code of a trace's text behind a line with the code `before`.
    pub(crate) fn code(&self, before: Code, trace: &[u8]) -> Code {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(&before.0);
        context.update(trace);
        let tag = context.sign();
        Code(tag.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// Writes a trace's text as a line behind a line with the code `before`; its own code.
    pub(crate) fn write(&self, before: Code, trace: &str, lines: &mut String) -> Code {
        let code = self.code(before, trace.as_bytes());
        let [start, middle, end] = PARTS;
        for part in [start, &code.to_string(), middle, trace, end, "\n"] {
            lines.push_str(part);
        }
        code
    }
}

/// Takes a line apart, without its end: its code and its trace's text.
pub(crate) fn read(line: &[u8]) -> Option<(Code, &[u8])> {
    let [start, middle, end] = PARTS.map(str::as_bytes);
    let rest = line.strip_prefix(start)?;
    let (digits, rest) = rest.split_at_checked(DIGITS)?;
    let trace = rest.strip_prefix(middle)?.strip_suffix(end)?;
    let mut code = [0; 32];
    hex::decode_to_slice(digits, &mut code).ok()?;
    Some((Code(code), trace))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_reads_back_and_follows_from_the_one_before() {
        let key = TrailKey::new(&[7; 32]);
        let mut lines = String::new();
        let first = key.write(BEGINNING, r#"{"a":1}"#, &mut lines);
        let second = key.write(first, r#"{"a":1}"#, &mut lines);
        assert_ne!(first, second);
        let read: Vec<_> = lines
            .lines()
            .map(|line| read(line.as_bytes()).unwrap())
            .collect();
        assert_eq!(read, [(first, &br#"{"a":1}"#[..]), (second, br#"{"a":1}"#)]);
    }

    #[test]
    fn what_is_no_line_is_not_read() {
        for line in ["", "{}", r#"{"code":"00","trace":{}}"#, "x"] {
            assert!(read(line.as_bytes()).is_none(), "{line}");
        }
    }
}
