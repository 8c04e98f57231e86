//! One connection: the negotiation, then one request after another.

use std::io::{Read, Write};

use cairn_types::disk::Extent;

use super::wire::{self, Command, OptionReply, ReplyHead, Request};
use super::{
    MAX_ERROR_REPLY_BYTES, MAX_OPTION_REPLIES, MAX_REPLY_CHUNKS, MAX_STATUS_BYTES,
    MAX_STATUS_REPLY_BYTES, MAX_TRANSFER_BYTES, MAX_ZEROES_BYTES, NbdError,
};

type Result<T> = std::result::Result<T, NbdError>;

/// What a connection asks of runs of the export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Context {
    /// Which may be other than zero.
    Allocation,
    /// Which are set in QEMU's dirty bitmap of this name.
    DirtyBitmap(String),
}

impl Context {
    fn name(&self) -> String {
        match self {
            Self::Allocation => "base:allocation".to_owned(),
            Self::DirtyBitmap(bitmap) => format!("qemu:dirty-bitmap:{bitmap}"),
        }
    }

    /// Whether a run with these flags is one of those asked for.
    fn holds(&self, flags: u32) -> bool {
        match self {
            Self::Allocation => flags & wire::STATE_ZERO == 0,
            Self::DirtyBitmap(_) => flags & wire::STATE_DIRTY != 0,
        }
    }
}

/// A negotiated connection to one export of a server.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    size_bytes: u64,
    flags: u16,
    context: Context,
    /// The server's number for the context, if it offers it.
    context_id: Option<u32>,
    max_transfer_bytes: u32,
    cookie: u64,
}

impl<S: Read + Write> Connection<S> {
    /// Negotiates an export on a fresh stream; the empty name is that of the default one.
    pub(crate) fn negotiate(mut stream: S, export: &str, context: Context) -> Result<Self> {
        if wire::read_u64(&mut stream)? != wire::SERVER_MAGIC
            || wire::read_u64(&mut stream)? != wire::OPTION_MAGIC
        {
            return Err(NbdError::Protocol(
                "the server does not greet like an NBD server",
            ));
        }
        let offered = wire::read_u16(&mut stream)?;
        if offered & wire::FIXED_NEWSTYLE == 0 {
            return Err(NbdError::Protocol(
                "the server does not speak fixed newstyle",
            ));
        }
        let taken = offered & (wire::FIXED_NEWSTYLE | wire::NO_ZEROES);
        stream.write_all(&u32::from(taken).to_be_bytes())?;
        let mut connection = Self {
            stream,
            size_bytes: 0,
            flags: 0,
            context,
            context_id: None,
            max_transfer_bytes: MAX_TRANSFER_BYTES,
            cookie: 0,
        };
        if connection.option(wire::OPT_STRUCTURED_REPLY, &[], |_, _, _| Ok(()))? {
            connection.ask_for_context(export)?;
        }
        connection.go(export)?;
        Ok(connection)
    }

    fn ask_for_context(&mut self, export: &str) -> Result<()> {
        let name = self.context.name();
        let mut data = text(export);
        data.extend(1_u32.to_be_bytes());
        data.extend(text(&name));
        self.option(
            wire::OPT_SET_META_CONTEXT,
            &data,
            |connection, kind, mut data| {
                if kind == wire::REP_META_CONTEXT {
                    let id = wire::read_u32(&mut data)?;
                    if data == name.as_bytes() {
                        connection.context_id = Some(id);
                    }
                }
                Ok(())
            },
        )?;
        Ok(())
    }

    fn go(&mut self, export: &str) -> Result<()> {
        let mut told_size = false;
        let mut request = text(export);
        // No information is asked for beyond what comes anyway.
        request.extend(0_u16.to_be_bytes());
        let done = self.option(wire::OPT_GO, &request, |connection, kind, mut data| {
            if kind != wire::REP_INFO {
                return Ok(());
            }
            match wire::read_u16(&mut data)? {
                wire::INFO_EXPORT => {
                    connection.size_bytes = wire::read_u64(&mut data)?;
                    connection.flags = wire::read_u16(&mut data)?;
                    told_size = true;
                }
                wire::INFO_BLOCK_SIZE => connection.set_block_sizes(data)?,
                _ => {}
            }
            Ok(())
        })?;
        if !done || !told_size || self.flags & wire::FLAG_HAS_FLAGS == 0 {
            return Err(NbdError::Protocol("the server does not tell its export"));
        }
        if i64::try_from(self.size_bytes).is_err() {
            return Err(NbdError::Protocol("the export is impossibly large"));
        }
        Ok(())
    }

