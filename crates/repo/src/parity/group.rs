//! A group of packs and what its parity objects say of it.

use std::collections::BTreeSet;
use std::fmt;

use object_store::path::Path;

use crate::codec::Reader;
use crate::pack::PackId;
use crate::project::Inner;
use crate::seal::{FORMAT, OpenError, check_format};
use crate::store::{Folder, object_path};
use crate::whole::HASH_BYTES;

use super::{DATA_MAX, PARITY_MAX};

const MAGIC: [u8; 8] = *b"CAIRNPAR";
/// Bytes of a header in front of its members.
const FIXED_BYTES: usize = 8 + 2 + 16 + 1 + 1 + 1;
const MEMBER_BYTES: usize = 16 + 8;
/// Bytes of a header at most.
pub(super) const HEADER_BYTES_MAX: usize = FIXED_BYTES + DATA_MAX * MEMBER_BYTES;
/// Shards are a multiple of this long: what the code works on at a time.
const SHARD_UNIT: u64 = 64;
/// Bytes of a pack at most; far more than any has.
const PACK_BYTES_MAX: u64 = 1 << 32;

/// The random name of a group.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(pub [u8; 16]);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GroupId({self})")
    }
}

/// A pack of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub pack: PackId,
    /// The length of its object.
    pub bytes: u64,
}

/// A group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    pub id: GroupId,
    /// How many parity objects it was made with.
    pub parity: u8,
    pub members: Vec<Member>,
    /// The parity objects that are there, by number.
    pub found: BTreeSet<u8>,
}

impl Group {
    pub fn new(id: GroupId, parity: u8, members: Vec<Member>) -> Self {
        Self {
            id,
            parity,
            members,
            found: BTreeSet::new(),
        }
    }

    /// Whether all of its parity objects are there.
    pub fn is_complete(&self) -> bool {
        self.found.iter().copied().eq(0..self.parity)
    }

    /// The length of each shard: that of the longest pack, made even.
    pub fn shard_bytes(&self) -> u64 {
        let longest = self.members.iter().map(|member| member.bytes).max();
        longest.unwrap_or(0).next_multiple_of(SHARD_UNIT)
    }

    /// The length of each parity object.
    pub fn object_bytes(&self) -> u64 {
        self.header_bytes() + self.shard_bytes() + HASH_BYTES as u64
    }

    /// Where the shard begins in a parity object.
    pub fn header_bytes(&self) -> u64 {
        (FIXED_BYTES + self.members.len() * MEMBER_BYTES) as u64
    }

    pub fn path(&self, project: &Inner, number: u8) -> Path {
        let name = format!("{}-{number}", self.id);
        object_path(project.place.project, Folder::Parity, &name)
    }

    /// What a parity object begins with.
    pub fn header(&self, number: u8) -> Vec<u8> {
        let mut header = [&MAGIC[..], &FORMAT.to_le_bytes(), &self.id.0].concat();
        header.extend([number, self.parity, self.members.len() as u8]);
        for member in &self.members {
            header.extend_from_slice(&member.pack.0);
            header.extend_from_slice(&member.bytes.to_le_bytes());
        }
        header
    }

    /// Reads the group from the first bytes of its parity object of this number.
    pub fn read(id: GroupId, number: u8, bytes: &[u8]) -> Result<Self, OpenError> {
        let mut reader = Reader::new(bytes);
        if reader.array()? != MAGIC {
            return Err(OpenError::Malformed("it is no parity object"));
        }
        check_format(reader.u16()?)?;
        if reader.array()? != id.0 || reader.u8()? != number {
            return Err(OpenError::Malformed("it is another parity object"));
        }
        let (parity, count) = (reader.u8()?, usize::from(reader.u8()?));
        if !(1..=PARITY_MAX).contains(&usize::from(parity)) || !(1..=DATA_MAX).contains(&count) {
            return Err(OpenError::Malformed("it has too few or too many shards"));
        }
        let mut group = Self::new(id, parity, Vec::with_capacity(count));
        for _ in 0..count {
            let (pack, bytes) = (PackId(reader.array()?), reader.u64()?);
            if bytes > PACK_BYTES_MAX {
                return Err(OpenError::Malformed("a pack is too long"));
            }
            group.members.push(Member { pack, bytes });
        }
        Ok(group)
    }
}

/// The group and the number that the name of a parity object says.
pub(super) fn parse_name(name: &str) -> Option<(GroupId, u8)> {
    let (group, number) = name.split_once('-')?;
    let mut id = [0; 16];
    hex::decode_to_slice(group, &mut id).ok()?;
    let parsed = number.parse().ok()?;
    (format!("{}-{parsed}", GroupId(id)) == name).then_some((GroupId(id), parsed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_says_the_group_and_nothing_else_passes_for_one() {
        let member = |n: u8| Member {
            pack: PackId([n; 16]),
            bytes: 1000 + u64::from(n),
        };
        let id = GroupId([7; 16]);
        let group = Group::new(id, 2, (0..5).map(member).collect());
        let header = group.header(1);
        assert_eq!(header.len() as u64, group.header_bytes());
        assert_eq!(group.shard_bytes(), 1024);
        assert_eq!(Group::read(id, 1, &header).ok(), Some(group.clone()));
        assert!(Group::read(id, 0, &header).is_err());
        assert!(Group::read(GroupId([8; 16]), 1, &header).is_err());
        for end in 0..header.len() {
            assert!(Group::read(id, 1, &header[..end]).is_err(), "cut at {end}");
        }
        assert_eq!(parse_name(&format!("{id}-1")), Some((id, 1)));
        for wrong in [
            "",
            "-1",
            &format!("{id}-01"),
            &format!("{id}"),
            &format!("{id}-256"),
        ] {
            assert_eq!(parse_name(wrong), None, "{wrong:?}");
        }
    }
}
