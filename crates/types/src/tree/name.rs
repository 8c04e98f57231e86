//! Names as text: what is not printable text is written `\xNN`, a backslash `\\`. Paths are
//! written and read so too.

/// Writes bytes of names as text.
pub fn write_name(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\\' => text.push_str("\\\\"),
                c if c.is_control() => {
                    let mut bytes = [0; 4];
                    push_bytes(&mut text, c.encode_utf8(&mut bytes).as_bytes());
                }
                c => text.push(c),
            }
        }
        push_bytes(&mut text, chunk.invalid());
    }
    text
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("\\x{byte:02x}"));
    }
}

/// Reads what [`write_name`] writes; nothing, if it is none.
pub fn read_name(text: &str) -> Option<Vec<u8>> {
    let mut name = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let (before, escape) = rest.split_at(at);
        name.extend_from_slice(before.as_bytes());
        if let Some(after) = escape.strip_prefix("\\\\") {
            name.push(b'\\');
            rest = after;
            continue;
        }
        let digits = escape.strip_prefix("\\x")?.get(..2)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        name.push(u8::from_str_radix(digits, 16).ok().filter(|_| plain)?);
        rest = &escape[4..];
    }
    name.extend_from_slice(rest.as_bytes());
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_can_be_written_and_read() {
        for (name, text) in [
            (&b"plain"[..], "plain"),
            ("ümlaut €".as_bytes(), "ümlaut €"),
            (b"a\\b", "a\\\\b"),
            (b"\xff\xfe", "\\xff\\xfe"),
            (b"line\nbreak", "line\\x0abreak"),
            (b"", ""),
        ] {
            assert_eq!(write_name(name), text);
            assert_eq!(read_name(text).as_deref(), Some(name));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(read_name(&write_name(&all)), Some(all));
        for wrong in ["\\", "\\x", "\\x4", "\\xg0", "\\n", "\\x+1", "\\xé"] {
            assert_eq!(read_name(wrong), None, "{wrong}");
        }
    }
}