    fn set_block_sizes(&mut self, mut data: &[u8]) -> Result<()> {
        let (min, _preferred) = (wire::read_u32(&mut data)?, wire::read_u32(&mut data)?);
        let max = wire::read_u32(&mut data)?;
        // It may only ask for larger blocks of a client that asked for this information.
        if min > 1 || max < min.max(512) {
            return Err(NbdError::Protocol("the server insists on block sizes"));
        }
        self.max_transfer_bytes = MAX_TRANSFER_BYTES.min(max);
        Ok(())
    }

    /// Sends an option and has `take` look at the replies before the last.
    /// Returns whether the server took it.
    fn option(
        &mut self,
        option: u32,
        data: &[u8],
        mut take: impl FnMut(&mut Self, u32, &[u8]) -> Result<()>,
    ) -> Result<bool> {
        wire::send_option(&mut self.stream, option, data)?;
        for _ in 0..MAX_OPTION_REPLIES {
            let reply = OptionReply::read(&mut self.stream)?;
            if reply.option != option {
                return Err(NbdError::Protocol("a reply is to another option"));
            }
            match reply.kind {
                wire::REP_ACK => return Ok(true),
                kind if kind & wire::REP_FLAG_ERROR != 0 => return Ok(false),
                kind => take(self, kind, &reply.data)?,
            }
        }
        Err(NbdError::Protocol("an option has too many replies"))
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether the export takes all that a writer needs.
    pub(crate) fn is_writable(&self) -> bool {
        let needed = wire::FLAG_SEND_FLUSH | wire::FLAG_SEND_WRITE_ZEROES;
        self.flags & wire::FLAG_READ_ONLY == 0 && self.flags & needed == needed
    }

    /// Fills `buffer` from `offset`.
    pub(crate) fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let mut at = offset;
        for part in buffer.chunks_mut(self.max_transfer_bytes as usize) {
            self.read_part(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    fn read_part(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let length = u32::try_from(buffer.len()).expect("no longer than a transfer");
        let cookie = self.send(Command::Read, offset, length, &[])?;
        let mut filled = Filled::default();
        self.replies(cookie, |stream, reply| match reply {
            Reply::Simple => {
                filled.add(0, buffer.len());
                Ok(stream.read_exact(buffer)?)
            }
            Reply::Chunk {
                kind: wire::CHUNK_OFFSET_DATA,
                length,
            } if length > 8 => {
                let data_bytes = length as usize - 8;
                let place = place(wire::read_u64(stream)?, offset, data_bytes, buffer.len())?;
                filled.add(place, data_bytes);
                Ok(stream.read_exact(&mut buffer[place..place + data_bytes])?)
            }
            Reply::Chunk {
                kind: wire::CHUNK_OFFSET_HOLE,
                length: 12,
            } => {
                let hole = wire::read_u64(stream)?;
                let hole_bytes = wire::read_u32(stream)? as usize;
                let place = place(hole, offset, hole_bytes, buffer.len())?;
                filled.add(place, hole_bytes);
                buffer[place..place + hole_bytes].fill(0);
                Ok(())
            }
            Reply::Chunk { .. } => Err(NbdError::Protocol("a read has an unknown reply")),
        })?;
        if filled.is_exactly(length as usize) {
            return Ok(());
        }
        Err(NbdError::Protocol("the replies to a read leave a gap"))
    }

    /// The runs from `offset` on, at least one; they may end before the disk
    /// does. Data is what the context holds of, or all without the context.
    pub(crate) fn extents(&mut self, offset: u64) -> Result<Vec<Extent>> {
        let left = self.size_bytes.saturating_sub(offset);
        let length = u32::try_from(left)
            .unwrap_or(u32::MAX)
            .min(MAX_STATUS_BYTES);
        let Some(id) = self.context_id else {
            return Ok(vec![Extent {
                offset,
                length: left,
                data: true,
            }]);
        };
        let cookie = self.send(Command::BlockStatus, offset, length, &[])?;
        let context = self.context.clone();
        let mut extents = Vec::new();
        self.replies(cookie, |stream, reply| match reply {
            Reply::Chunk {
                kind: wire::CHUNK_BLOCK_STATUS,
                length: reply_bytes,
            } if reply_bytes <= MAX_STATUS_REPLY_BYTES && extents.is_empty() => {
                let reply = wire::read_vec(stream, reply_bytes)?;
                extents = parse_status(&reply, (id, &context), (offset, u64::from(length)))?;
                Ok(())
            }
            _ => Err(NbdError::Protocol(
                "a question of allocation has an unknown reply",
            )),
        })?;
        if extents.is_empty() {
            return Err(NbdError::Protocol("a question of allocation has no answer"));
        }
        Ok(extents)
    }

    /// Writes `data` at `offset`.
    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        let mut at = offset;
        for part in data.chunks(self.max_transfer_bytes as usize) {
            let length = u32::try_from(part.len()).expect("no longer than a transfer");
            let cookie = self.send(Command::Write, at, length, part)?;
            self.acknowledged(cookie)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Makes a run read as zeros, giving its space back where the server can.
    pub(crate) fn write_zeroes(&mut self, offset: u64, length: u64) -> Result<()> {
        let (mut at, end) = (offset, offset + length);
        while at < end {
            let step = u32::try_from(end - at)
                .unwrap_or(u32::MAX)
                .min(MAX_ZEROES_BYTES);
            let cookie = self.send(Command::WriteZeroes, at, step, &[])?;
            self.acknowledged(cookie)?;
            at += u64::from(step);
        }
        Ok(())
    }

    /// Returns when all that was acknowledged is durable.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let cookie = self.send(Command::Flush, 0, 0, &[])?;
        self.acknowledged(cookie)
    }

    /// Takes leave; the server closes the connection without a reply.
    pub(crate) fn disconnect(mut self) -> Result<()> {
        self.send(Command::Disconnect, 0, 0, &[]).map(|_| ())
    }

    fn send(&mut self, command: Command, offset: u64, length: u32, data: &[u8]) -> Result<u64> {
        self.cookie += 1;
        let request = Request {
            command,
            cookie: self.cookie,
            offset,
            length,
        };
        self.stream.write_all(&request.to_bytes())?;
        self.stream.write_all(data)?;
        Ok(self.cookie)
    }

    /// Waits for a reply that carries nothing.
    fn acknowledged(&mut self, cookie: u64) -> Result<()> {
        self.replies(cookie, |_, reply| match reply {
            Reply::Simple => Ok(()),
            Reply::Chunk { .. } => Err(NbdError::Protocol("a reply carries more than it may")),
        })
    }

    /// Reads the whole reply to one request and has `take` read what each part
    /// of it carries. An error that the server reports is returned at the end,
    /// with the connection ready for the next request.
    fn replies(
        &mut self,
        cookie: u64,
        mut take: impl FnMut(&mut S, Reply) -> Result<()>,
    ) -> Result<()> {
        let mut refused = None;
        for _ in 0..MAX_REPLY_CHUNKS {
            let head = ReplyHead::read(&mut self.stream)?;
            let (ReplyHead::Simple {
                cookie: answered, ..
            }
            | ReplyHead::Chunk {
                cookie: answered, ..
            }) = head;
            if answered != cookie {
                return Err(NbdError::Protocol("a reply is to another request"));
            }
            let is_last = match head {
                ReplyHead::Simple { code: 0, .. } => {
                    take(&mut self.stream, Reply::Simple)?;
                    true
                }
                ReplyHead::Simple { code, .. } => {
                    refused = Some(NbdError::Refused {
                        code,
                        message: String::new(),
                    });
                    true
                }
                ReplyHead::Chunk {
                    flags,
                    kind,
                    length,
                    ..
                } => {
                    if kind & wire::CHUNK_FLAG_ERROR != 0 {
                        refused = Some(read_error(&mut self.stream, kind, length)?);
                    } else if kind != wire::CHUNK_NONE {
                        take(&mut self.stream, Reply::Chunk { kind, length })?;
                    } else if length != 0 {
                        return Err(NbdError::Protocol("an empty chunk is not empty"));
                    }
                    flags & wire::CHUNK_FLAG_DONE != 0
                }
            };
            if is_last {
                return refused.map_or(Ok(()), Err);
            }
        }
        Err(NbdError::Protocol("a reply comes in too many chunks"))
    }
}

/// A text in an option: its length, and it.
fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).expect("our names are short");
    [&length.to_be_bytes(), text.as_bytes()].concat()
}

/// A part of a reply that carries something.
#[derive(Debug, Clone, Copy)]
enum Reply {
    Simple,
    Chunk { kind: u16, length: u32 },
}

/// Which bytes of a buffer the chunks of a reply have filled.
#[derive(Debug, Default)]
struct Filled {
    parts: Vec<(usize, usize)>,
}

impl Filled {
    fn add(&mut self, start: usize, length: usize) {
        self.parts.push((start, length));
    }

