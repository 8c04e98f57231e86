use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;

use super::*;

/// A stream whose far side says what was written down beforehand, and does not listen.
struct Script(Cursor<Vec<u8>>);

impl Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Script {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const DISK_BYTES: u64 = 1 << 20;
const CONTEXT: u32 = 7;

fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut reply = wire::OPTION_REPLY_MAGIC.to_be_bytes().to_vec();
    reply.extend(option.to_be_bytes());
    reply.extend(kind.to_be_bytes());
    reply.extend((data.len() as u32).to_be_bytes());
    reply.extend(data);
    reply
}

/// What a good server says until the first request.
fn greeting() -> Vec<u8> {
    let mut said = wire::SERVER_MAGIC.to_be_bytes().to_vec();
    said.extend(wire::OPTION_MAGIC.to_be_bytes());
    said.extend((wire::FIXED_NEWSTYLE | wire::NO_ZEROES).to_be_bytes());
    said.extend(option_reply(wire::OPT_STRUCTURED_REPLY, wire::REP_ACK, &[]));
    let mut context = CONTEXT.to_be_bytes().to_vec();
    context.extend(b"base:allocation");
    said.extend(option_reply(
        wire::OPT_SET_META_CONTEXT,
        wire::REP_META_CONTEXT,
        &context,
    ));
    said.extend(option_reply(wire::OPT_SET_META_CONTEXT, wire::REP_ACK, &[]));
    let mut export = wire::INFO_EXPORT.to_be_bytes().to_vec();
    export.extend(DISK_BYTES.to_be_bytes());
    export.extend(wire::FLAG_HAS_FLAGS.to_be_bytes());
    said.extend(option_reply(wire::OPT_GO, wire::REP_INFO, &export));
    said.extend(option_reply(wire::OPT_GO, wire::REP_ACK, &[]));
    said
}

fn chunk(flags: u16, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut chunk = wire::STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    chunk.extend(flags.to_be_bytes());
    chunk.extend(kind.to_be_bytes());
    chunk.extend(1_u64.to_be_bytes());
    chunk.extend((data.len() as u32).to_be_bytes());
    chunk.extend(data);
    chunk
}

fn data_chunk(flags: u16, offset: u64, data: &[u8]) -> Vec<u8> {
    chunk(
        flags,
        wire::CHUNK_OFFSET_DATA,
        &[&offset.to_be_bytes()[..], data].concat(),
    )
}

fn hole_chunk(flags: u16, offset: u64, length: u32) -> Vec<u8> {
    let body = [&offset.to_be_bytes()[..], &length.to_be_bytes()].concat();
    chunk(flags, wire::CHUNK_OFFSET_HOLE, &body)
}

fn status_chunk(context: u32, runs: &[(u32, u32)]) -> Vec<u8> {
    let mut body = context.to_be_bytes().to_vec();
    for (length, state) in runs {
        body.extend(length.to_be_bytes());
        body.extend(state.to_be_bytes());
    }
    chunk(wire::CHUNK_FLAG_DONE, wire::CHUNK_BLOCK_STATUS, &body)
}

fn connect(replies: Vec<u8>) -> Connection<Script> {
    let script = [greeting(), replies].concat();
    Connection::negotiate(Script(Cursor::new(script)), "", Context::Allocation).unwrap()
}

fn read(replies: Vec<u8>, length: usize) -> Result<Vec<u8>> {
    let mut buffer = vec![0xee; length];
    connect(replies).read(4096, &mut buffer).map(|()| buffer)
}

#[test]
fn the_parts_of_a_read_come_in_any_order() {
    let replies = [
        hole_chunk(0, 4096 + 3, 2),
        data_chunk(0, 4096, b"abc"),
        data_chunk(wire::CHUNK_FLAG_DONE, 4096 + 5, b"de"),
    ];
    assert_eq!(read(replies.concat(), 7).unwrap(), b"abc\0\0de");
}

#[test]
fn a_read_that_is_not_filled_exactly_is_an_error() {
    let done = wire::CHUNK_FLAG_DONE;
    for (case, replies) in [
        ("gap", data_chunk(done, 4096, b"abc")),
        ("before", data_chunk(done, 4095, b"abcd")),
        ("behind", data_chunk(done, 4096, b"abcde")),
        ("overflow", hole_chunk(done, u64::MAX, 4)),
        ("huge hole", hole_chunk(done, 4096, u32::MAX)),
        ("nothing", chunk(done, wire::CHUNK_NONE, &[])),
        (
            "overlap",
            [data_chunk(0, 4096, b"abc"), data_chunk(done, 4096, b"a")].concat(),
        ),
        ("cut", data_chunk(done, 4096, b"abcd")[..30].to_vec()),
    ] {
        assert!(read(replies, 4).is_err(), "{case}");
    }
}

