//! How much a restore reads for what it needs, and that it stays little.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;

use cairn_testkit::MemoryDisk;
use common::{BLOCK, World, noise};

#[tokio::test]
async fn a_restore_says_what_it_read() {
    let world = World::new().await;
    let disk = Arc::new(MemoryDisk::with(&noise(21, 200 * BLOCK)));
    let (first, _) = world.write(&disk).await.unwrap();
    let (_, all) = world.restore(first).await.unwrap();
    let (data, plain) = (200 * BLOCK as u64, 1 << 20);
    assert_eq!(all.data_bytes, data);
    assert!((data..data + plain).contains(&all.opened_bytes), "{all:?}");
    assert!((data..data + plain).contains(&all.read_bytes), "{all:?}");
    assert!((4..40).contains(&all.requests), "{all:?}");
    // Of another disk a few blocks are in frames full of what it does not need.
    let few = Arc::new(MemoryDisk::with(&disk.bytes()[..3 * BLOCK]));
    let (second, _) = world.write(&few).await.unwrap();
    let (_, some) = world.restore(second).await.unwrap();
    assert_eq!(some.data_bytes, 3 * BLOCK as u64);
    assert!(some.opened_bytes > 10 * some.data_bytes, "{some:?}");
}
