use cairn_types::{Month, Weekday};
use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse("%Y-%m-%dT%H:%M:%SZ", text).unwrap()
}

fn show(instant: Option<Timestamp>) -> String {
    instant.map_or("never".to_owned(), |instant| {
        instant.format("%Y-%m-%dT%H:%M:%SZ")
    })
}

fn rules(definition: OperationDefinition) -> Retention {
    Retention::new(&definition).unwrap()
}

fn counts(max: i32) -> OperationDefinition {
    OperationDefinition {
        max_backups: Some(max),
        ..OperationDefinition::default()
    }
}

fn days(days: i32) -> OperationDefinition {
    OperationDefinition {
        retention_duration_days: Some(days),
        ..OperationDefinition::default()
    }
}

fn advanced(rules: AdvancedRetention) -> OperationDefinition {
    OperationDefinition {
        timezone: Some("UTC+08:00".to_owned()),
        advanced_retention_rules: Some(rules),
        ..OperationDefinition::default()
    }
}

/// Facts of one backup a day at noon, from the first of January on, with their stamps.
fn daily(count: i64, under: &Retention) -> Vec<Fact> {
    let first = at("2026-01-01T12:00:00Z");
    let made = (0..count).map(|day| first.plus_seconds(day * DAY_SECONDS));
    made.map(|made| Fact::new(made, under.stamp(made)))
        .collect()
}

fn kept(rules: &Retention, facts: &[Fact], now: &str) -> Vec<bool> {
    let decisions = decide(rules, facts, at(now));
    decisions.iter().map(Decision::is_kept).collect()
}

#[test]
fn days_are_of_24_hours() {
    let stamp = rules(days(30)).stamp(Timestamp::from_micros(1_767_225_600_123_456));
    assert_eq!(stamp, Some(Timestamp::from_micros(1_769_817_600_123_456)));
    for none in [None, Some(-1), Some(0)] {
        let definition = OperationDefinition {
            retention_duration_days: none,
            max_backups: none,
            ..OperationDefinition::default()
        };
        let rules = rules(definition);
        assert_eq!(rules.stamp(at("2026-01-01T00:00:00Z")), None);
        assert!(!rules.counts());
    }
}

#[test]
fn advanced_rules_stamp_by_the_day_in_their_zone_and_the_longest_wins() {
    let sundays = RetentionRule {
        days_of_week: Some(vec![Weekday::Sunday]),
        retention_duration_periods: Some(4),
        ..RetentionRule::default()
    };
    let last_days = RetentionRule {
        retention_type: Some(RetentionType::Monthly),
        days_of_month: Some(vec![1, -1]),
        retention_duration_periods: Some(1),
        ..RetentionRule::default()
    };
    let last_friday = RetentionRule {
        retention_type: Some(RetentionType::Weekly),
        retention_weeks: Some(vec![WeekOfMonth::First, WeekOfMonth::Last]),
        days_of_week: Some(vec![Weekday::Friday]),
        retention_months: Some(vec![Month::January, Month::December]),
        retention_duration_periods: Some(3),
        ..RetentionRule::default()
    };
    let rules = rules(advanced(AdvancedRetention {
        weekly_retention_rules: Some(sundays),
        monthly_retention_rules: Some(last_days),
        yearly_retention_rules: Some(last_friday),
    }));
    for (made, stamp) in [
        // A Saturday in UTC, and a Sunday where the clocks are eight hours ahead.
        ("2026-01-03T16:00:00Z", "2026-01-31T16:00:00Z"),
        ("2026-01-03T15:59:59Z", "never"),
        ("2026-01-04T15:59:59Z", "2026-02-01T15:59:59Z"),
        // The last of January there; February is shorter, and three days are cut off.
        ("2026-01-30T16:00:00Z", "2026-02-27T16:00:00Z"),
        ("2026-03-31T10:00:00Z", "2026-04-30T10:00:00Z"),
        // The first Friday of January, and the last; the second is none.
        ("2026-01-02T03:00:00Z", "2029-01-02T03:00:00Z"),
        ("2026-01-30T03:00:00Z", "2029-01-30T03:00:00Z"),
        ("2026-01-09T03:00:00Z", "never"),
        ("2026-06-05T03:00:00Z", "never"),
        // A Sunday that is the first: a month is longer than four weeks, but not in February.
        ("2026-11-01T03:00:00Z", "2026-12-01T03:00:00Z"),
        ("2026-02-01T03:00:00Z", "2026-03-01T03:00:00Z"),
    ] {
        assert_eq!(show(rules.stamp(at(made))), stamp, "{made}");
    }
}

