//! The block of 512 bytes that says what follows it: ustar's header.

use crate::error::{Error, Result};

/// Bytes of a block: everything in an archive is a multiple of it.
pub const BLOCK_BYTES: usize = 512;

/// Bytes of the fields `name` and `linkname`.
pub(crate) const NAME_BYTES: usize = 100;
/// The largest number in a field of eight bytes.
pub(crate) const SMALL_MAX: u64 = 0o7_777_777;
/// The largest number in a field of twelve bytes.
pub(crate) const LARGE_MAX: u64 = 0o77_777_777_777;

const NAME: usize = 0;
const MODE: usize = 100;
const UID: usize = 108;
const GID: usize = 116;
const SIZE: usize = 124;
const TIME: usize = 136;
const SUM: usize = 148;
const KIND: usize = 156;
const LINK: usize = 157;
const MAGIC: usize = 257;
const MAJOR: usize = 329;
const MINOR: usize = 337;
const PREFIX: usize = 345;
const END: usize = 500;

/// The magic number and the version behind it.
const USTAR: &[u8] = b"ustar\x0000";

/// Bytes that fill the last block of so many.
pub fn padding(bytes: u64) -> u64 {
    let block = BLOCK_BYTES as u64;
    (block - bytes % block) % block
}

/// A header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Block {
    pub name: Vec<u8>,
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    pub size: u64,
    pub time: u64,
    pub kind: u8,
    pub link: Vec<u8>,
    pub device: (u64, u64),
}

impl Block {
    /// Writes it. What is too long or too large for its field is cut, and must stand in a pax record.
    pub fn write(&self) -> [u8; BLOCK_BYTES] {
        let mut bytes = [0; BLOCK_BYTES];
        put(&mut bytes[NAME..MODE], &self.name);
        put_number(&mut bytes[MODE..UID], self.mode);
        put_number(&mut bytes[UID..GID], self.uid);
        put_number(&mut bytes[GID..SIZE], self.gid);
        put_number(&mut bytes[SIZE..TIME], self.size);
        put_number(&mut bytes[TIME..SUM], self.time);
        bytes[KIND] = self.kind;
        put(&mut bytes[LINK..MAGIC], &self.link);
        put(&mut bytes[MAGIC..MAGIC + USTAR.len()], USTAR);
        put_number(&mut bytes[MAJOR..MINOR], self.device.0);
        put_number(&mut bytes[MINOR..PREFIX], self.device.1);
        let sum = sum(&bytes);
        // Six digits, a NUL and a space: as old as tar itself.
        put_number(&mut bytes[SUM..SUM + 7], sum);
        bytes[SUM + 7] = b' ';
        bytes
    }

    /// Reads what `write` writes, and what others write in the same form; nothing for a block of zeros.
    ///
    /// Errors: `Damaged`, at byte `at` of the archive.
    pub fn read(bytes: &[u8; BLOCK_BYTES], at: u64) -> Result<Option<Self>> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let damaged = |why| Error::Damaged { at, why };
        let number = |range: std::ops::Range<usize>| {
            number(&bytes[range]).ok_or_else(|| damaged("a field of a header is no number"))
        };
        if number(SUM..KIND)? != sum(bytes) {
            return Err(damaged("the checksum of a header is wrong"));
        }
        if &bytes[MAGIC..MAGIC + 5] != b"ustar" {
            return Err(damaged("a header is of no known form"));
        }
        let prefix = text(&bytes[PREFIX..END]);
        let mut name = text(&bytes[NAME..MODE]).to_vec();
        if !prefix.is_empty() {
            name = [prefix, &name].join(&b'/');
        }
        Ok(Some(Self {
            name,
            mode: number(MODE..UID)?,
            uid: number(UID..GID)?,
            gid: number(GID..SIZE)?,
            size: number(SIZE..TIME)?,
            time: number(TIME..SUM)?,
            kind: bytes[KIND],
            link: text(&bytes[LINK..MAGIC]).to_vec(),
            device: (number(MAJOR..MINOR)?, number(MINOR..PREFIX)?),
        }))
    }
}

/// The sum of a header's bytes, its own field taken as spaces.
fn sum(bytes: &[u8; BLOCK_BYTES]) -> u64 {
    let spaces = (KIND - SUM) as u64 * u64::from(b' ');
    let others = bytes[..SUM].iter().chain(&bytes[KIND..]);
    spaces + others.map(|byte| u64::from(*byte)).sum::<u64>()
}

fn put(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// Octal digits and a NUL.
fn put_number(field: &mut [u8], number: u64) {
    let digits = field.len() - 1;
    let largest = (1 << (3 * digits)) - 1;
    let text = format!("{:0digits$o}", number.min(largest));
    field[..digits].copy_from_slice(text.as_bytes());
}

fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

fn number(field: &[u8]) -> Option<u64> {
    let text = text(field).trim_ascii();
    if text.is_empty() {
        return Some(0);
    }
    text.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 8)?;
        Some(number << 3 | u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_reads_back() {
        let block = Block {
            name: b"./a name".to_vec(),
            mode: 0o4755,
            uid: SMALL_MAX,
            gid: 0,
            size: LARGE_MAX,
            time: 1_700_000_000,
            kind: b'2',
            link: vec![b'x'; NAME_BYTES],
            device: (8, 1_048_575),
        };
        let bytes = block.write();
        assert_eq!(Block::read(&bytes, 0).unwrap(), Some(block));
        assert_eq!(Block::read(&[0; BLOCK_BYTES], 0).unwrap(), None);
    }

    #[test]
    fn a_changed_header_is_found_out() {
        let mut bytes = Block::default().write();
        bytes[3] ^= 1;
        assert!(Block::read(&bytes, 0).is_err());
        assert!(Block::read(&[b'x'; BLOCK_BYTES], 0).is_err());
    }

    #[test]
    fn the_last_block_is_filled() {
        for (bytes, fill) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511)] {
            assert_eq!(padding(bytes), fill);
        }
    }
}
