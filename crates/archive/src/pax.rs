//! Pax records: what an entry's header has no field for, or too small a one.

use std::ops::Range;

use cairn_types::tree::FileTime;

/// Bytes of a pax header's records at most: a path of 128 KiB, extended attributes of as
/// much, and their names.
pub(crate) const PAX_BYTES_MAX: u64 = 4 << 20;

/// Appends a record: its own length, a space, `key=value` and a line break.
pub(crate) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    // The length counts its own digits, which may make it one digit longer.
    while rest + digits(length) != length {
        length = rest + digits(length);
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().unwrap_or(0) as usize + 1
}

/// Takes records apart: keys and values, in their order; nothing, if they are none.
pub(crate) fn records(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (record, behind) = rest.split_at_checked(length(rest)?)?;
        let space = record.iter().position(|byte| *byte == b' ')?;
        let text = record[space + 1..].strip_suffix(b"\n")?;
        let equals = text.iter().position(|byte| *byte == b'=')?;
        found.push((&text[..equals], &text[equals + 1..]));
        rest = behind;
    }
    Some(found)
}

/// The length that a record begins with.
fn length(record: &[u8]) -> Option<usize> {
    let space = record.iter().take(12).position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&record[..space])?).ok()?;
    (length > space + 1).then_some(length)
}

/// A number in decimal digits.
pub(crate) fn number(text: &[u8]) -> Option<u64> {
    let plain = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(text)
        .ok()
        .filter(|_| plain)?
        .parse()
        .ok()
}

/// An instant as a decimal number of seconds.
pub(crate) fn write_time(time: FileTime) -> String {
    if time.nanoseconds == 0 {
        return time.seconds.to_string();
    }
    // The fraction counts forwards, the number of seconds away from zero.
    if time.seconds >= 0 {
        format!("{}.{:09}", time.seconds, time.nanoseconds)
    } else {
        let seconds = (time.seconds + 1).unsigned_abs();
        format!("-{seconds}.{:09}", 1_000_000_000 - time.nanoseconds)
    }
}

/// Reads what [`write_time`] writes, and numbers with fewer or more digits.
pub(crate) fn read_time(text: &[u8]) -> Option<FileTime> {
    let text = std::str::from_utf8(text).ok()?;
    let (negative, text) = match text.strip_prefix('-') {
        Some(text) => (true, text),
        None => (false, text),
    };
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds = i128::from(number(seconds.as_bytes())?);
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction = format!("{:0<9.9}", fraction);
    let nanoseconds = i128::from(number(fraction.as_bytes())?);
    let all = seconds * 1_000_000_000 + nanoseconds;
    let all = if negative { -all } else { all };
    Some(FileTime {
        seconds: i64::try_from(all.div_euclid(1_000_000_000)).ok()?,
        nanoseconds: all.rem_euclid(1_000_000_000) as u32,
    })
}

/// The key of an extended attribute's record. Source: GNU tar, which writes `=` and `%` so
/// that they do not end the key.
pub(crate) fn xattr_key(prefix: &[u8], name: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    for byte in name {
        match byte {
            b'=' => key.extend_from_slice(b"%3D"),
            b'%' => key.extend_from_slice(b"%25"),
            byte => key.push(*byte),
        }
    }
    key
}

/// The name in a key that [`xattr_key`] made, without its prefix.
pub(crate) fn xattr_name(key: &[u8]) -> Vec<u8> {
    let mut name = Vec::with_capacity(key.len());
    let mut rest = key;
    while let Some((byte, behind)) = rest.split_first() {
        let (byte, skipped): (u8, Range<usize>) = match rest {
            [b'%', b'3', b'D', ..] => (b'=', 0..3),
            [b'%', b'2', b'5', ..] => (b'%', 0..3),
            _ => (*byte, 0..rest.len() - behind.len()),
        };
        name.push(byte);
        rest = &rest[skipped.end..];
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_length() {
        for length in [0, 1, 80, 90, 91, 92, 93, 94, 95, 985, 986, 987, 9990] {
            let value = vec![b'\n'; length];
            let mut bytes = Vec::new();
            push(&mut bytes, b"path", &value);
            assert!(bytes.starts_with(format!("{} ", bytes.len()).as_bytes()));
            push(&mut bytes, b"a", b"b=c");
            let found = records(&bytes).unwrap();
            assert_eq!(found, [(&b"path"[..], &value[..]), (b"a", b"b=c")]);
        }
    }

    #[test]
    fn what_is_no_record_is_refused() {
        for wrong in [
            &b"5 a=b"[..],
            b"6 a=b",
            b"99 a=b\n",
            b"x a=b\n",
            b"5 ab\n",
            b"0 a=b\n",
            b"2 \n",
            b"-6 a=b\n",
            b"18446744073709551615 a=b\n",
        ] {
            assert!(records(wrong).is_none(), "{wrong:?}");
        }
    }

    #[test]
    fn times_of_any_year_read_back() {
        for (seconds, nanoseconds, text) in [
            (0, 0, "0"),
            (5, 1, "5.000000001"),
            (-1, 500_000_000, "-0.500000000"),
            (-2, 999_999_999, "-1.000000001"),
            (-7, 0, "-7"),
            (i64::MAX, 999_999_999, "9223372036854775807.999999999"),
            (i64::MIN, 1, "-9223372036854775807.999999999"),
            (i64::MIN, 0, "-9223372036854775808"),
        ] {
            let time = FileTime {
                seconds,
                nanoseconds,
            };
            assert_eq!(write_time(time), text);
            assert_eq!(read_time(text.as_bytes()), Some(time));
        }
        assert_eq!(read_time(b"1.5").unwrap().nanoseconds, 500_000_000);
        for wrong in ["", "-", "x", "1.x", "1e5", "99999999999999999999"] {
            assert_eq!(read_time(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn names_of_attributes_read_back() {
        for name in [&b"user.a"[..], b"user.a=b%c", b"%3D", b"%", b"%2"] {
            let key = xattr_key(b"X.", name);
            assert!(!key.contains(&b'='));
            assert_eq!(xattr_name(&key[2..]), name);
        }
    }
}
