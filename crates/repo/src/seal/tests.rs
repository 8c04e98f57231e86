use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex};

use cairn_testkit::{Fault, FaultyStore, MemoryDisk, backup_info};
use cairn_types::{Kind, ProjectId};
use object_store::memory::InMemory;

use super::*;
use crate::{MasterKey, Repository, WriteDisk};

const MAGIC: [u8; 8] = *b"testtest";

/// What a key is derived from, and the number of a nonce.
type Use = ([u8; SALT_BYTES], u32);

/// Everything that was sealed under in this process.
static USED: LazyLock<Mutex<HashSet<Use>>> = LazyLock::new(Mutex::default);

/// Called for each seal of each test: a key and nonce that come twice fail it.
pub(super) fn note_use(salt: [u8; SALT_BYTES], counter: u32) {
    let new = USED.lock().unwrap().insert((salt, counter));
    assert!(new, "a nonce was used twice under one key");
}

#[test]
fn an_object_opens_only_whole_unchanged_and_in_its_place() {
    let object = seal_object(&[7; 32], MAGIC, b"place", b"secret");
    assert_eq!(
        open_object(&[7; 32], MAGIC, b"place", &object).unwrap(),
        b"secret"
    );
    assert_eq!(
        open_object(&[8; 32], MAGIC, b"place", &object),
        Err(OpenError::NotAuthentic)
    );
    assert!(open_object(&[7; 32], *b"otherone", b"place", &object).is_err());
    assert!(open_object(&[7; 32], MAGIC, b"other", &object).is_err());
    for at in 0..object.len() {
        let mut changed = object.clone();
        changed[at] ^= 1;
        assert!(
            open_object(&[7; 32], MAGIC, b"place", &changed).is_err(),
            "byte {at}"
        );
        assert!(
            open_object(&[7; 32], MAGIC, b"place", &object[..at]).is_err(),
            "cut at {at}"
        );
    }
}

#[test]
fn what_was_changed_by_who_made_it_whole_again_does_not_open() {
    let object = seal_object(&[7; 32], MAGIC, b"place", b"secret");
    let body = object.len() - HASH_BYTES;
    for at in 0..body {
        let mut changed = object[..body].to_vec();
        changed[at] ^= 1;
        whole::append_hash(&mut changed);
        assert!(
            open_object(&[7; 32], MAGIC, b"place", &changed).is_err(),
            "byte {at}"
        );
    }
}

#[test]
fn a_newer_format_is_named() {
    let object = seal_object(&[7; 32], MAGIC, b"", b"");
    let mut newer = object[..object.len() - HASH_BYTES].to_vec();
    newer[8] = 2;
    whole::append_hash(&mut newer);
    assert_eq!(
        open_object(&[7; 32], MAGIC, b"", &newer),
        Err(OpenError::Newer(2))
    );
}

/// Attempts of work in a long run, most of which fail once on their way.
const ATTEMPTS: u64 = 60;

#[tokio::test]
async fn a_long_run_of_work_that_fails_and_is_repeated_uses_no_nonce_twice() {
    let store = FaultyStore::new(Arc::new(InMemory::new()));
    let opened = Repository::create(Arc::new(store.clone()), &MasterKey::generate()).await;
    let id = ProjectId::random();
    let project = opened.unwrap().project(id).await.unwrap();
    let disk = Arc::new(MemoryDisk::new(200 << 16));
    let mut random = blake3::Hasher::new().finalize_xof();
    let mut draw = |below: u64| {
        let mut bytes = [0; 8];
        random.fill(&mut bytes);
        u64::from_le_bytes(bytes) % below
    };
    let before = USED.lock().unwrap().len();
    let (mut failed, mut info) = (0, backup_info(id, 0));
    for attempt in 0..ATTEMPTS {
        store.set((attempt % 3 > 0).then(|| Fault::Once(draw(20))));
        let (mut noise, seed) = (vec![0; 50 << 16], draw(u64::MAX).to_le_bytes());
        blake3::Hasher::new()
            .update(&seed)
            .finalize_xof()
            .fill(&mut noise);
        disk.write(draw(150) << 16, &noise);
        let job = WriteDisk {
            info: info.clone(),
            parent: None,
            reader: disk.clone(),
            progress: Arc::default(),
            reread_all: false,
        };
        match project.write_disk(job).await {
            Err(error) => {
                failed += 1;
                if error.kind() == Kind::Conflict {
                    // The attempt before had got to its receipt.
                    info = backup_info(id, attempt as i64);
                }
            }
            Ok(_) => {
                if draw(2) == 0 {
                    failed += u64::from(project.delete(info.id).await.is_err());
                    failed += u64::from(project.collect(&[], Arc::default()).await.is_err());
                }
                info = backup_info(id, attempt as i64);
            }
        }
    }
    let used = USED.lock().unwrap();
    assert!(used.len() - before > 200, "{}", used.len() - before);
    assert!(
        used.iter()
            .any(|(_, counter)| (2..LAST_COUNTER).contains(counter))
    );
    assert!(failed > 10, "{failed}");
}
