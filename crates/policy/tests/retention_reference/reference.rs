//! Retention by its definition: for each backup, one plain question after the other.
//!
//! Slow, and meant to be read beside the contract: nothing of the crate's own calendar, windows
//! or judgement is used, and each answer is worked out from all backups anew.

use cairn_policy::Reason;
use cairn_types::{
    Month, OperationDefinition, RetentionRule, RetentionType, Timestamp, WeekOfMonth, Weekday,
};
use jiff::civil::{Date, DateTime};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone, TimeZoneDatabase};
use jiff::{Span, ToSpan};

/// A definition with its zone.
#[derive(Debug, Clone)]
pub struct Rules {
    pub definition: OperationDefinition,
    pub zone: TimeZone,
}

/// A backup that a policy made.
#[derive(Debug, Clone)]
pub struct Backup {
    pub created_at: Timestamp,
    pub expired_at: Option<Timestamp>,
    pub held: bool,
    /// In a locked vault: which of a case's rules it was made under.
    pub made_under: Option<usize>,
}

/// What rules say of an instant, whatever other backups there are.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The stamps that the rules give, each with its reason.
    stamps: Vec<(Reason, Timestamp)>,
    /// Its day, week, month and year.
    periods: [(i16, i16); 4],
}

/// What becomes of a backup, and the reasons in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub kept_by: Vec<Reason>,
    pub until: Option<Timestamp>,
}

const WINDOWS: [Reason; 4] = [
    Reason::DayBackups,
    Reason::WeekBackups,
    Reason::MonthBackups,
    Reason::YearBackups,
];

impl Rules {
    pub fn new(definition: OperationDefinition) -> Self {
        let zone = match definition.timezone.as_deref() {
            None => TimeZone::UTC,
            Some(name) => zone(name),
        };
        Self { definition, zone }
    }

    /// How many of the newest backups, days, weeks, months and years are kept.
    fn limits(&self) -> [usize; 5] {
        let of = &self.definition;
        [
            of.max_backups,
            of.day_backups,
            of.week_backups,
            of.month_backups,
            of.year_backups,
        ]
        .map(|limit| limit.unwrap_or(0).max(0) as usize)
    }

    pub fn count(&self) -> bool {
        self.limits().into_iter().any(|limit| limit > 0)
    }

    pub fn stamp(&self, created_at: Timestamp) -> Option<Timestamp> {
        self.see(created_at).stamp()
    }

    pub fn see(&self, created_at: Timestamp) -> Seen {
        let wall = self.zone.to_datetime(jiff_of(created_at));
        let date = wall.date();
        let week = date.iso_week_date();
        Seen {
            stamps: self.stamps(created_at, wall),
            periods: [
                (date.year(), date.day_of_year()),
                (week.year(), week.week().into()),
                (date.year(), date.month().into()),
                (date.year(), 0),
            ],
        }
    }

    fn stamps(&self, created_at: Timestamp, wall: DateTime) -> Vec<(Reason, Timestamp)> {
        let mut stamps = Vec::new();
        let hours = |days: i64| created_at.plus_seconds(days * 24 * 60 * 60);
        let calendar = |span: Span| instant(&self.zone, wall.checked_add(span).unwrap());
        if let Some(days) = limit(self.definition.retention_duration_days) {
            stamps.push((Reason::RetentionDurationDays, hours(days)));
        }
        let Some(advanced) = &self.definition.advanced_retention_rules else {
            return stamps;
        };
        if let Some((rule, weeks)) = in_use(&advanced.weekly_retention_rules)
            && on_weekday(rule, wall.date())
        {
            stamps.push((Reason::WeeklyRetentionRules, hours(weeks * 7)));
        }
        if let Some((rule, months)) = in_use(&advanced.monthly_retention_rules)
            && on_day_of_month(rule, wall.date())
        {
            stamps.push((Reason::MonthlyRetentionRules, calendar(months.months())));
        }
        if let Some((rule, years)) = in_use(&advanced.yearly_retention_rules)
            && in_month(rule, wall.date())
            && on_day_of_month(rule, wall.date())
        {
            stamps.push((Reason::YearlyRetentionRules, calendar(years.years())));
        }
        stamps
    }
}

