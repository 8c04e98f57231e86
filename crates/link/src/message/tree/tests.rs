use std::borrow::Cow;

use cairn_types::Kind;
use cairn_types::tree::{DistantPiece, Xattr};

use super::super::{Answer, Question};
use super::*;
use crate::message::tree_answer::{
    About, FileTold, Listed, ListedAbout, Listing, TreeAnswer, WriteFailed,
};
use crate::message::write::{Act, Step};

fn entry(kind: EntryKind) -> Metadata {
    let time = |seconds| FileTime {
        seconds,
        nanoseconds: 999_999_999,
    };
    Metadata {
        kind,
        mode: 0o4755,
        uid: u32::MAX,
        gid: 7,
        size_bytes: if kind == EntryKind::File { 1 << 40 } else { 0 },
        modified: time(-5),
        changed: time(i64::MAX),
        inode: u64::MAX,
        linked: kind == EntryKind::File,
        device: match kind {
            EntryKind::BlockDevice | EntryKind::CharacterDevice => (8, 1),
            _ => (0, 0),
        },
    }
}

fn some_xattrs() -> Vec<Xattr> {
    let xattr = |name: &str, value: &[u8]| Xattr {
        name: name.into(),
        value: value.to_vec(),
    };
    vec![xattr("user.a", b""), xattr("user.b", &[0xff; 3000])]
}

fn refused() -> Refused {
    io::Error::from_raw_os_error(13).into()
}

fn questions() -> Vec<TreeQuestion> {
    let path = b"a/line\nbreak/\xff".to_vec();
    let ranges = vec![
        Range {
            name: b"x".to_vec(),
            offset: u64::MAX,
            bytes: 5,
        };
        RANGES_MAX
    ];
    vec![
        TreeQuestion::Time,
        TreeQuestion::Freeze { held_ms: 60_000 },
        TreeQuestion::Thaw,
        TreeQuestion::Open(Selection {
            paths: vec![
                SelectedPath::default(),
                SelectedPath {
                    path: "/home/ü".to_owned(),
                    exclude: vec!["*.tmp".to_owned(), String::new()],
                },
            ],
        }),
        TreeQuestion::OpenTarget(Target {
            path: "/srv".to_owned(),
        }),
        TreeQuestion::Write(Packed::pack(b"steps")),
        TreeQuestion::List {
            path: Vec::new(),
            after: Vec::new(),
        },
        TreeQuestion::List {
            path: path.clone(),
            after: vec![b'n'; 255],
        },
        TreeQuestion::About { path: path.clone() },
        TreeQuestion::Files {
            path: path.clone(),
            names: vec![b"...".to_vec(); FILES_MAX],
        },
        TreeQuestion::Pieces {
            path: path.clone(),
            from: 9,
        },
        TreeQuestion::Read {
            path: path.clone(),
            ranges: ranges.clone(),
        },
        TreeQuestion::Ids { path, ranges },
    ]
}

fn answers() -> Vec<TreeAnswer> {
    let about = |kind| About {
        metadata: entry(kind),
        xattrs: Ok(some_xattrs()),
    };
    let file = FileTold {
        about: about(EntryKind::File),
        pieces: vec![
            DistantPiece {
                id: [4; 32],
                bytes: 9,
            };
            3
        ],
        ended: true,
        stable: false,
    };
    let failed = WriteFailed {
        path: b"a/b".to_vec(),
        refused: refused(),
    };
    vec![
        TreeAnswer::Time(-5),
        TreeAnswer::Frozen(2),
        TreeAnswer::Thawed(0),
        TreeAnswer::Opened,
        TreeAnswer::NotOpen,
        TreeAnswer::Refused(refused()),
        TreeAnswer::Listings(Packed::pack(&[7; 1000])),
        TreeAnswer::About(about(EntryKind::Directory)),
        TreeAnswer::About(About {
            xattrs: Err(refused()),
            ..about(EntryKind::BlockDevice)
        }),
        TreeAnswer::Files(vec![Ok(file), Err(refused())]),
        TreeAnswer::Read(vec![Ok(3), Err(refused()), Ok(0)], Packed::pack(b"abc")),
        TreeAnswer::Written(Ok(())),
        TreeAnswer::Written(Err(failed)),
        TreeAnswer::Ids(vec![Ok(Some([1; 32])), Ok(None), Err(refused())]),
    ]
}

