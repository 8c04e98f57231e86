//! Access control lists as text, which is how other programs look for them in an archive.

/// The extended attributes that hold the lists, and the records that tell them as text.
pub(crate) const RECORDS: [(&[u8], &[u8]); 2] = [
    (b"system.posix_acl_access", b"SCHILY.acl.access"),
    (b"system.posix_acl_default", b"SCHILY.acl.default"),
];

/// The version that a list's value begins with. Source: Linux, `posix_acl_xattr.h`.
const VERSION: [u8; 4] = 2_u32.to_le_bytes();
/// Bytes of an entry of a list: who it is about in two parts, and what they may.
const ENTRY_BYTES: usize = 8;

/// The value of a list's attribute as text, such as `user::rw-,user:1000:r--,group::r--,mask::r--,other::---`;
/// nothing, if it is no list.
pub(crate) fn text(value: &[u8]) -> Option<String> {
    let entries = value.strip_prefix(&VERSION)?.chunks_exact(ENTRY_BYTES);
    if !entries.remainder().is_empty() {
        return None;
    }
    let entries: Option<Vec<String>> = entries.map(entry).collect();
    entries.map(|entries| entries.join(","))
}

fn entry(bytes: &[u8]) -> Option<String> {
    let (tag, may, id) = bytes.split_at_checked(4).map(|(small, id)| {
        let small = |at: usize| u16::from_le_bytes([small[at], small[at + 1]]);
        (
            small(0),
            small(2),
            u32::from_le_bytes([id[0], id[1], id[2], id[3]]),
        )
    })?;
    let whom = match tag {
        0x01 => "user:".to_owned(),
        0x02 => format!("user:{id}"),
        0x04 => "group:".to_owned(),
        0x08 => format!("group:{id}"),
        0x10 => "mask:".to_owned(),
        0x20 => "other:".to_owned(),
        _ => return None,
    };
    let letters = [(4, 'r'), (2, 'w'), (1, 'x')];
    let may: String = letters
        .iter()
        .map(|(bit, letter)| if may & bit == 0 { '-' } else { *letter })
        .collect();
    Some(format!("{whom}:{may}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_told_as_text() {
        let mut value = VERSION.to_vec();
        for (tag, may, id) in [
            (1_u16, 6_u16, u32::MAX),
            (2, 4, 1000),
            (4, 5, u32::MAX),
            (8, 7, 7),
            (16, 4, u32::MAX),
            (32, 0, u32::MAX),
        ] {
            value.extend(tag.to_le_bytes());
            value.extend(may.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        let told = "user::rw-,user:1000:r--,group::r-x,group:7:rwx,mask::r--,other::---";
        assert_eq!(text(&value).as_deref(), Some(told));
        assert_eq!(text(&value[..value.len() - 1]), None);
        assert_eq!(text(b"\x03\0\0\0"), None);
        assert_eq!(text(b""), None);
        value[4] = 0x40;
        assert_eq!(text(&value), None);
    }
}
