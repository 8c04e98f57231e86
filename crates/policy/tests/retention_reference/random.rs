//! Random definitions and backups, thickest where calendars and clocks are difficult.

use cairn_types::{
    AdvancedRetention, Month, OperationDefinition, RetentionRule, RetentionType, Timestamp,
    WeekOfMonth, Weekday,
};
use jiff::ToSpan;
use jiff::civil::date;

use crate::reference::{Backup, Rules, instant, jiff_of, zone};

/// Fixed offsets, and zones whose clocks change: by night, at midnight (a day begins late, or ends
/// twice), a minute later (a day comes again after the next has begun), by half an hour, over a
/// whole day.
pub const ZONES: [&str; 15] = [
    "UTC",
    "UTC+08:00",
    "UTC-03:30",
    "UTC+14:00",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Australia/Lord_Howe",
    "Pacific/Apia",
];

const FIRST_YEAR: i16 = 2006;
const LAST_YEAR: i16 = 2041;
const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Numbers that follow from a seed alone.
/// Source: SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
pub struct Random(u64);

impl Random {
    /// Another sequence for each pair.
    pub fn new(seed: u64, number: u64) -> Self {
        let mut random = Self(seed);
        Self(random.next() ^ number.wrapping_mul(0xD134_2543_DE82_EF95))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From `low` up to `high`, both with them.
    pub fn range(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high - low + 1) as u64) as i64
    }

    pub fn one_in(&mut self, many: i64) -> bool {
        self.range(1, many) == 1
    }

    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.range(0, from.len() as i64 - 1) as usize]
    }

    /// Some of them, in their order, but at least one.
    pub fn some<T: Copy + PartialEq>(&mut self, from: &[T]) -> Vec<T> {
        let many = self.range(1, 4);
        let one = *self.pick(from);
        let keep = |item: &T, random: &mut Self| *item == one || random.one_in(1 + many);
        from.iter()
            .copied()
            .filter(|item| keep(item, self))
            .collect()
    }
}

/// A zone's difficult instants, in microseconds.
pub struct Place {
    name: &'static str,
    instants: Vec<i64>,
}

/// The zones with their difficult instants: the ends of years, months and leap days, the changes of
/// clocks, and those instants from which a number of months or years leads to a change.
pub fn places() -> Vec<Place> {
    ZONES.into_iter().map(place).collect()
}

fn place(name: &'static str) -> Place {
    let zone = zone(name);
    let mut instants = Vec::new();
    for year in FIRST_YEAR..LAST_YEAR {
        for month in 1..=12 {
            let begins = date(year, month, 1);
            let weight = if month == 1 || month == 3 { 3 } else { 1 };
            let begins = instant(&zone, begins.at(0, 0, 0, 0)).as_micros();
            instants.extend(std::iter::repeat_n(begins, weight));
        }
    }
    let (first, last) = (instants[0], instants[instants.len() - 1]);
    let at = |micros| jiff_of(Timestamp::from_micros(micros));
    let changes = zone.following(at(first)).map(|change| change.timestamp());
    for change in changes.take_while(|change| *change < at(last)) {
        instants.extend([change.as_microsecond(); 12]);
        // What the wall shows after the change, and would show had there been none.
        let after = zone.to_datetime(change);
        let before = zone.to_offset(change - 1.second()).to_datetime(change);
        for wall in [before, after] {
            for months in [1, 2, 3, 6, 7, 12, 24] {
                let wall = wall - months.months();
                instants.push(instant(&zone, wall).as_micros());
            }
        }
    }
    Place { name, instants }
}

impl Place {
    /// One of its instants.
    pub fn start(&self, random: &mut Random) -> Timestamp {
        Timestamp::from_micros(*random.pick(&self.instants))
    }
}

/// Rules and the backups of one resource; the first rules are those in force.
#[derive(Debug, Clone)]
pub struct Case {
    pub rules: Vec<Rules>,
    pub backups: Vec<Backup>,
    pub now: Timestamp,
}

impl Case {
    pub fn new(random: &mut Random, places: &[Place]) -> Self {
        let place = random.pick(places);
        let mut rules = vec![Rules::new(definition(random, place.name))];
        for _ in 0..random.range(0, 2) {
            let other = match random.one_in(3) {
                true => random.pick(places).name,
                false => place.name,
            };
            rules.push(Rules::new(definition(random, other)));
        }
        let locked = random.one_in(3);
        let held = if random.one_in(2) { 8 } else { 1_000 };
        let many = random.range(0, 24) as usize;
        let mut backups: Vec<Backup> = instants(random, place, many)
            .into_iter()
            .map(|created_at| {
                let of = random.range(0, rules.len() as i64 - 1) as usize;
                Backup {
                    created_at,
                    expired_at: stamp(random, &rules[of], created_at),
                    held: random.one_in(held),
                    made_under: Some(of).filter(|_| locked && !random.one_in(4)),
                }
            })
            .collect();
        if random.one_in(2) {
            backups.sort_by_key(|backup| backup.created_at);
        }
        let now = now(random, &backups);
        Self {
            rules,
            backups,
            now,
        }
    }
}