#[test]
fn what_is_said_of_trees_reads_as_it_was_written() {
    for question in questions() {
        let question = Question::Tree { tree: 3, question };
        assert_eq!(Question::decode(&question.encode()).unwrap(), question);
    }
    for answer in answers() {
        let answer = Answer::Tree(answer);
        assert_eq!(Answer::decode(answer.encode()).unwrap(), answer);
    }
}

#[test]
fn what_is_cut_short_or_too_long_is_refused() {
    for question in questions() {
        let whole = Question::Tree { tree: 3, question }.encode();
        for length in (0..whole.len()).step_by(whole.len().div_ceil(64)) {
            // What is packed ends where it ends.
            if !matches!(whole[5], TreeQuestion::WRITE) {
                assert!(Question::decode(&whole[..length]).is_err(), "{length}");
            }
        }
        if !matches!(whole[5], TreeQuestion::WRITE) {
            assert!(Question::decode(&[&whole[..], &[0]].concat()).is_err());
        }
    }
    let range = Range {
        name: b"x".to_vec(),
        offset: 0,
        bytes: READ_BYTES as u64,
    };
    let read = |ranges| TreeQuestion::Read {
        path: Vec::new(),
        ranges,
    };
    let decoded = |question| Question::decode(&Question::Tree { tree: 0, question }.encode());
    assert!(decoded(read(vec![range.clone()])).is_ok());
    assert!(decoded(read(vec![range.clone(), range.clone()])).is_err());
    assert!(decoded(read(vec![Range { bytes: 0, ..range }; RANGES_MAX + 1])).is_err());
    let names = vec![b"x".to_vec(); FILES_MAX + 1];
    let path = Vec::new();
    assert!(decoded(TreeQuestion::Files { path, names }).is_err());
}

#[test]
fn a_path_or_a_name_that_leads_elsewhere_is_refused() {
    let decoded = |question| Question::decode(&Question::Tree { tree: 0, question }.encode());
    for path in [
        &b".."[..],
        b"a/../b",
        b"/",
        b"/a",
        b"a//b",
        b"a/",
        b".",
        b"a\0b",
        &[b'n'; 256],
    ] {
        let path = path.to_vec();
        assert!(
            decoded(TreeQuestion::About { path: path.clone() }).is_err(),
            "{path:?}"
        );
        let listing = listing_with(&path, &[b"x"]);
        assert!(Listing::decode_all(&listing).is_err(), "{path:?}");
        let mut batch = Vec::new();
        Step {
            path: Cow::Borrowed(&path),
            act: Act::CreateFile { size_bytes: 5 },
        }
        .encode(&mut batch);
        assert!(Step::next(&mut Reader(&batch)).is_err(), "{path:?}");
        batch.clear();
        Step {
            path: Cow::Borrowed(b"new"),
            act: Act::Link(Cow::Borrowed(&path)),
        }
        .encode(&mut batch);
        assert!(Step::next(&mut Reader(&batch)).is_err(), "{path:?}");
    }
    assert!(Listing::decode_all(&listing_with(b"a/b", &[b"x", b"y"])).is_ok());
    for names in [
        &[&b"../../etc/passwd"[..]][..],
        &[b".."],
        &[b"a/b"],
        &[b""],
        &[b"x", b"x"],
        &[b"y", b"x"],
    ] {
        assert!(
            Listing::decode_all(&listing_with(b"a", names)).is_err(),
            "{names:?}"
        );
        let names = names.iter().map(|name| name.to_vec()).collect::<Vec<_>>();
        if names.len() == 1 {
            let path = Vec::new();
            assert!(decoded(TreeQuestion::Files { path, names }).is_err());
        }
    }
}

