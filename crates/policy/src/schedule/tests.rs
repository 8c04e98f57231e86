use proptest::strategy::Strategy;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse("%Y-%m-%dT%H:%M:%SZ", text).unwrap()
}

fn texts(rules: &[&str]) -> Vec<String> {
    rules.iter().map(|rule| (*rule).to_owned()).collect()
}

fn full(zone: &str, rules: &[&str]) -> Result<Schedule, ScheduleError> {
    Schedule::new(&[], Some(zone), &texts(rules))
}

fn cbr(rules: &[&str]) -> Schedule {
    Schedule::new(&texts(rules), None, &[]).unwrap()
}

/// The first slots from the anchor on.
fn first(schedule: &Schedule, anchor: &str, count: usize) -> Vec<String> {
    let runs = schedule.runs(at(anchor), at(anchor)).take(count);
    runs.map(|slot| slot.format("%Y-%m-%dT%H:%M:%SZ")).collect()
}

#[test]
fn a_pattern_counts_days_from_the_anchors_and_a_time_past_waits() {
    let every_third = cbr(&["FREQ=DAILY;INTERVAL=3;BYHOUR=6,18;BYMINUTE=30"]);
    let slots = first(&every_third, "2026-01-01T07:00:00Z", 4);
    let wanted = [
        "2026-01-01T18:30:00Z",
        "2026-01-04T06:30:00Z",
        "2026-01-04T18:30:00Z",
        "2026-01-07T06:30:00Z",
    ];
    assert_eq!(slots, wanted);
    let weekly = cbr(&["FREQ=WEEKLY;BYDAY=MO,TH;BYHOUR=14;BYMINUTE=00"]);
    let slots = first(&weekly, "2026-01-01T14:00:00Z", 3);
    assert_eq!(
        slots,
        [
            "2026-01-01T14:00:00Z",
            "2026-01-05T14:00:00Z",
            "2026-01-08T14:00:00Z"
        ]
    );
    let after = weekly.next_after(at("2026-01-01T14:00:00Z"), at("2026-01-01T14:00:00Z"));
    assert_eq!(after, Some(at("2026-01-05T14:00:00Z")));
}

#[test]
fn the_hours_of_a_pattern_are_those_of_its_zone() {
    let daily = texts(&["FREQ=DAILY;INTERVAL=2;BYHOUR=2;BYMINUTE=30"]);
    let berlin = Schedule::new(&daily, Some("Europe/Berlin"), &[]).unwrap();
    // The 28th in Berlin, where the clocks go forward on the 29th and the hour of 2 is left out.
    let slots = first(&berlin, "2026-03-26T23:30:00Z", 3);
    assert_eq!(
        slots,
        [
            "2026-03-27T01:30:00Z",
            "2026-03-29T01:00:00Z",
            "2026-03-31T00:30:00Z"
        ]
    );
    let shanghai = Schedule::new(&daily, Some("UTC+08:00"), &[]).unwrap();
    let slots = first(&shanghai, "2026-03-26T23:30:00Z", 2);
    assert_eq!(slots, ["2026-03-28T18:30:00Z", "2026-03-30T18:30:00Z"]);
}

#[test]
fn a_repeated_hour_runs_once_and_two_skipped_times_are_one_run() {
    let hourly = full("Europe/Berlin", &["FREQ=HOURLY;BYMINUTE=0,30"]).unwrap();
    let slots = first(&hourly, "2026-03-29T00:00:00Z", 4);
    let wanted = [
        "2026-03-29T00:00:00Z",
        "2026-03-29T00:30:00Z",
        "2026-03-29T01:00:00Z",
        "2026-03-29T01:30:00Z",
    ];
    assert_eq!(slots, wanted);
    let slots = first(&hourly, "2026-10-25T00:00:00Z", 3);
    assert_eq!(
        slots,
        [
            "2026-10-25T00:00:00Z",
            "2026-10-25T00:30:00Z",
            "2026-10-25T02:00:00Z"
        ]
    );
    let inside = hourly.next_after(at("2026-01-01T00:00:00Z"), at("2026-10-25T01:15:00Z"));
    assert_eq!(inside, Some(at("2026-10-25T02:00:00Z")));
}