/// The stamp of a backup: mostly the one that the rules give which it was made under.
fn stamp(random: &mut Random, rules: &Rules, created_at: Timestamp) -> Option<Timestamp> {
    match random.range(0, 15) {
        0 => None,
        1 => Some(moved(created_at, random.range(0, 400) * DAY)),
        2 => Some(moved(
            created_at,
            random.range(0, 400) * HOUR + random.range(0, 9),
        )),
        _ => rules.stamp(created_at),
    }
}

/// Instants that lie close together in one of the ways in which they can.
fn instants(random: &mut Random, place: &Place, many: usize) -> Vec<Timestamp> {
    let steps = [
        3 * SECOND,
        HOUR,
        12 * HOUR,
        DAY,
        7 * DAY,
        31 * DAY,
        366 * DAY,
    ];
    let steps = &steps[..random.range(4, 7) as usize];
    let centres: Vec<i64> = (0..random.range(1, 3))
        .map(|_| *random.pick(&place.instants))
        .collect();
    let mut instants = Vec::new();
    while instants.len() < many {
        let base = match instants.last() {
            Some(last) if random.one_in(4) => *last,
            _ => *random.pick(&centres),
        };
        let step = *random.pick(steps);
        // Often of whole steps, so that days and hours are met on the second.
        let away = match random.range(0, 3) {
            0 => random.range(-3, 3) * step,
            1 => random.range(-5, 5) * step + random.range(-1, 1) * SECOND,
            2 => random.range(-step, step) / SECOND * SECOND,
            _ => random.range(-step, step),
        };
        instants.push(base + away);
    }
    instants.into_iter().map(Timestamp::from_micros).collect()
}

fn now(random: &mut Random, backups: &[Backup]) -> Timestamp {
    let newest = backups.iter().map(|backup| backup.created_at).max();
    let newest = newest.unwrap_or(Timestamp::from_micros(0));
    let stamps: Vec<Timestamp> = backups.iter().filter_map(|b| b.expired_at).collect();
    match random.range(0, 7) {
        0..3 => newest,
        3 => moved(newest, random.range(0, 800 * DAY)),
        4 => moved(newest, random.range(0, 40) * DAY),
        5..7 if !stamps.is_empty() => moved(*random.pick(&stamps), random.range(-1, 1)),
        _ => moved(newest, random.range(0, 40) * HOUR),
    }
}

fn moved(at: Timestamp, micros: i64) -> Timestamp {
    Timestamp::from_micros(at.as_micros() + micros)
}

/// A definition, in all combinations; nothing is said as unset, 0 or -1.
pub fn definition(random: &mut Random, zone: &str) -> OperationDefinition {
    // One that counts only, keeps by time only, or does both.
    let (by_count, by_time) = match random.range(0, 7) {
        0..3 => (true, false),
        3..5 => (false, true),
        5..7 => (true, true),
        _ => (false, false),
    };
    let mut count = |many, high| match by_count && random.one_in(many) {
        true => Some(random.range(1, high) as i32),
        false => *random.pick(&[None, Some(0), Some(-1)]),
    };
    OperationDefinition {
        max_backups: count(2, 8),
        day_backups: count(3, 6),
        week_backups: count(3, 5),
        month_backups: count(3, 5),
        year_backups: count(3, 4),
        retention_duration_days: match by_time && random.one_in(2) {
            true => Some(*random.pick(&[1, 2, 7, 30, 31, 365, 36_500])),
            false => *random.pick(&[None, Some(0), Some(-1)]),
        },
        timezone: Some(zone.to_owned()).filter(|_| zone != "UTC" || random.one_in(2)),
        advanced_retention_rules: (by_time && !random.one_in(3)).then(|| AdvancedRetention {
            weekly_retention_rules: rule(random, false, false),
            monthly_retention_rules: rule(random, true, false),
            yearly_retention_rules: rule(random, true, true),
        }),
        ..OperationDefinition::default()
    }
}

fn rule(random: &mut Random, of_month: bool, of_year: bool) -> Option<RetentionRule> {
    if random.one_in(2) {
        return None;
    }
    if random.one_in(8) {
        let periods = *random.pick(&[None, Some(0), Some(-1)]);
        return Some(RetentionRule {
            retention_duration_periods: periods,
            ..RetentionRule::default()
        });
    }
    let by_week = !of_month || random.one_in(2);
    let kind = match by_week {
        true => RetentionType::Weekly,
        false => RetentionType::Monthly,
    };
    let days: Vec<i32> = (1..=28).chain([-1]).collect();
    let periods = if of_year { 3 } else { 13 };
    Some(RetentionRule {
        retention_type: Some(kind).filter(|_| of_month),
        days_of_week: by_week.then(|| random.some(Weekday::ALL)),
        retention_weeks: (of_month && by_week).then(|| random.some(WeekOfMonth::ALL)),
        days_of_month: (!by_week).then(|| random.some(&days)),
        retention_months: of_year.then(|| random.some(Month::ALL)),
        retention_duration_periods: Some(random.range(1, periods) as i32),
    })
}
