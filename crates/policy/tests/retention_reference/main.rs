//! Retention against a reference that was written from the contract's text alone.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod random;
mod reference;

use std::collections::BTreeMap;
use std::sync::Mutex;

use cairn_policy::{Fact, Reason, Retention, Schedule, simulate};
use cairn_types::{OperationDefinition, Timestamp};

use random::{Case, Place, Random, ZONES, definition, places};
use reference::{Backup, Rules, Seen, Verdict, decide, judge};

const CASES: u64 = 1_000_000;
const SIMULATIONS: u64 = 1_000;
const SEED: u64 = 20_260_105;
/// A simulation in years of 366 days, in seconds.
const HORIZON: i64 = 3 * 366 * 24 * 60 * 60;

/// Runs a check for each number, spread over the machine's threads, and joins what they count.
fn for_each(numbers: u64, check: impl Fn(u64, &mut Often) + Sync) -> Often {
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let all = Mutex::new(Often::new());
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (all, check) = (&all, &check);
            scope.spawn(move || {
                let mut mine = Often::new();
                for number in (thread..numbers).step_by(threads as usize) {
                    check(number, &mut mine);
                }
                for (what, often) in mine {
                    *all.lock().unwrap().entry(what).or_default() += often;
                }
            });
        }
    });
    all.into_inner().unwrap()
}

/// How often each reason kept a backup, and none did: a rule that never came up was not tried.
type Often = BTreeMap<Option<Reason>, u64>;

const REASONS: [Reason; 13] = [
    Reason::MaxBackups,
    Reason::DayBackups,
    Reason::WeekBackups,
    Reason::MonthBackups,
    Reason::YearBackups,
    Reason::RetentionDurationDays,
    Reason::WeeklyRetentionRules,
    Reason::MonthlyRetentionRules,
    Reason::YearlyRetentionRules,
    Reason::ExpiredAt,
    Reason::Held,
    Reason::Locked,
    Reason::Forever,
];

#[test]
fn a_million_random_cases_are_decided_as_the_contract_says() {
    let places = places();
    let often = for_each(CASES, |number, often| {
        let case = Case::new(&mut Random::new(SEED, number), &places);
        if difference(&case).is_some() {
            let small = shrink(case);
            let found = difference(&small).unwrap();
            panic!("case {number} of seed {SEED}: {found}\n{}", show(&small));
        }
        for verdict in decide(&case.rules, &case.backups, case.now) {
            if verdict.kept_by.is_empty() {
                *often.entry(None).or_default() += 1;
            }
            for reason in verdict.kept_by {
                *often.entry(Some(reason)).or_default() += 1;
            }
        }
    });
    for what in REASONS.map(Some).into_iter().chain([None]) {
        let times = often.get(&what).copied().unwrap_or_default();
        assert!(times > CASES / 100, "{what:?} came up {times} times only");
    }
}

/// What the crate says otherwise than the reference, if anything.
fn difference(case: &Case) -> Option<String> {
    let retentions: Vec<Retention> = case.rules.iter().map(retention).collect();
    for (rules, retention) in case.rules.iter().zip(&retentions) {
        if retention.counts() != rules.count() {
            return Some(format!("counts() is {}", retention.counts()));
        }
        for backup in &case.backups {
            let (ours, theirs) = (
                retention.stamp(backup.created_at),
                rules.stamp(backup.created_at),
            );
            if ours != theirs {
                let at = backup.created_at;
                return Some(format!("{at:?} is stamped {ours:?}, reference {theirs:?}"));
            }
        }
    }
    let facts: Vec<Fact> = case
        .backups
        .iter()
        .map(|backup| Fact {
            held: backup.held,
            made_under: backup.made_under.map(|number| retentions[number].clone()),
            ..Fact::new(backup.created_at, backup.expired_at)
        })
        .collect();
    let ours = cairn_policy::decide(&retentions[0], &facts, case.now);
    let theirs = decide(&case.rules, &case.backups, case.now);
    assert_eq!(ours.len(), theirs.len());
    ours.into_iter()
        .zip(theirs)
        .enumerate()
        .find_map(|(number, (ours, theirs))| {
            let ours = Verdict {
                kept_by: sorted(ours.kept_by),
                until: ours.until,
            };
            let same = ours.kept_by == theirs.kept_by && ours.until == theirs.until;
            (!same).then(|| format!("backup {number} is {ours:?}, reference {theirs:?}"))
        })
}