impl Seen {
    /// The latest wins.
    fn stamp(&self) -> Option<Timestamp> {
        self.stamps.iter().map(|(_, at)| *at).max()
    }

    /// What a stamp that lies ahead is the stamp of.
    fn reasons(&self, expired_at: Timestamp, now: Timestamp) -> Vec<Reason> {
        if self.stamp() != Some(expired_at) {
            return vec![Reason::ExpiredAt];
        }
        let ahead = self.stamps.iter().filter(|(_, at)| *at > now);
        ahead.map(|(reason, _)| *reason).collect()
    }
}

/// What becomes of backups, the rules in force being the first of all.
pub fn decide(all: &[Rules], backups: &[Backup], now: Timestamp) -> Vec<Verdict> {
    let by: Vec<Vec<Verdict>> = all
        .iter()
        .map(|rules| {
            let seen: Vec<Seen> = backups.iter().map(|b| rules.see(b.created_at)).collect();
            judge(rules, backups, &seen, now)
        })
        .collect();
    let mut verdicts = by[0].clone();
    for (number, backup) in backups.iter().enumerate() {
        let Some(made_under) = backup.made_under.filter(|_| !backup.held) else {
            continue;
        };
        let (verdict, locked) = (&mut verdicts[number], &by[made_under][number]);
        if locked.kept_by.is_empty() {
            continue;
        }
        // It stays as long as either rules keep it; what no clock ends is longest.
        if verdict.kept_by.is_empty() {
            verdict.kept_by.push(Reason::Locked);
            verdict.until = locked.until;
        } else {
            verdict.until = verdict.until.zip(locked.until).map(|(a, b)| a.max(b));
        }
    }
    verdicts
}

/// What becomes of backups by some rules, as if no vault were locked.
pub fn judge(rules: &Rules, backups: &[Backup], seen: &[Seen], now: Timestamp) -> Vec<Verdict> {
    let passed = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    let counted: Vec<bool> = (0..backups.len())
        .map(|n| !backups[n].held && (!passed(backups[n].expired_at) || seen[n].stamp().is_some()))
        .collect();
    let windows = windows(rules, backups, seen, &counted);
    (0..backups.len())
        .map(|n| {
            let (backup, seen, window) = (&backups[n], &seen[n], windows[n].clone());
            let ahead = backup.expired_at.filter(|at| *at > now);
            let by_stamp = ahead.map_or(Vec::new(), |at| seen.reasons(at, now));
            let (mut kept_by, until) = if backup.held {
                (vec![Reason::Held], None)
            } else if !rules.count() {
                match backup.expired_at {
                    Some(at) => (by_stamp, Some(at)),
                    None => (vec![Reason::Forever], None),
                }
            } else if seen.stamp().is_some() {
                let until = ahead.filter(|_| window.is_empty());
                ([window, by_stamp].concat(), until)
            } else if passed(backup.expired_at) || window.is_empty() {
                (Vec::new(), None)
            } else {
                // The stamp of other rules keeps nothing here: it ends what the window keeps.
                (window, ahead)
            };
            let until = match kept_by.is_empty() {
                true => backup.expired_at.filter(|at| *at <= now),
                false => until,
            };
            kept_by.sort();
            Verdict { kept_by, until }
        })
        .collect()
}

