//! The negotiation: what the client may use, and which of it it wants.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::Disk;
use crate::error::{Error, Result};
use crate::transmission::MAX_TRANSFER_BYTES;
use crate::wire;

/// How long the client may take for all of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an option at most: names and questions.
const MAX_OPTION_BYTES: u32 = 64 << 10;
/// Options that are answered before the client must have decided.
const MAX_OPTIONS: usize = 256;
/// What reads well: the size of a block of a backup.
const PREFERRED_BYTES: u32 = 64 << 10;
/// The one metadata context, and the number that it has here.
const ALLOCATION: &[u8] = b"base:allocation";
pub(crate) const ALLOCATION_ID: u32 = 1;

/// What was agreed upon.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// Replies come in chunks.
    pub structured: bool,
    /// The client may ask where the data is.
    pub allocation: bool,
}

/// What comes after an option.
enum Then {
    Another,
    Transmission,
    End,
}

/// Negotiates; nothing if the client only wanted to know.
pub(crate) async fn negotiate<S>(stream: &mut S, disk: &Disk) -> Result<Option<Agreed>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let negotiation = Negotiation {
        stream,
        disk,
        agreed: Agreed::default(),
        no_zeroes: false,
    };
    let agreed = timeout(PATIENCE, negotiation.run()).await;
    agreed.map_err(|_| Error::TooSlow {
        seconds: PATIENCE.as_secs(),
    })?
}

struct Negotiation<'a, S> {
    stream: &'a mut S,
    disk: &'a Disk,
    agreed: Agreed,
    no_zeroes: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Negotiation<'_, S> {
    async fn run(mut self) -> Result<Option<Agreed>> {
        let ours = wire::FIXED_NEWSTYLE | wire::NO_ZEROES;
        let mut greeting = wire::SERVER_MAGIC.to_be_bytes().to_vec();
        greeting.extend(wire::OPTION_MAGIC.to_be_bytes());
        greeting.extend(ours.to_be_bytes());
        self.send(&greeting).await?;
        let theirs = self.stream.read_u32().await?;
        if theirs & !u32::from(ours) != 0 {
            return Err(Error::Protocol("it wants what was not offered"));
        }
        self.no_zeroes = theirs & u32::from(wire::NO_ZEROES) != 0;
        for _ in 0..MAX_OPTIONS {
            if self.stream.read_u64().await? != wire::OPTION_MAGIC {
                return Err(Error::Protocol("an option does not begin like one"));
            }
            let (option, length) = (self.stream.read_u32().await?, self.stream.read_u32().await?);
            if length > MAX_OPTION_BYTES {
                return Err(Error::Protocol("an option is too long"));
            }
            let mut data = vec![0; length as usize];
            self.stream.read_exact(&mut data).await?;
            match self.answer(option, &data).await? {
                Then::Another => {}
                Then::Transmission => return Ok(Some(self.agreed)),
                Then::End => return Ok(None),
            }
        }
        Err(Error::Protocol("it negotiates without end"))
    }

    async fn answer(&mut self, option: u32, data: &[u8]) -> Result<Then> {
        match option {
            wire::OPT_EXPORT_NAME => {
                // There is one disk; whatever it is called, that is the one.
                let mut head = self.disk.size_bytes().to_be_bytes().to_vec();
                head.extend(flags(self.disk).to_be_bytes());
                if !self.no_zeroes {
                    head.extend([0; 124]);
                }
                self.send(&head).await?;
                return Ok(Then::Transmission);
            }
            wire::OPT_ABORT => {
                self.reply(option, wire::REP_ACK, &[]).await?;
                return Ok(Then::End);
            }
            wire::OPT_LIST if data.is_empty() => {
                self.reply(option, wire::REP_SERVER, &[0; 4]).await?;
                self.reply(option, wire::REP_ACK, &[]).await?;
            }
            wire::OPT_STRUCTURED_REPLY if data.is_empty() => {
                self.agreed.structured = true;
                self.reply(option, wire::REP_ACK, &[]).await?;
            }
            wire::OPT_INFO | wire::OPT_GO if is_info(data) => {
                self.tell(option).await?;
                if option == wire::OPT_GO {
                    return Ok(Then::Transmission);
                }
            }
            wire::OPT_LIST_META_CONTEXT | wire::OPT_SET_META_CONTEXT if self.agreed.structured => {
                self.contexts(option, data).await?;
            }
            wire::OPT_LIST
            | wire::OPT_STRUCTURED_REPLY
            | wire::OPT_INFO
            | wire::OPT_GO
            | wire::OPT_LIST_META_CONTEXT
            | wire::OPT_SET_META_CONTEXT => {
                self.reply(option, wire::REP_ERR_INVALID, &[]).await?;
            }
            _ => self.reply(option, wire::REP_ERR_UNSUP, &[]).await?,
        }
        Ok(Then::Another)
    }

    /// Says what the disk is like.
    async fn tell(&mut self, option: u32) -> Result<()> {
        let mut export = wire::INFO_EXPORT.to_be_bytes().to_vec();
        export.extend(self.disk.size_bytes().to_be_bytes());
        export.extend(flags(self.disk).to_be_bytes());
        self.reply(option, wire::REP_INFO, &export).await?;
        let mut sizes = wire::INFO_BLOCK_SIZE.to_be_bytes().to_vec();
        for size in [1, PREFERRED_BYTES, MAX_TRANSFER_BYTES] {
            sizes.extend(size.to_be_bytes());
        }
        self.reply(option, wire::REP_INFO, &sizes).await?;
        self.reply(option, wire::REP_ACK, &[]).await
    }

    /// Says which metadata contexts there are of those that are asked for.
    async fn contexts(&mut self, option: u32, data: &[u8]) -> Result<()> {
        let Some(asked) = context_queries(data) else {
            return self.reply(option, wire::REP_ERR_INVALID, &[]).await;
        };
        let lists = option == wire::OPT_LIST_META_CONTEXT;
        let all = lists && (asked.is_empty() || asked.contains(&&b"base:"[..]));
        let found = all || asked.contains(&ALLOCATION);
        if !lists {
            self.agreed.allocation = found;
        }
        if found {
            let mut context = ALLOCATION_ID.to_be_bytes().to_vec();
            context.extend(ALLOCATION);
            self.reply(option, wire::REP_META_CONTEXT, &context).await?;
        }
        self.reply(option, wire::REP_ACK, &[]).await
    }

    async fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> Result<()> {
        let mut reply = wire::OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
        reply.extend(option.to_be_bytes());
        reply.extend(kind.to_be_bytes());
        let length = u32::try_from(data.len()).expect("what is answered is short");
        reply.extend(length.to_be_bytes());
        reply.extend(data);
        self.send(&reply).await
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.stream.write_all(bytes).await?;
        Ok(self.stream.flush().await?)
    }
}