#[test]
fn what_is_no_rule_of_icalendar_is_refused() {
    for good in [
        "FREQ=DAILY",
        "RRULE:FREQ=DAILY",
        "freq=monthly;byday=-1fr",
        "FREQ=YEARLY;BYDAY=20MO",
        "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-1",
        "FREQ=DAILY;UNTIL=20261231T235960Z",
        "FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO;WKST=SU",
        "FREQ=SECONDLY;INTERVAL=5;BYSECOND=60",
    ] {
        assert_eq!(full("UTC", &[good]).err(), None, "{good}");
    }
    for bad in [
        "",
        "FREQ",
        "FREQ=",
        "FREQ=FORTNIGHTLY",
        "INTERVAL=2",
        "FREQ=DAILY;",
        "FREQ=DAILY;FREQ=DAILY",
        "FREQ=DAILY;INTERVAL=0",
        "FREQ=DAILY;INTERVAL=-1",
        "FREQ=DAILY;INTERVAL=1000000",
        "FREQ=DAILY;COUNT=0",
        "FREQ=DAILY;COUNT=2;UNTIL=20261231T000000",
        "FREQ=DAILY;UNTIL=20261231",
        "FREQ=DAILY;UNTIL=20260230T000000",
        "FREQ=DAILY;UNTIL=20261301T000000",
        "FREQ=DAILY;UNTIL=20261231T250000",
        "FREQ=DAILY;UNTIL=2026123éT00000",
        "FREQ=DAILY;BYHOUR=24",
        "FREQ=DAILY;BYHOUR=",
        "FREQ=DAILY;BYMINUTE=60",
        "FREQ=DAILY;BYSECOND=61",
        "FREQ=DAILY;BYDAY=XX",
        "FREQ=DAILY;BYDAY=1MO",
        "FREQ=WEEKLY;BYDAY=-1MO",
        "FREQ=MONTHLY;BYDAY=0MO",
        "FREQ=MONTHLY;BYDAY=54MO",
        "FREQ=MONTHLY;BYDAY=é",
        "FREQ=YEARLY;BYWEEKNO=20;BYDAY=1MO",
        "FREQ=MONTHLY;BYWEEKNO=20",
        "FREQ=YEARLY;BYWEEKNO=54",
        "FREQ=YEARLY;BYWEEKNO=0",
        "FREQ=DAILY;BYYEARDAY=1",
        "FREQ=YEARLY;BYYEARDAY=367",
        "FREQ=WEEKLY;BYMONTHDAY=1",
        "FREQ=MONTHLY;BYMONTHDAY=32",
        "FREQ=MONTHLY;BYMONTH=13",
        "FREQ=DAILY;BYSETPOS=1",
        "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=0",
        "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=367",
        "FREQ=DAILY;WKST=1",
        "FREQ=DAILY;BYEASTER=0",
        "FREQ=DAILY;BYHOUR= 1",
        "FREQ=DAILY;BYHOUR=+1",
    ] {
        let error = full("UTC", &[bad]).err();
        assert_eq!(
            error.map(|error| error.field),
            Some(ScheduleField::RecurrenceRules),
            "{bad}"
        );
    }
    assert!(full("UTC", &["FREQ=DAILY"; 25]).is_err());
    assert!(full("Mars/Base", &["FREQ=DAILY"]).is_err());
    assert!(full("UTC", &[]).is_err());
    let pattern = texts(&["FREQ=DAILY;BYHOUR=1;BYMINUTE=0"; 25]);
    assert!(Schedule::new(&pattern, None, &[]).is_err());
    let long = format!("FREQ=DAILY;BYHOUR={}1", "1,".repeat(3000));
    assert!(full("UTC", &[&long]).is_err());
}

