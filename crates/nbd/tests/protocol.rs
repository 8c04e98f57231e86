//! What a client may send, and what it gets. Real clients are in `tests/test_export.py`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use cairn_nbd::{Disk, Error, serve};
use cairn_testkit::MemoryDisk;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::JoinSet;

const SIZE: u64 = 1 << 20;
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// The client's side of a connection.
struct Client {
    stream: DuplexStream,
    served: JoinSet<Result<(), Error>>,
}

fn disk() -> MemoryDisk {
    let disk = MemoryDisk::new(SIZE);
    disk.write(65536, &[7; 65536]);
    disk
}

impl Client {
    /// Connects, and takes what is offered.
    async fn connect(disk: Disk) -> Self {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut served = JoinSet::new();
        served.spawn(serve(far, disk));
        let mut client = Self {
            stream: near,
            served,
        };
        assert_eq!(&client.receive::<16>().await, b"NBDMAGICIHAVEOPT");
        assert_eq!(client.receive::<2>().await, [0, 3]);
        client.send(&[0, 0, 0, 3]).await;
        client
    }

    async fn read_only() -> Self {
        Self::connect(Disk::ReadOnly(Arc::new(disk()))).await
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn receive<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    /// Sends an option and returns the kinds of the answers to it.
    async fn option(&mut self, option: u32, data: &[u8]) -> Vec<u32> {
        self.send(b"IHAVEOPT").await;
        self.send(&option.to_be_bytes()).await;
        self.send(&(data.len() as u32).to_be_bytes()).await;
        self.send(data).await;
        let mut kinds = Vec::new();
        loop {
            assert_eq!(
                self.receive::<8>().await,
                0x0003_e889_0455_65a9_u64.to_be_bytes()
            );
            assert_eq!(self.receive::<4>().await, option.to_be_bytes());
            let kind = u32::from_be_bytes(self.receive().await);
            let length = u32::from_be_bytes(self.receive().await);
            let mut answer = vec![0; length as usize];
            self.stream.read_exact(&mut answer).await.unwrap();
            kinds.push(kind);
            if kind == 1 || kind >> 31 == 1 {
                return kinds;
            }
        }
    }

    /// Negotiates without chunks and goes on to requests.
    async fn go(mut self) -> Self {
        assert_eq!(self.option(7, &[0; 6]).await, [3, 3, 1]);
        self
    }

    async fn request(&mut self, command: u16, offset: u64, length: u32) {
        self.send(&0x2560_9513_u32.to_be_bytes()).await;
        self.send(&[0, 0]).await;
        self.send(&command.to_be_bytes()).await;
        self.send(&77_u64.to_be_bytes()).await;
        self.send(&offset.to_be_bytes()).await;
        self.send(&length.to_be_bytes()).await;
    }

    /// The error of a simple reply.
    async fn answer(&mut self) -> u32 {
        assert_eq!(self.receive::<4>().await, 0x6744_6698_u32.to_be_bytes());
        let error = u32::from_be_bytes(self.receive().await);
        assert_eq!(self.receive::<8>().await, 77_u64.to_be_bytes());
        error
    }

    /// Ends the connection, and says how it ended at the other side.
    async fn end(mut self) -> Result<(), Error> {
        drop(self.stream);
        let ended = tokio::time::timeout(PATIENCE, self.served.join_next());
        ended.await.unwrap().unwrap().unwrap()
    }
}

#[tokio::test]
async fn what_there_is_not_is_refused_and_the_connection_goes_on() {
    let mut client = Client::read_only().await;
    let unsupported = vec![1 << 31 | 1];
    assert_eq!(client.option(5, &[]).await, unsupported, "TLS");
    assert_eq!(client.option(99, b"whatever").await, unsupported);
    let invalid = vec![1 << 31 | 3];
    assert_eq!(
        client.option(10, &[0; 8]).await,
        invalid,
        "contexts before chunks"
    );
    assert_eq!(
        client.option(7, &[0, 0, 0, 9, 0, 0]).await,
        invalid,
        "a name that is cut short"
    );
    assert_eq!(client.option(3, b"x").await, invalid);
    assert_eq!(client.option(8, &[]).await, [1]);
    assert_eq!(
        client.option(10, &[0, 0, 0, 0, 255, 255, 255, 255]).await,
        invalid
    );
    let client = client.go().await;
    assert!(client.end().await.is_ok());
}

#[tokio::test]
async fn a_request_that_cannot_be_is_answered_so() {
    let mut client = Client::read_only().await.go().await;
    for (command, offset, length, error) in [
        (0, SIZE, 1, 22),
        (0, u64::MAX, 2, 22),
        (0, 0, u32::MAX, 22),
        (7, 0, 1, 22),
        (3, 0, 0, 1),
        (6, 0, 100, 1),
        (4, 0, 100, 1),
        (99, 0, 0, 22),
        (0, 5, 0, 0),
    ] {
        client.request(command, offset, length).await;
        assert_eq!(
            client.answer().await,
            error,
            "{command} at {offset}, {length}"
        );
    }
    client.request(1, 0, 4).await;
    client.send(&[0; 4]).await;
    assert_eq!(client.answer().await, 1, "a write");
    client.request(0, 65535, 2).await;
    assert_eq!(client.answer().await, 0);
    assert_eq!(client.receive::<2>().await, [0, 7]);
    client.request(2, 0, 0).await;
    assert!(client.end().await.is_ok());
}

#[tokio::test]
async fn what_is_written_is_read() {
    let mut client = Client::connect(Disk::Writable(Arc::new(disk())))
        .await
        .go()
        .await;
    client.request(1, 65530, 12).await;
    client.send(&[9; 12]).await;
    assert_eq!(client.answer().await, 0);
    client.request(6, 65540, 4).await;
    assert_eq!(client.answer().await, 0);
    client.request(3, 0, 0).await;
    assert_eq!(client.answer().await, 0);
    client.request(0, 65529, 16).await;
    assert_eq!(client.answer().await, 0);
    let read = client.receive::<16>().await;
    assert_eq!(read, [0, 9, 9, 9, 9, 9, 9, 9, 9, 9, 9, 0, 0, 0, 0, 7]);
    client.request(1, SIZE - 1, 2).await;
    client.send(&[1; 2]).await;
    assert_eq!(client.answer().await, 28, "behind the end");
    assert!(client.end().await.is_ok());
}

#[tokio::test]
async fn a_disk_that_cannot_be_read_is_an_error_and_not_zeros() {
    let failing = disk();
    failing.fail_reads_at(65536);
    let mut client = Client::connect(Disk::ReadOnly(Arc::new(failing)))
        .await
        .go()
        .await;
    client.request(0, 65536, 100).await;
    assert_eq!(client.answer().await, 5);
    client.request(0, 0, 1).await;
    assert_eq!(client.answer().await, 0);
    assert_eq!(client.receive::<1>().await, [0]);
    assert!(client.end().await.is_ok());
}

#[tokio::test]
async fn too_much_ends_the_connection() {
    let mut client = Client::connect(Disk::Writable(Arc::new(disk())))
        .await
        .go()
        .await;
    client.request(1, 0, u32::MAX).await;
    assert!(matches!(client.end().await, Err(Error::Protocol(_))));
    let mut client = Client::read_only().await;
    client.send(b"IHAVEOPT").await;
    client.send(&[0, 0, 0, 7, 255, 255, 255, 255]).await;
    assert!(matches!(client.end().await, Err(Error::Protocol(_))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn whatever_is_sent_the_connection_ends(
        begun in 0..3_usize,
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        magic in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut client = Client::connect(Disk::Writable(Arc::new(disk()))).await;
            if begun == 2 {
                client = client.go().await;
            }
            let start: &[u8] = match (magic, begun) {
                (true, 1) => b"IHAVEOPT",
                (true, 2) => &[0x25, 0x60, 0x95, 0x13],
                _ => &[],
            };
            // It may have been closed already.
            let _ = client.stream.write_all(&[start, &bytes[..]].concat()).await;
            let _ = client.end().await;
        });
    }
}
