//! Both ends of a line in one process, over connections that end whenever they like.

#![allow(clippy::unwrap_used)]

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cairn_link::{
    ChunkKeys, Connection, Disks, End, EphemeralKey, Error, Limit, Line, Purpose, Result, answer,
};
use cairn_testkit::{MemoryDisk, noise};
use cairn_types::disk::{BlockId, DiskError, DiskReader, Extent, NoChangeMap, Point};
use cairn_types::{BackupId, Kind, Progress, ResourceId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::task::JoinSet;

const BLOCK: usize = 64 << 10;

/// A disk that knows what it is called and what has changed.
struct Named {
    disk: MemoryDisk,
    changes: Vec<Range<u64>>,
}

impl DiskReader for Named {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }
    fn extent_at(&self, offset: u64) -> Result<Extent, DiskError> {
        self.disk.extent_at(offset)
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(offset, buffer)
    }
    fn check_unchanged(&self) -> Result<(), DiskError> {
        Ok(())
    }
    fn point(&self) -> Option<Point> {
        Point::new("now")
    }
    fn changes_since(&self, earlier: &Point) -> Result<Vec<Range<u64>>, NoChangeMap> {
        match earlier.as_str() {
            "then" => Ok(self.changes.clone()),
            _ => Err(NoChangeMap("never heard of it".to_owned())),
        }
    }
}

struct One(ResourceId, Arc<dyn DiskReader>);

impl Disks for One {
    fn open(&self, disk: ResourceId) -> Result<Arc<dyn DiskReader>, (Kind, String)> {
        match disk == self.0 {
            true => Ok(self.1.clone()),
            false => Err((Kind::NotFound, "there is none".to_owned())),
        }
    }
    fn block_id(&self, key: &[u8; 32], plain: &[u8]) -> BlockId {
        *blake3_of(key, plain)
    }
    fn kind_of(&self, _: DiskError) -> Kind {
        Kind::Corrupt
    }
}

fn blake3_of(key: &[u8; 32], plain: &[u8]) -> Box<BlockId> {
    // Any function of both will do here.
    let mut id = *key;
    for (at, byte) in plain.iter().enumerate() {
        id[at % 32] = id[at % 32].wrapping_mul(31).wrapping_add(*byte);
    }
    Box::new(id)
}

/// Two servers and what is between them.
struct World {
    disk: ResourceId,
    replica: BackupId,
    answering: Arc<One>,
    line: Line,
    tasks: Mutex<JoinSet<Result<()>>>,
    carried: Arc<AtomicU64>,
    progress: Arc<Progress>,
    shown: Arc<Progress>,
}

const KEY: [u8; 32] = [5; 32];

impl World {
    fn new(disk: MemoryDisk, changes: Vec<Range<u64>>) -> Self {
        let (resource, progress) = (ResourceId::random(), Arc::new(Progress::default()));
        let answering = One(resource, Arc::new(Named { disk, changes }));
        Self {
            disk: resource,
            replica: BackupId::random(),
            answering: Arc::new(answering),
            line: Line::new(Duration::from_secs(30), progress.clone()),
            tasks: Mutex::default(),
            carried: Arc::default(),
            progress,
            shown: Arc::default(),
        }
    }

    /// Connects both ends by a wire that ends after so many bytes of answers.
    async fn connect(&self, until: u64, limits: Vec<Arc<Limit>>) {
        let both = (Purpose::Replica(self.replica), &b"secret"[..]);
        let (asks, answers) = (EphemeralKey::generate(), EphemeralKey::generate());
        let (asks_public, answers_public) = (asks.public(), answers.public());
        let asking = asks.agree(End::Asking, &answers_public, both).unwrap();
        let answering = answers.agree(End::Answering, &asks_public, both).unwrap();
        let ((near, one), (far, two)) = (duplex(1 << 16), duplex(1 << 16));
        let carried = self.carried.clone();
        let (disks, shown) = (self.answering.clone(), self.shown.clone());
        {
            let mut tasks = self.tasks.lock().unwrap();
            tasks.spawn(carry(split(one), split(two), until, carried));
            tasks.spawn(async move {
                let connection = Connection::new(Box::new(far), answering);
                answer(connection, disks, &limits, &shown).await.ended
            });
        }
        let mut connection = Connection::new(Box::new(near), asking);
        Line::prove(&mut connection).await.unwrap();
        let keys = ChunkKeys {
            block: KEY.into(),
            cut_seed: 0,
        };
        self.line.attach(connection, &keys).await.unwrap();
    }

    /// Asks the disk something where that may block.
    async fn on<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&dyn DiskReader) -> T + Send + 'static,
    ) -> T {
        let disk = self.line.open_disk(self.disk).await.unwrap();
        tokio::task::spawn_blocking(move || ask(&*disk))
            .await
            .unwrap()
    }
}

type Halves = (ReadHalf<DuplexStream>, WriteHalf<DuplexStream>);

/// Carries bytes both ways, until so many have come from `two`.
async fn carry(one: Halves, two: Halves, until: u64, carried: Arc<AtomicU64>) -> Result<()> {
    let ((mut from_one, mut to_one), (mut from_two, mut to_two)) = (one, two);
    let back = async {
        let (mut left, mut buffer) = (until, vec![0; 4096]);
        while left > 0 {
            let Ok(count @ 1..) = from_two.read(&mut buffer).await else {
                return;
            };
            carried.fetch_add(count as u64, Ordering::Relaxed);
            if to_one.write_all(&buffer[..count]).await.is_err() {
                return;
            }
            left = left.saturating_sub(count as u64);
        }
    };
    tokio::select! {
        () = back => {}
        _ = tokio::io::copy(&mut from_one, &mut to_two) => {}
    }
    Ok(())
}

