//! How long a backup is kept: the rules of an operation definition.
//!
//! A rule works in one of two ways. By time: a backup gets a *stamp* when it is made, the instant
//! from which on it need not be kept, and the clock decides. By count: the newest backups hold
//! their places, in all or one for each day, week, month or year, and making another backup
//! decides (`keep.rs`). What no rule limits is kept for ever.
//!
//! Days, weeks, months and years are those of the definition's zone.

mod keep;

use cairn_types::{
    AdvancedRetention, OperationDefinition, RetentionRule, RetentionType, Timestamp, WeekOfMonth,
};

use crate::civil::{DAY_SECONDS, Date, date_of, day_of, days_in_month, weekday_of};
use crate::zone::{Wall, Zone, second_of, timestamp_of};

pub use keep::{Decision, FAILED_KEPT_SECONDS, Fact, Keeper, decide, failed_to_remove};

/// No stamp lies later: the end of the years that instants have.
const LAST_SECOND: i64 = day_of(9999, 12, 30) * DAY_SECONDS;

/// Why a backup is kept. The names are those of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is among the newest.
    MaxBackups,
    /// It is the newest of its day.
    DayBackups,
    /// It is the newest of its week.
    WeekBackups,
    /// It is the newest of its month.
    MonthBackups,
    /// It is the newest of its year.
    YearBackups,
    /// So many days have not passed.
    RetentionDurationDays,
    /// A rule about days of the week keeps it.
    WeeklyRetentionRules,
    /// A rule about days of the month keeps it.
    MonthlyRetentionRules,
    /// A rule about days of the year keeps it.
    YearlyRetentionRules,
    /// Its stamp keeps it: one that lies ahead, and that the rules in force would not give.
    ExpiredAt,
    /// An image made of it is registered.
    Held,
    /// The vault is locked, and only the rules it was made under keep it.
    Locked,
    /// Nothing limits it.
    Forever,
}

impl Reason {
    /// Its name: the key of the rule where it is one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxBackups => "max_backups",
            Self::DayBackups => "day_backups",
            Self::WeekBackups => "week_backups",
            Self::MonthBackups => "month_backups",
            Self::YearBackups => "year_backups",
            Self::RetentionDurationDays => "retention_duration_days",
            Self::WeeklyRetentionRules => "weekly_retention_rules",
            Self::MonthlyRetentionRules => "monthly_retention_rules",
            Self::YearlyRetentionRules => "yearly_retention_rules",
            Self::ExpiredAt => "expired_at",
            Self::Held => "image_registered",
            Self::Locked => "locked",
            Self::Forever => "forever",
        }
    }
}

/// A definition that says nothing sensible about retention. What `api` has accepted never does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RetentionError(&'static str);

/// The rules of an operation definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    zone: Zone,
    /// How many of the newest in all, days, weeks, months and years; 0 where it is no limit.
    counts: [u32; 5],
    days: Option<u32>,
    weekly: Option<Weekly>,
    monthly: Option<(MonthDays, u32)>,
    yearly: Option<(MonthDays, u16, u32)>,
}

/// Days of the week, as bits, and how many weeks.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Weekly {
    weekdays: u8,
    weeks: u32,
}

/// Days of a month.
#[derive(Debug, Clone, PartialEq, Eq)]
enum MonthDays {
    /// By their numbers, as bits, and whether the last.
    Numbers { numbers: u32, last: bool },
    /// Days of the week, the first to fourth of them and the last, as bits.
    Weeks { weeks: u8, weekdays: u8 },
}

impl MonthDays {
    fn contain(&self, date: Date, weekday: u8) -> bool {
        let count = days_in_month(date.year, date.month);
        match self {
            Self::Numbers { numbers, last } => {
                numbers >> date.day & 1 == 1 || (*last && date.day == count)
            }
            Self::Weeks { weeks, weekdays } => {
                let nth = (date.day - 1) / 7;
                let in_last = date.day + 7 > count;
                let in_week = (nth < 4 && weeks >> nth & 1 == 1)
                    || (in_last && weeks >> WeekOfMonth::Last as u8 & 1 == 1);
                in_week && weekdays >> weekday & 1 == 1
            }
        }
    }
}

/// The stamps that the rules give a backup, each by its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stamps([Option<Timestamp>; 4]);

impl Stamps {
    const REASONS: [Reason; 4] = [
        Reason::RetentionDurationDays,
        Reason::WeeklyRetentionRules,
        Reason::MonthlyRetentionRules,
        Reason::YearlyRetentionRules,
    ];

    /// The latest: whichever rule keeps a backup longest wins.
    fn latest(&self) -> Option<Timestamp> {
        self.0.iter().flatten().max().copied()
    }

    /// The rules whose stamps lie ahead.
    fn ahead(&self, now: Timestamp) -> impl Iterator<Item = Reason> {
        let stamps = self.0.into_iter().zip(Self::REASONS);
        stamps.filter_map(move |(stamp, reason)| (stamp? > now).then_some(reason))
    }
}