/// Rules of RFC 5545's own examples, with its start, by their first dates.
#[test]
fn the_examples_of_the_standard_come_out() {
    let start = "1997-09-02T09:00:00Z";
    for (rule, dates) in [
        ("FREQ=DAILY;COUNT=3", "0902 0903 0904"),
        ("FREQ=DAILY;INTERVAL=10;COUNT=5", "0902 0912 0922 1002 1012"),
        (
            "FREQ=WEEKLY;INTERVAL=2;COUNT=4;WKST=SU;BYDAY=TU,TH",
            "0902 0904 0916 0918",
        ),
        ("FREQ=MONTHLY;COUNT=3;BYDAY=1FR", "0905 1003 1107"),
        ("FREQ=MONTHLY;COUNT=4;BYMONTHDAY=-3", "0928 1029 1128 1229"),
        (
            "FREQ=MONTHLY;COUNT=4;BYDAY=TU,WE,TH;BYSETPOS=3",
            "0904 1007 1106 1204",
        ),
        ("FREQ=MONTHLY;BYDAY=FR;BYMONTHDAY=13;COUNT=2", "0213 0313"),
        ("FREQ=YEARLY;BYDAY=20MO;COUNT=2", "0518 0517"),
        ("FREQ=YEARLY;BYWEEKNO=20;BYDAY=MO;COUNT=2", "0511 0517"),
        (
            "FREQ=YEARLY;INTERVAL=4;BYMONTH=11;BYDAY=TU;BYMONTHDAY=2,3,4,5,6,7,8;COUNT=2",
            "1104 1106",
        ),
        ("FREQ=DAILY;UNTIL=19970904T090000Z", "0902 0903 0904"),
        ("FREQ=DAILY;UNTIL=19970904T085959", "0902 0903"),
        ("FREQ=MONTHLY;BYMONTHDAY=15,30;COUNT=3", "0915 0930 1015"),
        (
            "FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR;BYSETPOS=-2;COUNT=3",
            "0929 1030 1127",
        ),
        ("FREQ=YEARLY;BYYEARDAY=1,-1;COUNT=3", "1231 0101 1231"),
    ] {
        let schedule = full("UTC", &[rule]).unwrap();
        let slots = schedule.runs(at(start), at(start)).take(8);
        let shown: Vec<String> = slots.map(|slot| slot.format("%m%d")).collect();
        let wanted: Vec<&str> = dates.split(' ').collect();
        assert_eq!(shown, wanted, "{rule}");
    }
}

/// A year's last week may reach into the next year, and its first begin in the one before.
#[test]
fn weeks_over_the_years_end_have_the_number_of_their_year() {
    let week_52 = full("UTC", &["FREQ=YEARLY;BYWEEKNO=52;BYDAY=SA,SU"]).unwrap();
    let slots = first(&week_52, "2011-01-01T00:00:00Z", 3);
    assert_eq!(
        slots,
        [
            "2011-01-01T00:00:00Z",
            "2011-01-02T00:00:00Z",
            "2011-12-31T00:00:00Z"
        ]
    );
    let week_53 = full("UTC", &["FREQ=YEARLY;BYWEEKNO=53;BYDAY=SU"]).unwrap();
    assert_eq!(
        first(&week_53, "2010-01-01T00:00:00Z", 2),
        ["2010-01-03T00:00:00Z", "2016-01-03T00:00:00Z"]
    );
    let week_1 = full("UTC", &["FREQ=YEARLY;BYWEEKNO=1;BYDAY=MO"]).unwrap();
    assert_eq!(
        first(&week_1, "2025-01-01T00:00:00Z", 2),
        ["2025-12-29T00:00:00Z", "2027-01-04T00:00:00Z"]
    );
}