#[test]
fn a_rule_that_is_switched_off_stamps_nothing_and_one_without_days_is_refused() {
    let mut monthly = RetentionRule {
        days_of_month: Some(vec![1]),
        retention_duration_periods: Some(-1),
        ..RetentionRule::default()
    };
    let of = |rule: &RetentionRule| {
        Retention::new(&advanced(AdvancedRetention {
            monthly_retention_rules: Some(rule.clone()),
            ..AdvancedRetention::default()
        }))
    };
    assert_eq!(
        of(&monthly).unwrap().stamp(at("2026-01-01T00:00:00Z")),
        None
    );
    monthly.retention_duration_periods = Some(2);
    assert!(of(&monthly).is_err());
    let zone = OperationDefinition {
        timezone: Some("Mars/Base".to_owned()),
        ..OperationDefinition::default()
    };
    assert!(Retention::new(&zone).is_err());
}

#[test]
fn where_the_clock_skips_a_stamp_it_is_the_change_to_the_microsecond() {
    let stamps = Retention::new(&OperationDefinition {
        timezone: Some("Europe/Berlin".to_owned()),
        ..advanced(AdvancedRetention {
            monthly_retention_rules: Some(RetentionRule {
                retention_type: Some(RetentionType::Monthly),
                days_of_month: Some(vec![28]),
                retention_duration_periods: Some(1),
                ..RetentionRule::default()
            }),
            ..AdvancedRetention::default()
        })
    })
    .unwrap();
    // On 28 March 2027 the clock goes from 02:00 to 03:00.
    for (micros, stamp) in [
        ("2027-02-28T00:59:59.9", "2027-03-28T00:59:59.9"),
        ("2027-02-28T01:00:00.9", "2027-03-28T01:00:00.0"),
        ("2027-02-28T01:00:01.1", "2027-03-28T01:00:00.0"),
        ("2027-02-28T02:00:00.1", "2027-03-28T01:00:00.1"),
    ] {
        let at = |text| Timestamp::parse("%Y-%m-%dT%H:%M:%S%.f", text).unwrap();
        assert_eq!(stamps.stamp(at(micros)), Some(at(stamp)), "{micros}");
    }
}

#[test]
fn a_stamp_past_the_years_is_the_last_instant() {
    let made = at("9999-01-01T00:00:00Z");
    let stamp = rules(days(99_999)).stamp(made).unwrap();
    assert_eq!(stamp.format("%Y-%m-%d"), "9999-12-30");
}

#[test]
fn the_newest_hold_their_places() {
    let three = rules(counts(3));
    let facts = daily(5, &three);
    let decisions = decide(&three, &facts, at("2026-01-05T12:00:00Z"));
    let shown: Vec<&[Reason]> = decisions.iter().map(|it| it.kept_by.as_slice()).collect();
    let newest: &[Reason] = &[Reason::MaxBackups];
    assert_eq!(shown, [&[], &[], newest, newest, newest]);
    assert!(decisions.iter().all(|decision| decision.until.is_none()));
    let mut mixed = facts.clone();
    mixed.reverse();
    assert_eq!(
        kept(&three, &mixed, "2026-01-05T12:00:00Z"),
        [true, true, true, false, false]
    );
}

#[test]
fn the_newest_of_each_period_that_has_one_is_kept() {
    let definition = OperationDefinition {
        day_backups: Some(2),
        week_backups: Some(2),
        month_backups: Some(2),
        year_backups: Some(2),
        timezone: Some("UTC+08:00".to_owned()),
        ..OperationDefinition::default()
    };
    let rules = rules(definition);
    let facts: Vec<Fact> = [
        ("2024-12-31T15:00:00Z", "year"),
        // In the zone this is 2025, and the newest of a month that has no other.
        ("2024-12-31T17:00:00Z", ""),
        ("2025-05-01T00:00:00Z", "month year"),
        // A Sunday in UTC, a Monday there.
        ("2026-01-11T17:00:00Z", ""),
        ("2026-01-18T12:00:00Z", "week"),
        ("2026-01-18T17:00:00Z", ""),
        ("2026-01-19T10:00:00Z", "day"),
        ("2026-01-20T10:00:00Z", ""),
        ("2026-01-20T11:00:00Z", "day week month year"),
    ]
    .iter()
    .map(|(made, _)| Fact::new(at(made), None))
    .collect();
    let decisions = decide(&rules, &facts, at("2026-01-20T11:00:00Z"));
    let shown: Vec<String> = decisions
        .iter()
        .map(|it| {
            let names: Vec<&str> = it.kept_by.iter().map(|reason| reason.name()).collect();
            names.join(" ").replace("_backups", "")
        })
        .collect();
    let wanted = [
        "",
        "",
        "month year",
        "",
        "week",
        "",
        "day",
        "",
        "day week month year",
    ];
    assert_eq!(shown, wanted);
}

