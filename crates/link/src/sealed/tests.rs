use cairn_types::{AgentId, BackupId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::handshake::{End, EphemeralKey, Instance, Purpose};

/// The keys of both ends, which believe in these purposes and secrets.
fn keys(asking: (Purpose, &[u8]), answering: (Purpose, &[u8])) -> (Keys, Keys) {
    let (one, two) = (EphemeralKey::generate(), EphemeralKey::generate());
    let (public_one, public_two) = (one.public(), two.public());
    (
        one.agree(End::Asking, &public_two, asking).unwrap(),
        two.agree(End::Answering, &public_one, answering).unwrap(),
    )
}

fn same_keys() -> (Keys, Keys) {
    let both = (Purpose::Replica(BackupId::random()), &b"secret"[..]);
    keys(both, both)
}

/// What an end with these keys writes, and an end with the others that reads given bytes.
async fn written(keys: Keys, records: &[&[u8]]) -> Vec<u8> {
    let (near, mut far) = duplex(1 << 20);
    let mut connection = Connection::new(Box::new(near), keys);
    for record in records {
        connection.sender.send(record, &[]).await.unwrap();
    }
    drop(connection);
    let mut bytes = Vec::new();
    far.read_to_end(&mut bytes).await.unwrap();
    bytes
}

async fn reader(keys: Keys, bytes: &[u8]) -> Connection {
    let (near, mut far): (DuplexStream, DuplexStream) = duplex(1 << 20);
    far.write_all(bytes).await.unwrap();
    Connection::new(Box::new(near), keys)
}

async fn read_all(keys: Keys, bytes: &[u8]) -> Result<Vec<Vec<u8>>> {
    let mut connection = reader(keys, bytes).await;
    let mut records = Vec::new();
    while let Some(record) = connection.receiver.receive(RECORD_MAX).await? {
        records.push(record);
    }
    Ok(records)
}

const RECORDS: [&[u8]; 3] = [b"one", b"", b"three"];

#[tokio::test]
async fn records_come_as_they_went() {
    let (asking, answering) = same_keys();
    let bytes = written(asking, &RECORDS).await;
    assert_eq!(read_all(answering, &bytes).await.unwrap(), RECORDS);
}

#[tokio::test]
async fn who_has_another_secret_or_means_something_else_reads_nothing() {
    let (id, other) = (BackupId::random(), BackupId::random());
    let (one, two) = (Purpose::Replica(id), Purpose::Replica(other));
    let agent = AgentId::from_uuid(uuid::Uuid::from_bytes(*id.as_bytes()));
    let [agent, elsewhere] =
        [b"here", b"else"].map(|what| Purpose::Agent(agent, Instance::of(what)));
    for (asking, answering) in [
        ((one, &b"secret"[..]), (one, &b"other"[..])),
        ((one, b"secret"), (two, b"secret")),
        ((one, b"secret"), (agent, b"secret")),
        ((agent, b"secret"), (elsewhere, b"secret")),
    ] {
        let (asking, answering) = keys(asking, answering);
        let bytes = written(asking, &RECORDS).await;
        let read = read_all(answering, &bytes).await;
        assert!(matches!(read, Err(Error::NotAuthentic)));
    }
    // Nor does who mixes the ends up.
    let (asking, _) = same_keys();
    let bytes = written(asking, &RECORDS).await;
    let (other, _) = same_keys();
    assert!(read_all(other, &bytes).await.is_err());
}

#[tokio::test]
async fn every_flipped_bit_is_noticed() {
    let bytes = written(fixed_keys(), &[b"record"]).await;
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        let mut end = reader_of(&wrong).await;
        let read = end.receive(RECORD_MAX).await;
        assert!(read.is_err(), "bit {bit}");
    }
}

/// A receiver from the first record on, as often as the test wants.
async fn reader_of(bytes: &[u8]) -> Receiver {
    let (near, mut far) = duplex(1 << 20);
    far.write_all(bytes).await.unwrap();
    let (from, _) = tokio::io::split(Box::new(near) as Box<dyn Stream>);
    Receiver {
        io: from,
        key: fixed_key(),
        next: 0,
    }
}

fn fixed_key() -> LessSafeKey {
    use aws_lc_rs::aead::{AES_256_GCM, UnboundKey};
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[9; 32]).unwrap())
}

fn fixed_keys() -> Keys {
    Keys {
        send: fixed_key(),
        receive: fixed_key(),
        purpose: Purpose::Replica(BackupId::random()),
    }
}

#[tokio::test]
async fn a_record_that_is_repeated_left_out_or_moved_is_noticed() {
    let bytes = written(fixed_keys(), &[b"aaa", b"bbb", b"ccc"]).await;
    let record = bytes.len() / 3;
    let part = |at: usize| &bytes[at * record..(at + 1) * record];
    for order in [vec![0, 0], vec![0, 2], vec![1, 0], vec![2]] {
        let wrong: Vec<u8> = order.iter().flat_map(|at| part(*at).to_vec()).collect();
        let mut end = reader_of(&wrong).await;
        let mut read = Ok(None);
        for _ in order {
            read = end.receive(RECORD_MAX).await;
            if read.is_err() {
                break;
            }
        }
        assert!(matches!(read, Err(Error::NotAuthentic)));
    }
    let mut cut = reader_of(&bytes[..record - 1]).await;
    assert!(matches!(cut.receive(RECORD_MAX).await, Err(Error::Lost(_))));
}

#[tokio::test]
async fn a_length_beyond_the_limit_takes_no_memory() {
    for length in [0, 15, FIRST_RECORD_MAX as u32 + 1, u32::MAX] {
        let mut end = reader_of(&length.to_le_bytes()).await;
        let read = end.receive(FIRST_RECORD_MAX).await;
        assert!(matches!(read, Err(Error::NotAuthentic)), "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_that_says_nothing_counts_as_gone() {
    let (near, _far) = duplex(64);
    let (asking, _) = same_keys();
    let mut connection = Connection::new(Box::new(near), asking);
    let start = tokio::time::Instant::now();
    let read = connection.receiver.receive(RECORD_MAX).await;
    assert!(matches!(read, Err(Error::Lost(Some(_)))));
    assert_eq!(start.elapsed(), SILENCE);
    // Nor does one that takes nothing.
    let sent = connection.sender.send(&[0; 1000], &[]).await;
    assert!(matches!(sent, Err(Error::Lost(Some(_)))));
}