fn disk() -> (MemoryDisk, Vec<u8>) {
    let mut bytes = noise(3, 300 * BLOCK + 5);
    bytes[10 * BLOCK..50 * BLOCK].fill(0);
    let disk = MemoryDisk::new(bytes.len() as u64);
    disk.write(0, &bytes[..10 * BLOCK]);
    disk.write(50 * BLOCK as u64, &bytes[50 * BLOCK..]);
    (disk, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_is_the_same_at_both_ends() {
    let (disk, bytes) = disk();
    let world = World::new(disk, vec![0..1, BLOCK as u64..9 * BLOCK as u64]);
    world.connect(u64::MAX, Vec::new()).await;
    let copy = bytes.clone();
    world
        .on(move |disk| {
            assert_eq!(disk.size_bytes(), copy.len() as u64);
            assert_eq!(disk.point().unwrap().as_str(), "now");
            let hole = disk.extent_at(11 * BLOCK as u64 + 1).unwrap();
            assert_eq!((hole.data, hole.end()), (false, 50 * BLOCK as u64));
            assert!(disk.extent_at(7).unwrap().data);
            for (start, length) in [(0, copy.len()), (9 * BLOCK + 7, 3 * BLOCK), (copy.len(), 0)] {
                let mut read = vec![1; length];
                disk.read_at(start as u64, &mut read).unwrap();
                assert!(read == copy[start..start + length], "{start}");
            }
            assert!(disk.read_at(copy.len() as u64, &mut [0]).is_err());
            let distant = disk.distant().unwrap();
            let ids = distant.block_ids(&[0, 11, 300]).unwrap();
            let part = |block: usize| &copy[block * BLOCK..copy.len().min((block + 1) * BLOCK)];
            let expected = [0, 11, 300].map(|block| *blake3_of(&KEY, part(block)));
            assert_eq!(ids, expected);
            let blocks = distant.read_blocks(&[300, 60]).unwrap();
            assert!(blocks[0] == part(300) && blocks[1] == part(60));
            let then = Point::new("then").unwrap();
            assert_eq!(disk.changes_since(&then).unwrap().len(), 2);
            let never = disk.changes_since(&Point::new("x").unwrap());
            assert_eq!(never.unwrap_err().0, "never heard of it");
        })
        .await;
    let other = world.line.open_disk(ResourceId::random()).await;
    let other = other.map(|_| ()).unwrap_err();
    assert_eq!(other.kind(), Kind::NotFound);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_changes_come_in_parts() {
    let block = BLOCK as u64;
    let changes: Vec<Range<u64>> = (0..200_000)
        .map(|n| 2 * n * block..(2 * n + 1) * block)
        .collect();
    let world = World::new(MemoryDisk::new(1 << 40), changes.clone());
    world.connect(u64::MAX, Vec::new()).await;
    let told = world
        .on(|disk| disk.changes_since(&Point::new("then").unwrap()))
        .await;
    assert!(told.unwrap() == changes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_was_not_answered_is_asked_again() {
    let (disk, bytes) = disk();
    let world = Arc::new(World::new(disk, Vec::new()));
    // Every connection ends after 3 MiB; somebody makes the next.
    let again = world.clone();
    let mut reconnecting = JoinSet::new();
    reconnecting.spawn(async move {
        loop {
            if !again.line.is_live() {
                again.connect(3 << 20, Vec::new()).await;
            }
            tokio::task::yield_now().await;
        }
    });
    let mut readers = JoinSet::new();
    for thread in 0..3 {
        let (world, bytes) = (world.clone(), bytes.clone());
        readers.spawn(async move {
            let read = world.on(move |disk| {
                let distant = disk.distant().unwrap();
                for first in (thread * 16..300).step_by(48) {
                    let blocks: Vec<u64> = (first..(first + 16).min(301)).collect();
                    let plain = distant.read_blocks(&blocks).unwrap().concat();
                    let start = first as usize * BLOCK;
                    assert!(plain == bytes[start..start + plain.len()]);
                }
            });
            read.await;
        });
    }
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    let carried = world.carried.load(Ordering::Relaxed);
    assert!(carried < 2 * bytes.len() as u64, "{carried}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_connection_can_be_told_to_stop() {
    let (disk, _) = disk();
    let world = Arc::new(World::new(disk, Vec::new()));
    world.connect(u64::MAX, Vec::new()).await;
    world.progress.add_total(100);
    world.progress.advance(40);
    let shown = world.shown.clone();
    let told = async {
        while shown.total() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .unwrap();
    assert_eq!((shown.done(), shown.total()), (40, 100));
    // The other end goes; who asks waits, and stops when told to.
    world.shown.cancel();
    let asking = world.clone();
    let mut waits = JoinSet::new();
    waits.spawn(async move { asking.line.open_disk(asking.disk).await.map(|_| ()) });
    world.progress.cancel();
    let ended = waits.join_next().await.unwrap().unwrap();
    assert!(matches!(ended, Err(Error::Cancelled)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_is_kept() {
    let (disk, bytes) = disk();
    let world = World::new(disk, Vec::new());
    let limit = Arc::new(Limit::new(16 << 20));
    world.connect(u64::MAX, vec![limit]).await;
    let start = std::time::Instant::now();
    let length = bytes.len();
    world
        .on(move |disk| disk.read_at(0, &mut vec![0; length]).unwrap())
        .await;
    let least = (length - 40 * BLOCK) as f64 / (16 << 20) as f64 - 0.15;
    let took = start.elapsed().as_secs_f64();
    assert!(took >= least, "{took} s, and {least} s at least");
}
