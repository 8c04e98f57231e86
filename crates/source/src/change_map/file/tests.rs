// A list of ranges may hold one.
#![allow(clippy::single_range_in_vec_init)]

use proptest::prelude::*;

use super::*;

const GOOD: &str = "cairn-changes 1\nfrom monday\nto tuesday\nsize 1000\n0 10\n10 1\n999 1\nend\n";

#[test]
fn the_documented_file_is_read() {
    let read = ChangeFile::read(GOOD, 1000).unwrap();
    assert_eq!(read.to, Point::new("file:tuesday").unwrap());
    let since = |name| read.changes_since(&Point::new(name).unwrap());
    assert_eq!(since("file:monday"), Ok(vec![0..10, 10..11, 999..1000]));
    assert!(since("file:tuesday").is_err());
    assert!(since("monday").is_err());
    let first = ChangeFile::read("cairn-changes 1\nfrom -\nto a\nsize 5\nend\n", 5).unwrap();
    assert_eq!((first.from, first.changes), (None, Vec::new()));
}

#[test]
fn a_file_that_is_not_as_documented_is_refused_with_the_line() {
    let long = "x".repeat(101);
    for (line, old, new) in [
        (1, "changes 1", "changes 2"),
        (2, "from monday", "monday"),
        (2, "monday", ""),
        (2, "monday", "on monday"),
        (2, "monday", "m\u{f6}nday"),
        (3, "tuesday", long.as_str()),
        (3, "tuesday", "-"),
        (4, "1000", "1001"),
        (4, "1000", "+1000"),
        (5, "0 10", "0  10"),
        (5, "0 10", "0 0"),
        (5, "0 10", "0 0x10"),
        (5, "0 10", "-1 10"),
        (6, "10 1\n999", "9 1\n999"),
        (6, "10 1\n999", "18446744073709551615 2\n999"),
        (7, "999 1", "999 2"),
        (7, "999 1", ""),
        (8, "end\n", "end"),
        (8, "end\n", ""),
        (8, "end\n", "end\n\n"),
        (8, "end\n", "end\r\n"),
        (8, "monday", "-"),
    ] {
        let text = GOOD.replacen(old, new, 1);
        assert_ne!(text, GOOD);
        let (found, why) = ChangeFile::read(&text, 1000).expect_err(&text);
        assert_eq!(found, line, "{text}: {why}");
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for length in 0..GOOD.len() {
        assert!(ChangeFile::read(&GOOD[..length], 1000).is_err(), "{length}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_without_panic(text in "(cairn-changes 1\nfrom a\nto b\nsize 9\n)?[0-9a-z \n]{0,80}") {
        let _ = ChangeFile::read(&text, 9);
    }
}

#[test]
fn a_pipe_in_its_place_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.img");
    let image = File::create_new(&path).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
    rustix::fs::mknodat(rustix::fs::CWD, path_of(&path), kind, mode, 0).unwrap();
    assert!(ChangeFile::find(&path, &image, 0).is_err());
}
