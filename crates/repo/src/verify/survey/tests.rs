use super::*;

#[test]
fn neighbours_are_one_range_and_the_rest_is_counted() {
    let (mut lost, mut until) = (Lost::default(), 0);
    for range in [0..10, 10..20, 30..40] {
        add_range(&mut lost, &mut until, range);
    }
    let range = |offset, length| ByteRange { offset, length };
    assert_eq!(lost.ranges, [range(0, 20), range(30, 10)]);
    for number in 1..100 {
        let start = number * 100;
        add_range(&mut lost, &mut until, start..start + 1);
        add_range(&mut lost, &mut until, start + 1..start + 3);
    }
    assert_eq!(lost.ranges.len(), LOST_PARTS_MAX);
    assert_eq!(lost.ranges_left_out, 2 + 99 - LOST_PARTS_MAX as u64);
    assert_eq!(lost.bytes, 30 + 99 * 3);
    assert_eq!(lost.ranges[2], range(100, 3));
}