#[test]
fn changes_of_the_rules_take_effect_as_the_guide_says() {
    let (three, one, week, forever) = (
        rules(counts(3)),
        rules(counts(1)),
        rules(days(7)),
        rules(OperationDefinition::default()),
    );
    let now = "2026-01-09T12:00:00Z";
    let by_count = daily(3, &three);
    let by_days = daily(9, &week);
    assert_eq!(
        kept(&one, &by_count, now),
        [false, false, true],
        "another count applies to old ones"
    );
    assert_eq!(
        kept(&week, &by_count, now),
        [true; 3],
        "what has no stamp is left alone"
    );
    assert_eq!(kept(&forever, &by_count, now), [true; 3]);
    // Under a period the first two of nine days have gone.
    let gone = |count: usize| (0..9).map(|at| at >= count).collect::<Vec<_>>();
    assert_eq!(kept(&week, &by_days, now), gone(2));
    assert_eq!(
        kept(&rules(days(1)), &by_days, now),
        gone(2),
        "another period is for new ones"
    );
    assert_eq!(kept(&forever, &by_days, now), gone(2));
    // From a period to a count both apply.
    assert_eq!(kept(&three, &by_days, now), gone(6));
    assert_eq!(kept(&rules(counts(50)), &by_days, now), gone(2));
    let decisions = decide(&three, &by_days, at(now));
    assert_eq!(decisions[8].kept_by, [Reason::MaxBackups]);
    assert_eq!(decisions[8].until, Some(at("2026-01-16T12:00:00Z")));
}

#[test]
fn what_the_clock_has_let_go_takes_no_place() {
    let two = rules(counts(2));
    let mut facts = daily(4, &two);
    facts[3].expired_at = Some(at("2026-01-05T00:00:00Z"));
    assert_eq!(
        kept(&two, &facts, "2026-01-04T12:00:00Z"),
        [false, false, true, true]
    );
    assert_eq!(
        kept(&two, &facts, "2026-01-05T00:00:00Z"),
        [false, true, true, false]
    );
}

#[test]
fn a_registered_image_is_neither_counted_nor_dropped() {
    let two = rules(counts(2));
    let mut facts = daily(4, &two);
    facts[3].held = true;
    facts[0].held = true;
    facts[0].expired_at = Some(at("2026-01-02T00:00:00Z"));
    let decisions = decide(&two, &facts, at("2026-01-10T00:00:00Z"));
    assert_eq!(decisions[0].kept_by, [Reason::Held]);
    assert_eq!(decisions[1].kept_by, [Reason::MaxBackups]);
    assert_eq!(decisions[2].kept_by, [Reason::MaxBackups]);
    assert_eq!(decisions[3].kept_by, [Reason::Held]);
}

#[test]
fn in_a_locked_vault_the_rules_that_a_backup_was_made_under_count_too() {
    let (three, one, week, forever) = (
        rules(counts(3)),
        rules(counts(1)),
        rules(days(7)),
        rules(OperationDefinition::default()),
    );
    let locked = |under: &Retention| {
        let mut facts = daily(5, under);
        facts
            .iter_mut()
            .for_each(|fact| fact.made_under = Some(under.clone()));
        facts
    };
    let now = "2026-01-05T12:00:00Z";
    assert_eq!(
        kept(&one, &locked(&three), now),
        [false, false, true, true, true]
    );
    assert_eq!(
        kept(&three, &locked(&one), now),
        [false, false, true, true, true]
    );
    assert_eq!(kept(&one, &locked(&forever), now), [true; 5]);
    assert_eq!(kept(&one, &locked(&week), now), [true; 5]);
    assert_eq!(
        kept(&one, &locked(&week), "2026-01-10T12:00:00Z"),
        [false, false, false, true, true]
    );
    let decisions = decide(&one, &locked(&week), at(now));
    assert_eq!(decisions[0].kept_by, [Reason::Locked]);
    assert_eq!(decisions[0].until, Some(at("2026-01-08T12:00:00Z")));
    assert_eq!(decisions[4].kept_by, [Reason::MaxBackups]);
}

#[test]
fn of_failed_backups_the_newest_ten_of_a_month_stay() {
    let now = at("2026-02-01T12:00:00Z");
    let made: Vec<Timestamp> = (0..15)
        .map(|day| now.plus_seconds(-day * DAY_SECONDS))
        .collect();
    assert_eq!(failed_to_remove(&made, now), [10, 11, 12, 13, 14]);
    let old: Vec<Timestamp> = [29, 30, 31]
        .map(|day| now.plus_seconds(-day * DAY_SECONDS))
        .into();
    assert_eq!(failed_to_remove(&old, now), [1, 2]);
    assert!(failed_to_remove(&[], now).is_empty());
}