#[test]
fn an_error_reply_leaves_the_connection_usable() {
    let mut body = 5_u32.to_be_bytes().to_vec();
    body.extend(3_u16.to_be_bytes());
    body.extend(b"bad");
    body.extend(4096_u64.to_be_bytes());
    let failed = chunk(wire::CHUNK_FLAG_DONE, wire::CHUNK_ERROR_OFFSET, &body);
    let mut second = data_chunk(wire::CHUNK_FLAG_DONE, 0, b"ok");
    second[8..16].copy_from_slice(&2_u64.to_be_bytes());
    let mut connection = connect([failed, second].concat());
    let error = connection.read(4096, &mut [0; 4]).unwrap_err();
    assert!(error.is_answer());
    assert_eq!(io::Error::from(error).raw_os_error(), Some(5));
    let mut buffer = [0; 2];
    connection.read(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"ok");
}

#[test]
fn runs_are_joined_and_cut_to_the_disk() {
    let runs = [(4096, 3), (4096, 2), (8192, 0), (u32::MAX, 1), (512, 0)];
    let extents = connect(status_chunk(CONTEXT, &runs[..4]))
        .extents(0)
        .unwrap();
    let expected =
        [(0, 8192, false), (8192, DISK_BYTES - 8192, true)].map(|(offset, length, data)| Extent {
            offset,
            length,
            data,
        });
    assert_eq!(extents, expected);
    // A run behind the end, another context, no run: none of them is an answer.
    assert!(connect(status_chunk(CONTEXT, &runs)).extents(0).is_err());
    assert!(
        connect(status_chunk(CONTEXT + 1, &runs[..1]))
            .extents(0)
            .is_err()
    );
    assert!(connect(status_chunk(CONTEXT, &[])).extents(0).is_err());
    assert!(
        connect(status_chunk(CONTEXT, &[(0, 0)]))
            .extents(0)
            .is_err()
    );
}

#[test]
fn long_replies_are_refused_before_they_are_read() {
    let mut endless = chunk(0, wire::CHUNK_BLOCK_STATUS, &[]);
    endless[16..20].copy_from_slice(&u32::MAX.to_be_bytes());
    assert!(matches!(
        connect(endless).extents(0),
        Err(NbdError::Protocol(_))
    ));
    let mut option = greeting()[..18].to_vec();
    option.extend(option_reply(wire::OPT_STRUCTURED_REPLY, wire::REP_ACK, &[]));
    let length_at = option.len() - 4;
    option[length_at..].copy_from_slice(&u32::MAX.to_be_bytes());
    let negotiated = Connection::negotiate(Script(Cursor::new(option)), "", Context::Allocation);
    assert!(matches!(negotiated, Err(NbdError::Protocol(_))));
}

proptest! {
    /// Whatever a server says, the client ends, and a result it returns is possible.
    #[test]
    fn no_answer_is_too_odd(
        cut in 0..greeting().len(),
        noise in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let said = [&greeting()[..cut], &noise].concat();
        if let Ok(mut connection) = Connection::negotiate(Script(Cursor::new(said)), "", Context::Allocation) {
            let _ = connection.read(0, &mut [0; 64]);
        }
    }

    #[test]
    fn no_reply_is_too_odd(
        kind in prop_oneof![0_u16..7, any::<u16>()],
        flags in 0_u16..2,
        body in proptest::collection::vec(any::<u8>(), 0..64),
        flip in proptest::option::of((0_usize..84, any::<u8>())),
    ) {
        let mut reply = chunk(flags, kind, &body);
        if let Some((at, bits)) = flip {
            let at = at % reply.len();
            reply[at] ^= bits;
        }
        let _ = read(reply.clone(), 16);
        if let Ok(extents) = connect(reply.clone()).extents(8192) {
            let mut at = 8192;
            for extent in &extents {
                prop_assert_eq!(extent.offset, at);
                prop_assert!(extent.length > 0);
                at = extent.end();
            }
            prop_assert!(at <= DISK_BYTES);
        }
        let _ = connect(reply).flush();
    }
}