/// The reasons to keep each backup that the rules give which count.
fn windows(rules: &Rules, backups: &[Backup], seen: &[Seen], counted: &[bool]) -> Vec<Vec<Reason>> {
    let mut reasons = vec![Vec::new(); backups.len()];
    let [max, periods @ ..] = rules.limits();
    // The newest first; of two at the same instant, the one that was added last.
    let mut order: Vec<usize> = (0..backups.len()).filter(|n| counted[*n]).collect();
    order.sort_by_key(|n| std::cmp::Reverse((backups[*n].created_at, *n)));
    for number in order.iter().take(max) {
        reasons[*number].push(Reason::MaxBackups);
    }
    for (kind, reason) in WINDOWS.into_iter().enumerate() {
        // The newest backup of each period, and the newest periods by the calendar: where clocks
        // go back over midnight, a backup of the day before may be the newer one.
        let mut newest: Vec<((i16, i16), usize)> = Vec::new();
        for number in order.iter().filter(|_| periods[kind] > 0) {
            let period = seen[*number].periods[kind];
            if !newest.iter().rev().any(|(of, _)| *of == period) {
                newest.push((period, *number));
            }
        }
        newest.sort_by_key(|(period, _)| std::cmp::Reverse(*period));
        for (_, number) in newest.into_iter().take(periods[kind]) {
            reasons[number].push(reason);
        }
    }
    reasons
}

fn limit(value: Option<i32>) -> Option<i64> {
    value.filter(|value| *value > 0).map(i64::from)
}

/// A rule that is there and switched on, and for how long.
fn in_use(rule: &Option<RetentionRule>) -> Option<(&RetentionRule, i64)> {
    let rule = rule.as_ref()?;
    Some((rule, limit(rule.retention_duration_periods)?))
}

fn on_weekday(rule: &RetentionRule, date: Date) -> bool {
    let name = match date.weekday() {
        jiff::civil::Weekday::Monday => Weekday::Monday,
        jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
        jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
        jiff::civil::Weekday::Thursday => Weekday::Thursday,
        jiff::civil::Weekday::Friday => Weekday::Friday,
        jiff::civil::Weekday::Saturday => Weekday::Saturday,
        jiff::civil::Weekday::Sunday => Weekday::Sunday,
    };
    rule.days_of_week.iter().flatten().any(|day| *day == name)
}

fn on_day_of_month(rule: &RetentionRule, date: Date) -> bool {
    let days = rule.days_of_month.iter().flatten();
    let mut weeks = rule.retention_weeks.iter().flatten();
    match rule.retention_type.unwrap() {
        RetentionType::Monthly => days.into_iter().any(|day| match day {
            -1 => date == date.last_of_month(),
            day => date.day() == *day as i8,
        }),
        // The first Monday is the first of the month's Mondays.
        RetentionType::Weekly => {
            let is = |nth| date.nth_weekday_of_month(nth, date.weekday()).unwrap() == date;
            on_weekday(rule, date)
                && weeks.any(|week| match week {
                    WeekOfMonth::First => is(1),
                    WeekOfMonth::Second => is(2),
                    WeekOfMonth::Third => is(3),
                    WeekOfMonth::Fourth => is(4),
                    WeekOfMonth::Last => is(-1),
                })
        }
    }
}

fn in_month(rule: &RetentionRule, date: Date) -> bool {
    let name = Month::ALL[date.month() as usize - 1];
    rule.retention_months
        .iter()
        .flatten()
        .any(|month| *month == name)
}

/// A zone of the program's database, or `UTC+08:00`.
pub fn zone(name: &str) -> TimeZone {
    let Some(offset) = name.strip_prefix("UTC").filter(|rest| !rest.is_empty()) else {
        return TimeZoneDatabase::bundled().get(name).unwrap();
    };
    let part = |from: usize| offset[from..from + 2].parse::<i32>().unwrap();
    let seconds = part(1) * 3600 + part(4) * 60;
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    Offset::from_seconds(sign * seconds).unwrap().to_time_zone()
}

/// The instant of a wall time: the first of two, and the change's where there is none.
pub fn instant(zone: &TimeZone, wall: DateTime) -> Timestamp {
    let at = match zone.to_ambiguous_timestamp(wall).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).unwrap(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wall).unwrap(),
        AmbiguousOffset::Gap { before, .. } => {
            let behind = before.to_timestamp(wall).unwrap() + 1.second();
            zone.preceding(behind).next().unwrap().timestamp()
        }
    };
    Timestamp::from_micros(at.as_microsecond())
}

pub fn jiff_of(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_microsecond(at.as_micros()).unwrap()
}