impl Retention {
    /// Reads the rules of a definition. What is unset, 0 or negative limits nothing.
    ///
    /// Errors: a zone that is none, or a rule about months that does not say which days.
    pub fn new(definition: &OperationDefinition) -> Result<Self, RetentionError> {
        let zone = match &definition.timezone {
            None => Zone::UTC,
            Some(name) => Zone::parse(name).ok_or(RetentionError("There is no such zone."))?,
        };
        let none = AdvancedRetention::default();
        let advanced = definition
            .advanced_retention_rules
            .as_ref()
            .unwrap_or(&none);
        let on = |rule: &'_ Option<RetentionRule>| {
            let rule = rule.clone()?;
            limit(rule.retention_duration_periods).map(|periods| (rule, periods))
        };
        let weekly = on(&advanced.weekly_retention_rules).map(|(rule, weeks)| Weekly {
            weekdays: weekday_bits(&rule),
            weeks,
        });
        let monthly = match on(&advanced.monthly_retention_rules) {
            Some((rule, months)) => Some((month_days(&rule)?, months)),
            None => None,
        };
        let yearly = match on(&advanced.yearly_retention_rules) {
            Some((rule, years)) => {
                let months = rule.retention_months.iter().flatten();
                let months = months.fold(0, |bits, month| bits | 2 << *month as u8);
                Some((month_days(&rule)?, months, years))
            }
            None => None,
        };
        let count = |value| limit(value).unwrap_or(0);
        Ok(Self {
            zone,
            counts: [
                count(definition.max_backups),
                count(definition.day_backups),
                count(definition.week_backups),
                count(definition.month_backups),
                count(definition.year_backups),
            ],
            days: limit(definition.retention_duration_days),
            weekly,
            monthly,
            yearly,
        })
    }

    /// The stamp of a backup that is made at an instant: what it is given as `expired_at`. None
    /// if no rule about time is meant for it.
    pub fn stamp(&self, created_at: Timestamp) -> Option<Timestamp> {
        self.stamps(&mut Wall::new(&self.zone), created_at).latest()
    }

    /// Whether backups are kept by their number.
    pub fn counts(&self) -> bool {
        self.counts.iter().any(|count| *count > 0)
    }

    fn stamps(&self, wall: &mut Wall<'_>, created_at: Timestamp) -> Stamps {
        let after = |days: u32| later(created_at, i64::from(days) * DAY_SECONDS);
        let mut stamps = Stamps([self.days.map(after), None, None, None]);
        if self.weekly.is_none() && self.monthly.is_none() && self.yearly.is_none() {
            return stamps;
        }
        let shown = wall.at(second_of(created_at));
        let day = shown.div_euclid(DAY_SECONDS);
        let (date, weekday) = (date_of(day), weekday_of(day));
        let mut after_months = |months: u32| {
            let later = plus_months(shown, date, months);
            let instant = wall.instant(later).min(LAST_SECOND);
            // Where the wall leaves that second out, the instant is that of the change, to which
            // parts of the second would add nothing but disorder.
            let below_a_second = match wall.at(instant) == later {
                true => created_at.as_micros().rem_euclid(1_000_000),
                false => 0,
            };
            Timestamp::from_micros(timestamp_of(instant).as_micros() + below_a_second)
        };
        if let Some(rule) = &self.weekly
            && rule.weekdays >> weekday & 1 == 1
        {
            stamps.0[1] = Some(after(rule.weeks.saturating_mul(7)));
        }
        if let Some((days, months)) = &self.monthly
            && days.contain(date, weekday)
        {
            stamps.0[2] = Some(after_months(*months));
        }
        if let Some((days, in_months, years)) = &self.yearly
            && in_months >> date.month & 1 == 1
            && days.contain(date, weekday)
        {
            stamps.0[3] = Some(after_months(years.saturating_mul(12)));
        }
        stamps
    }
}

fn limit(value: Option<i32>) -> Option<u32> {
    let value = u32::try_from(value?).ok()?;
    (value > 0).then_some(value)
}

fn weekday_bits(rule: &RetentionRule) -> u8 {
    let days = rule.days_of_week.iter().flatten();
    days.fold(0, |bits, day| bits | 1 << *day as u8)
}

fn month_days(rule: &RetentionRule) -> Result<MonthDays, RetentionError> {
    match rule.retention_type {
        None => Err(RetentionError("A rule about months has no retention_type.")),
        Some(RetentionType::Weekly) => {
            let weeks = rule.retention_weeks.iter().flatten();
            Ok(MonthDays::Weeks {
                weeks: weeks.fold(0, |bits, week| bits | 1 << *week as u8),
                weekdays: weekday_bits(rule),
            })
        }
        Some(RetentionType::Monthly) => {
            let days = || rule.days_of_month.iter().flatten();
            let numbers = days().filter(|day| (1..=31).contains(*day));
            Ok(MonthDays::Numbers {
                numbers: numbers.fold(0, |bits, day| bits | 1 << *day),
                last: days().any(|day| *day == -1),
            })
        }
    }
}

/// So many seconds later, if that is an instant.
fn later(from: Timestamp, seconds: i64) -> Timestamp {
    from.plus_seconds(seconds).min(timestamp_of(LAST_SECOND))
}

/// The wall time so many months later, on the same day of the month or, in a month that is too
/// short, on its last.
fn plus_months(wall: i64, date: Date, months: u32) -> i64 {
    let number = date.year * 12 + i64::from(date.month) - 1 + i64::from(months);
    let (year, month) = (number.div_euclid(12), number.rem_euclid(12) as u8 + 1);
    let day = date.day.min(days_in_month(year, month));
    day_of(year, month, day) * DAY_SECONDS + wall.rem_euclid(DAY_SECONDS)
}

/// Two full backups are at least so far apart.
const MIN_FULL_GAP_SECONDS: i64 = DAY_SECONDS;

/// Whether the next backup is a full one: the first, and then one after so many incremental
/// backups as the definition says, but not within a day of the last.
pub fn is_full_due(
    definition: &OperationDefinition,
    incrementals_since_full: u32,
    last_full_at: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let Some(last_full_at) = last_full_at else {
        return true;
    };
    let interval = definition.full_backup_interval.unwrap_or(-1);
    u32::try_from(interval).is_ok_and(|interval| incrementals_since_full >= interval)
        && now.seconds_since(last_full_at) >= MIN_FULL_GAP_SECONDS
}

#[cfg(test)]
mod tests;
