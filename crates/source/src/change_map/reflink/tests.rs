// A list of ranges may hold one.
#![allow(clippy::single_range_in_vec_init)]

use super::*;

fn extent(logical: u64, physical: u64, length: u64) -> MappedExtent {
    MappedExtent {
        logical,
        physical,
        length,
        is_plain: true,
    }
}

#[test]
fn files_that_share_all_extents_do_not_differ() {
    let one = [extent(0, 1000, 30), extent(50, 2000, 10)];
    // The same bytes of the device, cut otherwise.
    let two = [
        extent(0, 1000, 7),
        extent(7, 1007, 23),
        extent(50, 2000, 10),
    ];
    assert_eq!(differences(&one, &two), []);
    assert_eq!(differences(&[], &[]), []);
}

#[test]
fn what_was_written_punched_or_added_differs() {
    let before = [extent(0, 1000, 100), extent(200, 3000, 100)];
    let now = [
        extent(0, 1000, 40),
        extent(40, 5000, 20),
        extent(60, 1060, 20),
        extent(150, 6000, 10),
        extent(200, 3000, 100),
        extent(300, 7000, 5),
    ];
    let changes = [40..60, 80..100, 150..160, 300..305];
    assert_eq!(differences(&before, &now), changes);
    assert_eq!(differences(&now, &before), changes);
}

#[test]
fn extents_that_cannot_be_compared_differ_even_from_themselves() {
    let unsure = [MappedExtent {
        is_plain: false,
        ..extent(10, 0, 10)
    }];
    assert_eq!(differences(&unsure, &unsure), [10..20]);
}

#[test]
fn names_of_other_volumes_and_files_are_not_taken() {
    let (mine, other) = (ResourceId::random(), ResourceId::random());
    assert_eq!(
        number_in(&format!("{mine}.0000000012.aZ09"), mine),
        Some(12)
    );
    for name in [
        format!("{other}.0000000012.aZ09"),
        format!("{mine}.0000000012."),
        format!("{mine}.0000000012./../x"),
        format!("{mine}.x.aZ09"),
        format!("{mine}"),
    ] {
        assert_eq!(number_in(&name, mine), None, "{name}");
    }
}