#[test]
fn full_backups_come_after_so_many_others_and_a_day_apart() {
    let of = |interval| OperationDefinition {
        full_backup_interval: interval,
        ..OperationDefinition::default()
    };
    let last = at("2026-01-01T00:00:00Z");
    let (soon, day) = (
        last.plus_seconds(DAY_SECONDS - 1),
        last.plus_seconds(DAY_SECONDS),
    );
    for (interval, since, last_full, now, due) in [
        (None, 0, None, day, true),
        (Some(-1), 0, None, day, true),
        (None, 500, Some(last), day, false),
        (Some(-1), 500, Some(last), day, false),
        (Some(3), 2, Some(last), day, false),
        (Some(3), 3, Some(last), day, true),
        (Some(3), 3, Some(last), soon, false),
        (Some(0), 0, Some(last), day, true),
        (Some(0), 0, Some(last), soon, false),
    ] {
        assert_eq!(
            is_full_due(&of(interval), since, last_full, now),
            due,
            "{interval:?} {since}"
        );
    }
}

/// A count that is mostly small, and often none.
fn count() -> impl Strategy<Value = Option<i32>> {
    prop_oneof![Just(None), Just(Some(-1)), (1..6).prop_map(Some)]
}

prop_compose! {
    fn definition()(
        counts in [count(), count(), count(), count(), count()],
        days in prop_oneof![3 => Just(None), 1 => (1..20).prop_map(Some)],
        weekly in prop_oneof![2 => Just(None), 1 => (1..4).prop_map(Some)],
        zone in prop_oneof![Just(None), Just(Some("UTC+08:00")), Just(Some("America/New_York"))],
    ) -> OperationDefinition {
        let weekly = RetentionRule {
            days_of_week: Some(vec![Weekday::Sunday, Weekday::Wednesday]),
            retention_duration_periods: weekly,
            ..RetentionRule::default()
        };
        OperationDefinition {
            max_backups: counts[0],
            day_backups: counts[1],
            week_backups: counts[2],
            month_backups: counts[3],
            year_backups: counts[4],
            retention_duration_days: days,
            timezone: zone.map(str::to_owned),
            advanced_retention_rules: Some(AdvancedRetention {
                weekly_retention_rules: Some(weekly),
                ..AdvancedRetention::default()
            }),
            ..OperationDefinition::default()
        }
    }
}

proptest! {
    /// Backups that are added one by one, where each is removed as soon as it goes, end as those
    /// do that are looked at all at once: at every step, whichever way the question is put.
    #[test]
    fn removing_what_goes_changes_nothing_for_the_rest(
        definition in definition(),
        gaps in proptest::collection::vec(prop_oneof![0i64..7200, 0i64..200_000, 0i64..5_000_000], 1..60),
    ) {
        let rules = rules(definition);
        let mut keeper = Keeper::new(&rules);
        let mut now = at("2026-01-01T00:00:00Z");
        let mut all: Vec<Fact> = Vec::new();
        let mut there: Vec<usize> = Vec::new();
        for gap in gaps {
            now = now.plus_seconds(gap);
            all.push(Fact::new(now, rules.stamp(now)));
            there.push(all.len() - 1);
            let mut dropped = Vec::new();
            keeper.add(now, |number, when| dropped.push((number, when)));
            prop_assert!(dropped.iter().all(|(_, when)| *when <= now));
            there.retain(|number| !dropped.iter().any(|(gone, _)| gone == number));
            let survivors: Vec<Fact> = there.iter().map(|number| all[*number].clone()).collect();
            let of_survivors = decide(&rules, &survivors, now);
            let of_all = decide(&rules, &all, now);
            for (number, decision) in there.iter().zip(&of_survivors) {
                prop_assert!(decision.is_kept());
                prop_assert_eq!(decision, &of_all[*number]);
                prop_assert_eq!(decision, &keeper.decision(*number, now));
            }
            for (number, decision) in of_all.iter().enumerate() {
                prop_assert_eq!(decision.is_kept(), there.contains(&number));
            }
        }
    }

    /// However facts are ordered, each has the same fate.
    #[test]
    fn the_order_of_facts_does_not_matter(
        definition in definition(),
        made in proptest::collection::hash_set(0i64..40_000_000, 1..40),
    ) {
        let rules = rules(definition);
        let facts: Vec<Fact> = made
            .into_iter()
            .map(|second| at("2026-01-01T00:00:00Z").plus_seconds(second))
            .map(|made| Fact::new(made, rules.stamp(made)))
            .collect();
        let mut sorted = facts.clone();
        sorted.sort_by_key(|fact| fact.created_at);
        let now = at("2027-06-01T00:00:00Z");
        let by_time = decide(&rules, &sorted, now);
        for (fact, decision) in facts.iter().zip(decide(&rules, &facts, now)) {
            let place = sorted.iter().position(|other| other == fact).unwrap();
            prop_assert_eq!(&by_time[place], &decision);
        }
    }
}