#[test]
fn days_of_both_kinds_are_admitted_together() {
    let rule = full("UTC", &["FREQ=MONTHLY;BYDAY=MO,-1FR;BYMONTH=5"]).unwrap();
    let slots = first(&rule, "2026-05-01T00:00:00Z", 5);
    let days: Vec<&str> = slots.iter().map(|slot| &slot[5..10]).collect();
    assert_eq!(days, ["05-04", "05-11", "05-18", "05-25", "05-29"]);
}

#[test]
fn a_rule_that_never_falls_ends_soon() {
    let began = std::time::Instant::now();
    for rule in [
        "FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=MONTHLY;BYMONTH=2;BYMONTHDAY=30,31",
        "FREQ=DAILY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30",
        "FREQ=SECONDLY;BYMONTH=2;BYMONTHDAY=30;COUNT=7",
        "FREQ=HOURLY;INTERVAL=2;BYHOUR=1",
        "FREQ=HOURLY;INTERVAL=24;BYHOUR=1",
        "FREQ=MINUTELY;INTERVAL=60;BYMINUTE=1",
        "FREQ=MINUTELY;INTERVAL=1440;BYHOUR=1",
        "FREQ=SECONDLY;INTERVAL=3600;BYMINUTE=1",
        "FREQ=SECONDLY;BYSECOND=60",
        "FREQ=DAILY;BYSECOND=60",
        "FREQ=YEARLY;BYWEEKNO=1;BYMONTH=6",
        "FREQ=MONTHLY;BYDAY=6MO",
        "FREQ=MONTHLY;BYDAY=MO;BYSETPOS=9",
        "FREQ=SECONDLY;BYMONTH=1;BYSETPOS=2,-2",
        "FREQ=HOURLY;BYMINUTE=1,2;BYSETPOS=3",
    ] {
        let schedule = full("UTC", &[rule]).unwrap();
        let start = at("2026-01-01T00:00:00Z");
        assert_eq!(schedule.next_after(start, start), None, "{rule}");
    }
    assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
}

#[test]
fn a_search_takes_any_anchor_and_instant() {
    let schedule = full("America/New_York", &["FREQ=MINUTELY;INTERVAL=7"]).unwrap();
    for extreme in [i64::MIN, -1, 0, 1, i64::MAX] {
        let extreme = Timestamp::from_micros(extreme);
        let now = at("2026-01-01T00:00:00Z");
        let _ = schedule.next_after(extreme, now);
        let _ = schedule.next_after(now, extreme);
        let _ = schedule.next_after(extreme, extreme);
    }
    let first = schedule.next_after(at("2026-01-01T00:00:30Z"), Timestamp::from_micros(0));
    assert_eq!(
        first,
        Some(at("2026-01-01T00:00:00Z")),
        "the anchor's seconds are cut off"
    );
}

#[test]
fn a_count_ends_wherever_the_search_begins() {
    let schedule = full("UTC", &["FREQ=DAILY;COUNT=3;BYHOUR=1,2"]).unwrap();
    let anchor = at("2026-01-01T01:30:00Z");
    let next = |after: &str| schedule.next_after(anchor, at(after));
    let slots = [
        "2026-01-01T01:30:00Z",
        "2026-01-01T02:30:00Z",
        "2026-01-02T01:30:00Z",
    ];
    assert_eq!(next("2026-01-01T00:00:00Z"), Some(at(slots[0])));
    assert_eq!(next(slots[0]), Some(at(slots[1])));
    assert_eq!(next(slots[1]), Some(at(slots[2])));
    assert_eq!(next(slots[2]), None);
    assert_eq!(next("2036-01-01T00:00:00Z"), None);
}