fn retention(rules: &Rules) -> Retention {
    Retention::new(&rules.definition).unwrap()
}

fn sorted(mut reasons: Vec<Reason>) -> Vec<Reason> {
    reasons.sort();
    reasons
}

/// Takes away what is not needed for a difference.
fn shrink(mut case: Case) -> Case {
    loop {
        let mut smaller = Vec::new();
        let mut without = |change: &dyn Fn(&mut Case)| {
            let mut other = case.clone();
            change(&mut other);
            smaller.push(other);
        };
        for number in 0..case.backups.len() {
            without(&|case| {
                case.backups.remove(number);
            });
            without(&|case| case.backups[number].held = false);
            without(&|case| case.backups[number].made_under = None);
            without(&|case| case.backups[number].expired_at = None);
        }
        for number in 0..case.rules.len() {
            let mut simpler = |change: &dyn Fn(&mut OperationDefinition)| {
                without(&|case| {
                    let mut definition = case.rules[number].definition.clone();
                    change(&mut definition);
                    case.rules[number] = Rules::new(definition);
                });
            };
            simpler(&|of| of.max_backups = None);
            simpler(&|of| of.day_backups = None);
            simpler(&|of| of.week_backups = None);
            simpler(&|of| of.month_backups = None);
            simpler(&|of| of.year_backups = None);
            simpler(&|of| of.retention_duration_days = None);
            simpler(&|of| of.advanced_retention_rules = None);
            simpler(&|of| of.timezone = None);
        }
        let size = |case: &Case| format!("{case:?}").len();
        let before = size(&case);
        let found = smaller
            .into_iter()
            .find(|other| size(other) < before && difference(other).is_some());
        match found {
            Some(other) => case = other,
            None => return case,
        }
    }
}

fn show(case: &Case) -> String {
    let time = |at: Timestamp| reference::jiff_of(at).to_string();
    let mut lines = vec![format!("now {}", time(case.now))];
    for (number, rules) in case.rules.iter().enumerate() {
        let definition = serde_json::to_string(&rules.definition).unwrap();
        lines.push(format!("rules {number}: {definition}"));
    }
    for (number, of) in case.backups.iter().enumerate() {
        lines.push(format!(
            "backup {number}: created {} ({}), expires {}, held {}, made under {:?}",
            time(of.created_at),
            reference::jiff_of(of.created_at).to_zoned(case.rules[0].zone.clone()),
            of.expired_at.map_or("never".to_owned(), time),
            of.held,
            of.made_under,
        ));
    }
    lines.join("\n")
}

#[test]
fn years_of_random_policies_go_as_the_reference_goes_step_by_step() {
    let places = places();
    let often = for_each(SIMULATIONS, |number, often| {
        let random = &mut Random::new(SEED ^ 1, number);
        let zone = *random.pick(&ZONES);
        let rules = Rules::new(definition(random, zone));
        let (pattern, schedule) = schedule(random);
        let from = place_start(random, &places);
        let until = from.plus_seconds(HORIZON);
        let slots: Vec<Timestamp> = schedule
            .runs(from, from)
            .take_while(|slot| *slot <= until)
            .collect();
        let ours = simulate(&schedule, &retention(&rules), (from, until), 100_000).unwrap();
        let theirs = step_by_step(&rules, &slots, until);
        assert_eq!(ours.len(), slots.len());
        for ((ours, slot), theirs) in ours.into_iter().zip(slots).zip(theirs) {
            let ours = (ours.created_at, sorted(ours.kept_by), ours.expired_at);
            if ours.1.is_empty() {
                *often.entry(None).or_default() += 1;
            }
            for reason in &ours.1 {
                *often.entry(Some(*reason)).or_default() += 1;
            }
            let theirs = (slot, theirs.kept_by, theirs.until);
            let definition = &rules.definition;
            assert_eq!(
                ours, theirs,
                "simulation {number} of seed {SEED}: {pattern:?} from {from:?} to {until:?}, \
                 {definition:?}"
            );
        }
    });
    // Rules that stay the same leave out three: other stamps, images and locked vaults.
    assert_eq!(often.len(), REASONS.len() - 3 + 1, "{often:?}");
}

