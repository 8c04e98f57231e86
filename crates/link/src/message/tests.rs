use super::*;

fn disk() -> ResourceId {
    ResourceId::from_uuid(Uuid::from_u128(7))
}

fn some_point() -> Point {
    Point::new("cairn:a:b").unwrap()
}

#[test]
fn questions_read_as_they_were_written() {
    let disk = disk();
    for question in [
        Question::Open { disk },
        Question::Extents { disk, offset: 9 },
        Question::Changes {
            disk,
            point: some_point(),
            from: u64::MAX,
        },
        Question::Ids {
            disk,
            blocks: (0..IDS_MAX as u64).collect(),
        },
        Question::Blocks {
            disk,
            blocks: vec![],
        },
        Question::Ping { done: 1, total: 2 },
    ] {
        assert_eq!(Question::decode(&question.encode()).unwrap(), question);
    }
}

#[test]
fn answers_read_as_they_were_written() {
    for answer in [
        Answer::Disk {
            size_bytes: 5,
            point: Some(some_point()),
        },
        Answer::Disk {
            size_bytes: 0,
            point: None,
        },
        Answer::Extents(vec![(1 << 62, true), (1, false)]),
        Answer::Changes {
            ranges: vec![0..1, 5..u64::MAX],
            more: true,
        },
        Answer::NoChangeMap("why".to_owned()),
        Answer::Ids(vec![[1; 32], [2; 32]]),
        Answer::Blocks(vec![1, 2, 3]),
        Answer::Pong,
        Answer::Busy,
        Answer::Failed {
            kind: Kind::Corrupt,
            text: "damaged".to_owned(),
        },
    ] {
        assert_eq!(Answer::decode(answer.encode()).unwrap(), answer);
    }
    for kind in KINDS {
        assert_eq!(kind_of(number_of(kind)), kind);
    }
}

#[test]
fn what_is_too_long_or_too_short_is_refused() {
    let many = |blocks: usize, sort: fn(Vec<u64>) -> Question| sort(vec![0; blocks]).encode();
    let ids = |blocks| Question::Ids {
        disk: disk(),
        blocks,
    };
    let blocks = |blocks| Question::Blocks {
        disk: disk(),
        blocks,
    };
    assert!(Question::decode(&many(IDS_MAX, ids)).is_ok());
    assert!(Question::decode(&many(IDS_MAX + 1, ids)).is_err());
    assert!(Question::decode(&many(BLOCKS_MAX, blocks)).is_ok());
    assert!(Question::decode(&many(BLOCKS_MAX + 1, blocks)).is_err());
    let extents = |count| Answer::Extents(vec![(1, true); count]).encode();
    assert!(Answer::decode(extents(EXTENTS_MAX)).is_ok());
    assert!(Answer::decode(extents(EXTENTS_MAX + 1)).is_err());
    for question in [ids(vec![1, 2]), Question::Open { disk: disk() }] {
        let whole = question.encode();
        for length in [0, 1, 16, whole.len() - 1] {
            if length == 16 || length < whole.len() {
                assert!(Question::decode(&whole[..length]).is_err(), "{length}");
            }
        }
    }
    let long = "ü".repeat(TEXT_MAX);
    assert!(Answer::NoChangeMap(long).encode().len() <= 1 + TEXT_MAX);
}

#[test]
fn bytes_at_random_are_refused_or_read() {
    for seed in 0..20_000_u32 {
        let hash = blake3::hash(&seed.to_le_bytes());
        let mut bytes = vec![0; (seed % 70) as usize];
        let mut reader = blake3::Hasher::new();
        reader.update(hash.as_bytes());
        reader.finalize_xof().fill(&mut bytes);
        if let Some(sort) = bytes.first_mut() {
            *sort %= 11;
        }
        if let Ok(question) = Question::decode(&bytes) {
            assert_eq!(Question::decode(&question.encode()).unwrap(), question);
        }
        if let Ok(answer) = Answer::decode(bytes) {
            assert_eq!(Answer::decode(answer.encode()).unwrap(), answer);
        }
    }
}

#[test]
fn another_version_is_named() {
    let (replica, agent) = (Sort::Replica, Sort::Agent);
    let keys = ChunkKeys {
        block: Zeroizing::new([3; 32]),
        cut_seed: 9,
    };
    for sort in [replica, agent] {
        assert!(read_hello(sort, &hello(sort)).is_ok());
        let read = read_welcome(sort, &welcome(sort, &keys)).unwrap();
        assert_eq!(*read.block, *keys.block);
    }
    assert_eq!(
        read_welcome(agent, &welcome(agent, &keys))
            .unwrap()
            .cut_seed,
        9
    );
    assert!(read_hello(agent, &hello(replica)).is_err());
    assert!(read_welcome(agent, &welcome(replica, &keys)).is_err());
    let mut newer = hello(replica);
    *newer.last_mut().unwrap() += 1;
    assert!(matches!(
        read_hello(replica, &newer),
        Err(Error::Version { found: 257, .. })
    ));
    for wrong in [&b""[..], b"cairn replica", b"GET / HTTP/1.1"] {
        assert!(read_hello(replica, wrong).is_err());
        assert!(read_welcome(replica, wrong).is_err());
    }
}
