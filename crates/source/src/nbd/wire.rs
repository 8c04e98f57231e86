//! The protocol's messages as bytes: numbers, magics, and the headers of
//! requests and replies.

use std::io::{Read, Write};

use super::NbdError;

pub(super) const SERVER_MAGIC: u64 = u64::from_be_bytes(*b"NBDMAGIC");
pub(super) const OPTION_MAGIC: u64 = u64::from_be_bytes(*b"IHAVEOPT");
pub(super) const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub(super) const REQUEST_MAGIC: u32 = 0x2560_9513;
pub(super) const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub(super) const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

/// Handshake flags, the same bits on both sides.
pub(super) const FIXED_NEWSTYLE: u16 = 1;
pub(super) const NO_ZEROES: u16 = 2;

pub(super) const OPT_GO: u32 = 7;
pub(super) const OPT_STRUCTURED_REPLY: u32 = 8;
pub(super) const OPT_SET_META_CONTEXT: u32 = 10;

pub(super) const REP_ACK: u32 = 1;
pub(super) const REP_INFO: u32 = 3;
pub(super) const REP_META_CONTEXT: u32 = 4;
pub(super) const REP_FLAG_ERROR: u32 = 1 << 31;

pub(super) const INFO_EXPORT: u16 = 0;
pub(super) const INFO_BLOCK_SIZE: u16 = 3;

/// Transmission flags.
pub(super) const FLAG_HAS_FLAGS: u16 = 1;
pub(super) const FLAG_READ_ONLY: u16 = 1 << 1;
pub(super) const FLAG_SEND_FLUSH: u16 = 1 << 2;
pub(super) const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;

/// What is asked of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
    WriteZeroes = 6,
    BlockStatus = 7,
}

pub(super) const CHUNK_FLAG_DONE: u16 = 1;
pub(super) const CHUNK_NONE: u16 = 0;
pub(super) const CHUNK_OFFSET_DATA: u16 = 1;
pub(super) const CHUNK_OFFSET_HOLE: u16 = 2;
pub(super) const CHUNK_BLOCK_STATUS: u16 = 5;
pub(super) const CHUNK_FLAG_ERROR: u16 = 1 << 15;
pub(super) const CHUNK_ERROR_OFFSET: u16 = CHUNK_FLAG_ERROR | 2;

/// `base:allocation`: the run reads as zeros.
pub(super) const STATE_ZERO: u32 = 1 << 1;
/// `qemu:dirty-bitmap:`: the run is dirty. Source: QEMU, `docs/interop/nbd.txt`.
pub(super) const STATE_DIRTY: u32 = 1;

/// One request, without the data that follows a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) command: Command,
    pub(super) cookie: u64,
    pub(super) offset: u64,
    pub(super) length: u32,
}

impl Request {
    /// The request as it is sent; no command flag is used.
    pub(super) fn to_bytes(self) -> [u8; 28] {
        let mut bytes = [0; 28];
        bytes[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        bytes[6..8].copy_from_slice(&(self.command as u16).to_be_bytes());
        bytes[8..16].copy_from_slice(&self.cookie.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.offset.to_be_bytes());
        bytes[24..].copy_from_slice(&self.length.to_be_bytes());
        bytes
    }
}

/// The head of a reply; what follows it depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReplyHead {
    /// The whole reply, but for the data of a read.
    Simple { code: u32, cookie: u64 },
    /// One of several chunks, of `length` more bytes.
    Chunk {
        flags: u16,
        kind: u16,
        cookie: u64,
        length: u32,
    },
}

impl ReplyHead {
    pub(super) fn read(from: &mut impl Read) -> Result<Self, NbdError> {
        match read_u32(from)? {
            SIMPLE_REPLY_MAGIC => Ok(Self::Simple {
                code: read_u32(from)?,
                cookie: read_u64(from)?,
            }),
            STRUCTURED_REPLY_MAGIC => Ok(Self::Chunk {
                flags: read_u16(from)?,
                kind: read_u16(from)?,
                cookie: read_u64(from)?,
                length: read_u32(from)?,
            }),
            _ => Err(NbdError::Protocol("a reply starts with an unknown magic")),
        }
    }
}

/// A reply to an option, read whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OptionReply {
    pub(super) option: u32,
    pub(super) kind: u32,
    pub(super) data: Vec<u8>,
}

impl OptionReply {
    pub(super) fn read(from: &mut impl Read) -> Result<Self, NbdError> {
        if read_u64(from)? != OPTION_REPLY_MAGIC {
            return Err(NbdError::Protocol(
                "an option reply starts with an unknown magic",
            ));
        }
        let (option, kind, length) = (read_u32(from)?, read_u32(from)?, read_u32(from)?);
        if length > super::MAX_OPTION_BYTES {
            return Err(NbdError::Protocol("an option reply is too long"));
        }
        Ok(Self {
            option,
            kind,
            data: read_vec(from, length)?,
        })
    }
}

/// Sends an option with its data.
pub(super) fn send_option(to: &mut impl Write, option: u32, data: &[u8]) -> Result<(), NbdError> {
    let length = u32::try_from(data.len()).expect("our options are short");
    let mut message = Vec::with_capacity(16 + data.len());
    message.extend(OPTION_MAGIC.to_be_bytes());
    message.extend(option.to_be_bytes());
    message.extend(length.to_be_bytes());
    message.extend(data);
    Ok(to.write_all(&message)?)
}

/// Reads `length` bytes, which the caller has compared with a limit.
pub(super) fn read_vec(from: &mut impl Read, length: u32) -> Result<Vec<u8>, NbdError> {
    let mut data = vec![0; length as usize];
    from.read_exact(&mut data)?;
    Ok(data)
}

pub(super) fn read_u16(from: &mut impl Read) -> Result<u16, NbdError> {
    let mut bytes = [0; 2];
    from.read_exact(&mut bytes)?;
    Ok(u16::from_be_bytes(bytes))
}

pub(super) fn read_u32(from: &mut impl Read) -> Result<u32, NbdError> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

pub(super) fn read_u64(from: &mut impl Read) -> Result<u64, NbdError> {
    let mut bytes = [0; 8];
    from.read_exact(&mut bytes)?;
    Ok(u64::from_be_bytes(bytes))
}
