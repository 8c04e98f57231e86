//! Numbers at a place in bytes, and their checksums. Whoever asks has made sure
//! that the bytes are long enough.

use crc::{CRC_32_ISCSI, CRC_32_ISO_HDLC, CRC_32_MPEG_2, Crc, Table};

static CRC32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);
static CRC32: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISO_HDLC);

/// CRC-32 with the highest bit first and without inversions, which older journals have.
pub(crate) static CRC32_BE: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_MPEG_2);

macro_rules! numbers {
    ($($name:ident $type:ty, $from:ident;)*) => {$(
        pub(crate) fn $name(bytes: &[u8], at: usize) -> $type {
            let end = at + size_of::<$type>();
            <$type>::$from(bytes[at..end].try_into().expect("a slice of this length"))
        }
    )*};
}

numbers! {
    le16 u16, from_le_bytes;
    le32 u32, from_le_bytes;
    le64 u64, from_le_bytes;
    be16 u16, from_be_bytes;
    be32 u32, from_be_bytes;
    be64 u64, from_be_bytes;
}

/// CRC-32C as Linux carries it on from a seed, without the final inversion.
pub(crate) fn crc32c_from(seed: u32, parts: &[&[u8]]) -> u32 {
    let mut digest = CRC32C.digest_with_initial(seed.reverse_bits());
    for part in parts {
        digest.update(part);
    }
    !digest.finalize()
}

/// CRC-32C as XFS writes it: of `bytes`, those of the checksum itself at `hole` counted as zeros.
pub(crate) fn crc32c_without(bytes: &[u8], hole: usize) -> u32 {
    !crc32c_from(!0, &[&bytes[..hole], &[0; 4], &bytes[hole + 4..]])
}

/// CRC-32 as GPT has it.
pub(crate) fn crc32(parts: &[&[u8]]) -> u32 {
    let mut digest = CRC32.digest();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

/// The text of a field that is padded with NULs or blanks.
pub(crate) fn padded_text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0);
    let text = String::from_utf8_lossy(&bytes[..end.unwrap_or(bytes.len())]);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

/// Sixteen bytes as UUIDs are written, in the order that they have; nothing for zeros.
pub(crate) fn uuid_text(bytes: &[u8]) -> Option<String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return None;
    }
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_standards() {
        // Source: the catalogue of parametrised CRC algorithms, "check" of 123456789.
        assert_eq!(!crc32c_from(!0, &[b"12345", b"6789"]), 0xE306_9283);
        assert_eq!(crc32(&[b"123", b"456789"]), 0xCBF4_3926);
        // A seed carries a checksum on.
        let half = crc32c_from(!0, &[b"1234"]);
        assert_eq!(
            crc32c_from(half, &[b"56789"]),
            crc32c_from(!0, &[b"123456789"])
        );
    }

    #[test]
    fn a_hole_counts_as_zeros() {
        let bytes = *b"abcd\x01\x02\x03\x04efgh";
        let zeroed = *b"abcd\0\0\0\0efgh";
        assert_eq!(crc32c_without(&bytes, 4), !crc32c_from(!0, &[&zeroed]));
    }

    #[test]
    fn identifiers_and_labels_are_written_as_usual() {
        let bytes: Vec<u8> = (0..16).collect();
        assert_eq!(
            uuid_text(&bytes).unwrap(),
            "00010203-0405-0607-0809-0a0b0c0d0e0f"
        );
        assert_eq!(uuid_text(&[0; 16]), None);
        assert_eq!(padded_text(b"root  \0xx").unwrap(), "root");
        assert_eq!(padded_text(b"    "), None);
    }
}