/// A listing as one who keeps no rule would write it.
fn listing_with(path: &[u8], names: &[&[u8]]) -> Vec<u8> {
    let listed = |name: &&[u8]| Listed {
        name: name.to_vec(),
        about: Ok(ListedAbout {
            metadata: entry(EntryKind::Symlink),
            target: Ok(b"/etc".to_vec()),
            has_xattrs: true,
        }),
    };
    let listing = Listing {
        path: path.to_vec(),
        about: About {
            metadata: entry(EntryKind::Directory),
            xattrs: Ok(Vec::new()),
        },
        entries: names.iter().map(listed).collect(),
        more: false,
    };
    let mut out = Vec::new();
    listing.encode(&mut out);
    out
}

#[test]
fn an_entry_that_can_not_be_is_refused() {
    let read = |metadata: &Metadata| {
        let mut out = Vec::new();
        put_metadata(metadata, &mut out);
        super::metadata(&mut Reader(&out))
    };
    for kind in KINDS {
        assert_eq!(read(&entry(kind)).unwrap(), entry(kind));
    }
    type Change = fn(&mut Metadata);
    let changes: [(EntryKind, Change); 6] = [
        (EntryKind::File, |entry| entry.mode = 0o10_000),
        (EntryKind::File, |entry| entry.device = (1, 1)),
        (EntryKind::File, |entry| {
            entry.modified.nanoseconds = 1_000_000_000
        }),
        (EntryKind::Directory, |entry| entry.linked = true),
        (EntryKind::Directory, |entry| entry.size_bytes = 1),
        (EntryKind::Symlink, |entry| {
            entry.changed.nanoseconds = u32::MAX
        }),
    ];
    for (kind, change) in changes {
        let mut wrong = entry(kind);
        change(&mut wrong);
        assert!(read(&wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn steps_read_as_they_were_written() {
    let acts = [
        Act::CreateDirectory,
        Act::CreateFile { size_bytes: 5 },
        Act::Symlink(b"../../etc"),
        Act::Special(entry(EntryKind::Fifo)),
        Act::Link(Cow::Borrowed(b"a/b")),
        Act::Write {
            offset: 1 << 50,
            data: &[3; 4000],
        },
        Act::Finish(entry(EntryKind::File), some_xattrs()),
        Act::Set(entry(EntryKind::Socket), Vec::new()),
        Act::SetOwn(entry(EntryKind::Directory), some_xattrs()),
        Act::Flush,
    ];
    let steps: Vec<Step<'_>> = acts
        .into_iter()
        .map(|act| Step {
            path: Cow::Borrowed(b"some/path"),
            act,
        })
        .collect();
    let mut batch = Vec::new();
    steps.iter().for_each(|step| step.encode(&mut batch));
    let mut reader = Reader(&batch);
    for step in &steps {
        assert_eq!(Step::next(&mut reader).unwrap().as_ref(), Some(step));
    }
    assert_eq!(Step::next(&mut reader).unwrap(), None);
}

#[test]
fn what_the_system_said_is_said_again() {
    for error in [
        io::Error::from_raw_os_error(28),
        io::ErrorKind::NotFound.into(),
        io::Error::new(io::ErrorKind::PermissionDenied, "it is not allowed"),
        io::Error::other("anything else"),
    ] {
        let (kind, text) = (error.kind(), error.to_string());
        let again = io::Error::from(Refused::from(error));
        assert_eq!((again.kind(), again.to_string()), (kind, text));
    }
    let failed = Answer::Failed {
        kind: Kind::Denied,
        text: "no".to_owned(),
    };
    assert_eq!(Answer::decode(failed.encode()).unwrap(), failed);
}