/// What may be done with a disk.
fn flags(disk: &Disk) -> u16 {
    let any = wire::FLAG_HAS_FLAGS | wire::FLAG_SEND_DF | wire::FLAG_CAN_MULTI_CONN;
    let own = match disk {
        Disk::ReadOnly(_) => wire::FLAG_READ_ONLY,
        Disk::Writable(_) => {
            wire::FLAG_SEND_FLUSH
                | wire::FLAG_SEND_FUA
                | wire::FLAG_SEND_TRIM
                | wire::FLAG_SEND_WRITE_ZEROES
        }
    };
    any | own
}

/// Takes a text of a length that stands before it.
fn take_text<'d>(data: &mut &'d [u8]) -> Option<&'d [u8]> {
    let length = take_u32(data)?;
    let (text, rest) = data.split_at_checked(length as usize)?;
    *data = rest;
    Some(text)
}

fn take_u32(data: &mut &[u8]) -> Option<u32> {
    let (number, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(u32::from_be_bytes(*number))
}

/// Whether this is a name and a list of things to know. All of them are told anyway.
fn is_info(mut data: &[u8]) -> bool {
    let named = take_text(&mut data).is_some();
    let listed = data
        .split_first_chunk::<2>()
        .is_some_and(|(count, list)| list.len() == 2 * usize::from(u16::from_be_bytes(*count)));
    named && listed
}

/// The questions of an option about metadata contexts.
fn context_queries(mut data: &[u8]) -> Option<Vec<&[u8]>> {
    take_text(&mut data)?;
    let count = take_u32(&mut data)?;
    let mut queries = Vec::new();
    for _ in 0..count {
        queries.push(take_text(&mut data)?);
    }
    data.is_empty().then_some(queries)
}