/// Adds a backup at each slot and drops at once what goes: what keeps each in the end, and when
/// it goes.
fn step_by_step(rules: &Rules, slots: &[Timestamp], until: Timestamp) -> Vec<Verdict> {
    let mut verdicts = vec![
        Verdict {
            kept_by: Vec::new(),
            until: None,
        };
        slots.len()
    ];
    let mut left: (Vec<usize>, Vec<Backup>, Vec<Seen>) = Default::default();
    for (number, slot) in slots.iter().enumerate() {
        // First what the clock has let go by then, at its stamp; then what the new one displaces.
        go(rules, &mut left, *slot, |gone, backup| {
            verdicts[gone].until = backup.expired_at;
        });
        left.0.push(number);
        left.1.push(Backup {
            created_at: *slot,
            expired_at: rules.stamp(*slot),
            held: false,
            made_under: None,
        });
        left.2.push(rules.see(*slot));
        go(rules, &mut left, *slot, |gone, _| {
            verdicts[gone].until = Some(*slot)
        });
    }
    go(rules, &mut left, until, |gone, backup| {
        verdicts[gone].until = backup.expired_at;
    });
    let (numbers, backups, seen) = left;
    for (number, verdict) in numbers
        .into_iter()
        .zip(judge(rules, &backups, &seen, until))
    {
        verdicts[number] = verdict;
    }
    verdicts
}

/// Drops what goes at an instant.
fn go(
    rules: &Rules,
    left: &mut (Vec<usize>, Vec<Backup>, Vec<Seen>),
    now: Timestamp,
    mut gone: impl FnMut(usize, &Backup),
) {
    let (numbers, backups, seen) = left;
    let verdicts = judge(rules, backups, seen, now);
    for at in (0..verdicts.len()).rev() {
        if verdicts[at].kept_by.is_empty() {
            gone(numbers[at], &backups[at]);
            numbers.remove(at);
            backups.remove(at);
            seen.remove(at);
        }
    }
}

/// Mostly a few runs a week.
fn schedule(random: &mut Random) -> (Vec<String>, Schedule) {
    let hours = match random.one_in(8) {
        true => "BYHOUR=1,7,13,22",
        false => "BYHOUR=23",
    };
    let minute = random.range(0, 59);
    let day = match random.range(0, 2) {
        0 => format!("FREQ=DAILY;INTERVAL={}", random.range(1, 6)),
        1 => "FREQ=WEEKLY;BYDAY=MO,WE,SU".to_owned(),
        _ => format!(
            "FREQ=WEEKLY;BYDAY={}",
            random.pick(&["MO", "TH", "SA", "SU"])
        ),
    };
    let pattern = vec![format!("{day};{hours};BYMINUTE={minute}")];
    let zone = *random.pick(&ZONES);
    let schedule = Schedule::new(&pattern, Some(zone), &[]).unwrap();
    (pattern, schedule)
}

/// A difficult instant, or one shortly before.
fn place_start(random: &mut Random, places: &[Place]) -> Timestamp {
    let at = random.pick(places).start(random);
    at.plus_seconds(-random.range(0, 3) * 86_400)
}