    /// Whether the parts, in any order, are the whole buffer, each byte once.
    fn is_exactly(&mut self, length: usize) -> bool {
        self.parts.sort_unstable();
        let end = self.parts.iter().try_fold(0, |end, (start, length)| {
            (*start == end).then_some(end + length)
        });
        end == Some(length)
    }
}

/// Where in the buffer of a read at `asked` a part of the disk belongs.
fn place(offset: u64, asked: u64, length: usize, buffer_bytes: usize) -> Result<usize> {
    let start = offset
        .checked_sub(asked)
        .and_then(|start| usize::try_from(start).ok());
    start
        .filter(|start| {
            length > 0
                && start
                    .checked_add(length)
                    .is_some_and(|end| end <= buffer_bytes)
        })
        .ok_or(NbdError::Protocol(
            "a reply lies outside of what was asked for",
        ))
}

/// The runs that a reply about allocation lists, cut to what was asked for,
/// neighbours of one sort made one.
fn parse_status(
    reply: &[u8],
    (expected, context): (u32, &Context),
    (offset, asked): (u64, u64),
) -> Result<Vec<Extent>> {
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("4 bytes"));
    let Some((id, runs)) = reply.split_at_checked(4) else {
        return Err(NbdError::Protocol("a reply about allocation is too short"));
    };
    if number(id) != expected || runs.len() % 8 != 0 {
        return Err(NbdError::Protocol("a reply about allocation is malformed"));
    }
    let mut extents: Vec<Extent> = Vec::new();
    let (mut at, end) = (offset, offset + asked);
    for run in runs.chunks_exact(8) {
        let length = u64::from(number(&run[..4])).min(end - at);
        let data = context.holds(number(&run[4..]));
        if length == 0 {
            return Err(NbdError::Protocol("a reply about allocation goes nowhere"));
        }
        match extents.last_mut() {
            Some(last) if last.data == data => last.length += length,
            _ => extents.push(Extent {
                offset: at,
                length,
                data,
            }),
        }
        at += length;
    }
    Ok(extents)
}

fn read_error(from: &mut impl Read, kind: u16, length: u32) -> Result<NbdError> {
    if !(6..=MAX_ERROR_REPLY_BYTES).contains(&length) {
        return Err(NbdError::Protocol(
            "an error reply has an impossible length",
        ));
    }
    let reply = wire::read_vec(from, length)?;
    let code = u32::from_be_bytes(reply[..4].try_into().expect("4 bytes"));
    let text_bytes = u16::from_be_bytes(reply[4..6].try_into().expect("2 bytes"));
    let Some(text) = reply.get(6..6 + usize::from(text_bytes)) else {
        return Err(NbdError::Protocol("an error reply is cut off"));
    };
    let message = String::from_utf8_lossy(text).into_owned();
    if kind == wire::CHUNK_ERROR_OFFSET && reply.len() != 6 + text.len() + 8 {
        return Err(NbdError::Protocol("an error reply has no place"));
    }
    Ok(NbdError::Refused { code, message })
}

#[cfg(test)]
mod tests;