#[test]
fn rules_that_fall_together_are_one_run() {
    let pattern = texts(&["FREQ=DAILY;BYHOUR=2;BYMINUTE=0"]);
    let rules = texts(&[
        "FREQ=HOURLY;INTERVAL=2",
        "FREQ=MONTHLY;BYMONTHDAY=1;BYHOUR=2",
    ]);
    let schedule = Schedule::new(&pattern, None, &rules).unwrap();
    let slots = first(&schedule, "2026-01-01T00:00:00Z", 4);
    let hours: Vec<&str> = slots.iter().map(|slot| &slot[11..16]).collect();
    assert_eq!(hours, ["00:00", "02:00", "04:00", "06:00"]);
}

#[test]
fn a_policy_runs_at_whole_minutes_that_come() {
    for (rule, fits) in [
        ("FREQ=MINUTELY", true),
        ("FREQ=DAILY;BYSECOND=0", true),
        ("FREQ=DAILY;BYSECOND=30", false),
        ("FREQ=DAILY;BYSECOND=0,30", false),
        ("FREQ=SECONDLY;INTERVAL=3600", false),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=30", false),
        ("FREQ=MONTHLY;BYDAY=53MO", false),
        ("FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29", true),
        ("FREQ=DAILY;UNTIL=20200101T000000Z", true),
    ] {
        let schedule = full("UTC", &[rule]).unwrap();
        assert_eq!(schedule.check_for_policy().is_ok(), fits, "{rule}");
    }
}

#[test]
fn starts_spread_over_the_window_and_stay_the_same() {
    let slot = at("2026-01-01T02:00:00Z");
    let seeds = (0..2000u128).map(Uuid::from_u128);
    let late: Vec<i64> = seeds
        .clone()
        .map(|seed| start_of(slot, Some(60), seed).seconds_since(slot))
        .collect();
    assert!(late.iter().all(|seconds| (0..3600).contains(seconds)));
    for quarter in 0..4 {
        let of_it = late
            .iter()
            .filter(|seconds| **seconds / 900 == quarter)
            .count();
        assert!((400..600).contains(&of_it), "{of_it} in quarter {quarter}");
    }
    assert!(
        seeds
            .clone()
            .all(|seed| start_of(slot, Some(60), seed) == start_of(slot, Some(60), seed))
    );
    assert!(seeds.clone().all(|seed| start_of(slot, None, seed) == slot));
    let seed = Uuid::from_u128(7);
    let next = slot.plus_seconds(86_400);
    let differ = start_of(slot, Some(480), seed).seconds_since(slot)
        != start_of(next, Some(480), seed).seconds_since(next);
    assert!(differ, "another slot, another start");
}

#[test]
fn after_downtime_one_run_is_due() {
    let daily = cbr(&["FREQ=DAILY;BYHOUR=2;BYMINUTE=0"]);
    let anchor = at("2026-01-01T12:00:00Z");
    let due_at = |last: Option<&str>, now: &str| due(&daily, anchor, last.map(at), at(now));
    let run = |slot: &str, missed| {
        Some(Due {
            slot: at(slot),
            missed,
        })
    };
    assert_eq!(due_at(None, "2026-01-01T13:00:00Z"), None);
    assert_eq!(due_at(None, "2026-01-02T01:59:59Z"), None);
    assert_eq!(
        due_at(None, "2026-01-02T02:00:00Z"),
        run("2026-01-02T02:00:00Z", 0)
    );
    assert_eq!(
        due_at(Some("2026-01-02T02:00:00Z"), "2026-01-02T23:00:00Z"),
        None
    );
    let later = due_at(Some("2026-01-02T02:00:00Z"), "2026-01-10T02:00:01Z");
    assert_eq!(later, run("2026-01-10T02:00:00Z", 7));
    let much_later = due_at(None, "2046-01-01T00:00:00Z");
    assert_eq!(much_later, run("2045-12-31T02:00:00Z", MAX_MISSED));
    let rare = full("UTC", &["FREQ=YEARLY;BYMONTH=2;BYMONTHDAY=29"]).unwrap();
    let found = due(&rare, anchor, None, at("2031-06-01T00:00:00Z"));
    assert_eq!(found, run("2028-02-29T12:00:00Z", 0));
    assert_eq!(due(&rare, anchor, None, anchor.plus_seconds(-1)), None);
}

proptest::proptest! {
    /// Whatever the instant, the search from there finds what going on from the start finds.
    #[test]
    fn a_search_from_the_middle_finds_what_one_from_the_start_finds(
        rule in proptest::sample::select(vec![
            "FREQ=YEARLY;INTERVAL=2;BYDAY=2MO,-1SU", "FREQ=MONTHLY;INTERVAL=3;BYDAY=MO,TU;BYSETPOS=2,-1",
            "FREQ=WEEKLY;INTERVAL=3;BYDAY=SU,MO;WKST=WE;BYHOUR=1,2,3", "FREQ=DAILY;INTERVAL=5;BYMONTH=1,2",
            "FREQ=HOURLY;INTERVAL=7;BYMINUTE=10,50", "FREQ=HOURLY;INTERVAL=50;BYHOUR=2,3,5",
            "FREQ=MINUTELY;INTERVAL=37;BYHOUR=2,3", "FREQ=SECONDLY;INTERVAL=5003;BYSECOND=1,2,30",
            "FREQ=YEARLY;BYWEEKNO=1,-1;BYDAY=MO", "FREQ=DAILY;COUNT=100;BYHOUR=2,3",
        ]),
        zone in proptest::sample::select(vec!["UTC", "Europe/Berlin", "Australia/Lord_Howe", "America/St_Johns"]),
        anchor in 1_700_000_000i64..1_800_000_000,
        later in 0i64..60_000_000,
    ) {
        let schedule = full(zone, &[rule]).unwrap();
        let anchor = Timestamp::from_micros(anchor * 1_000_000);
        let after = anchor.plus_seconds(later);
        let stepped = schedule.runs(anchor, anchor).find(|slot| *slot > after);
        proptest::prop_assert_eq!(schedule.next_after(anchor, after), stepped);
    }
}

/// A text that looks like a part of a rule.
fn part() -> impl proptest::strategy::Strategy<Value = String> {
    let keys = proptest::sample::select(vec![
        "FREQ=DAILY",
        "FREQ=YEARLY",
        "FREQ=MONTHLY",
        "FREQ=HOURLY",
        "FREQ=SECONDLY",
        "INTERVAL=",
        "COUNT=",
        "UNTIL=",
        "BYMONTH=",
        "BYWEEKNO=",
        "BYYEARDAY=",
        "BYMONTHDAY=",
        "BYDAY=",
        "BYHOUR=",
        "BYMINUTE=",
        "BYSECOND=",
        "BYSETPOS=",
        "WKST=",
        "é=",
    ]);
    (keys, "([-+]?[0-9]{0,3}(MO|FR|é)?,?){0,3}").prop_map(|(key, value)| match key {
        key if key.starts_with("FREQ") => key.to_owned(),
        key => format!("{key}{}", value.trim_end_matches(',')),
    })
}

proptest::proptest! {
    /// Nobody can write a rule that ends in anything but a schedule, which is soon searched, or a
    /// refusal.
    #[test]
    fn whatever_is_written_is_read_or_refused(
        parts in proptest::collection::vec(part(), 1..6),
        other in "\\PC{0,40}",
        zone in "[A-Za-z/_+:0-9-]{0,20}",
        anchor in proptest::num::i64::ANY,
        after in proptest::num::i64::ANY,
    ) {
        let _ = full(&zone, &["FREQ=DAILY"]);
        let _ = full("UTC", &[&other]);
        if let Ok(schedule) = full("Europe/Berlin", &[&parts.join(";")]) {
            let (anchor, after) = (Timestamp::from_micros(anchor), Timestamp::from_micros(after));
            let slot = schedule.next_after(anchor, after);
            proptest::prop_assert!(slot.is_none_or(|slot| slot > after));
        }
    }
}
