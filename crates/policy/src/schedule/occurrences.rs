//! What a rule comes to: wall times, one after the other, from any one on.
//!
//! A rule repeats a period: a year, a month, down to a second. The periods are numbered, so that
//! the search begins at the one it is asked about, however long ago the rule began; only a rule
//! with COUNT is followed from its start. Each period is unfolded into days, and those into times.

use super::days::{DayFilter, Numbers};
use super::rule::{Freq, Rule};
use crate::civil::{DAY_SECONDS, date_of, day_of, days_in_month, week_of, weekday_of};

/// How far a search goes: days and weekdays repeat after 400 years, so that a rule which has not
/// come by then does not come.
const HORIZON_SECONDS: i64 = 146_097 * DAY_SECONDS;
/// The first and the last wall time that there is.
pub(crate) const WALL_MIN: i64 = day_of(1, 1, 2) * DAY_SECONDS;
pub(crate) const WALL_MAX: i64 = day_of(9999, 12, 30) * DAY_SECONDS;

/// The wall times of a rule, in order, each once.
#[derive(Debug)]
pub(super) struct Occurrences<'r> {
    rule: &'r Rule,
    /// The rule's days, with those of the start where it leaves them open.
    days: DayFilter,
    /// The times within a day, or within a shorter period, in seconds.
    times: Vec<i64>,
    start: i64,
    from: i64,
    last: i64,
    /// The next period, by its number.
    next: i64,
    step: i64,
    /// How many are left of COUNT.
    left: Option<u64>,
    /// The period at work: where its days or units begin, and which of their times are meant if
    /// not all are.
    bases: Vec<i64>,
    picked: Vec<usize>,
    at: usize,
    len: usize,
}

impl<'r> Occurrences<'r> {
    /// Those of `rule` from the wall time `from` on, up to `until`, where the rule begins with
    /// `start`.
    pub(super) fn new(rule: &'r Rule, start: i64, from: i64, until: i64) -> Self {
        let from = from.max(start);
        let last = until
            .min(from.saturating_add(HORIZON_SECONDS))
            .min(WALL_MAX);
        let first = number_of(rule, start);
        let step = match rule.freq {
            Freq::Weekly => 7 * rule.interval,
            _ => rule.interval,
        };
        let sought = match rule.count {
            Some(_) => first,
            None => number_of(rule, from).max(first),
        };
        let mut times = times_from(rule, start);
        let one_base = rule.freq.unit_seconds().is_some();
        if one_base && !rule.positions.is_empty() && places(rule, times.len()).next().is_none() {
            // Every period has these instances, and none of them is meant.
            times.clear();
        }
        Self {
            rule,
            days: days_from(rule, start),
            times,
            start,
            from,
            last,
            next: first + (sought - first) / step * step,
            step,
            left: rule.count,
            bases: Vec::new(),
            picked: Vec::new(),
            at: 0,
            len: 0,
        }
    }

    fn time(&self, at: usize) -> i64 {
        let flat = match self.picked.is_empty() {
            true => at,
            false => self.picked[at],
        };
        self.bases[flat / self.times.len()] + self.times[flat % self.times.len()]
    }

    /// Unfolds the next period that has anything. False if there is none before the end.
    fn unfold(&mut self) -> bool {
        if self.times.is_empty() {
            return false;
        }
        loop {
            self.bases.clear();
            let reached = match self.rule.freq.unit_seconds() {
                Some(unit) => self.unfold_unit(unit),
                None => self.unfold_days(),
            };
            if !reached {
                return false;
            }
            self.pick();
            if self.len > 0 {
                return true;
            }
        }
    }

    /// The next year, month, week or day. False past the end.
    fn unfold_days(&mut self) -> bool {
        let number = self.next;
        self.next += self.step;
        let (first, count) = match self.rule.freq {
            Freq::Yearly => {
                let first = day_of(number, 1, 1);
                (first, day_of(number + 1, 1, 1) - first)
            }
            Freq::Monthly => {
                let (year, month) = (number.div_euclid(12), number.rem_euclid(12) as u8 + 1);
                (
                    day_of(year, month, 1),
                    i64::from(days_in_month(year, month)),
                )
            }
            Freq::Weekly => (number, 7),
            _ => (number, 1),
        };
        if first * DAY_SECONDS > self.last {
            return false;
        }
        let mut day = first;
        if self.rule.freq == Freq::Weekly {
            // The week that the rule begins in has only the days from there on, so that these
            // are what BYSETPOS counts.
            day = day.max(self.start.div_euclid(DAY_SECONDS));
        }
        while day < first + count {
            if self.rule.freq <= Freq::Monthly {
                let date = date_of(day);
                if !self.days.admits_month(date.month) {
                    day +=
                        i64::from(days_in_month(date.year, date.month)) - i64::from(date.day) + 1;
                    continue;
                }
            }
            if self.days.admits(day) {
                self.bases.push(day * DAY_SECONDS);
            }
            day += 1;
        }
        true
    }

    /// The next hour, minute or second that is admitted. False past the end.
    fn unfold_unit(&mut self, unit: i64) -> bool {
        let units = DAY_SECONDS / unit;
        let mut admitted_day = None;
        loop {
            let second = self.next * unit;
            if second > self.last {
                return false;
            }
            let day = self.next.div_euclid(units);
            if admitted_day != Some(day) {
                if !self.days.admits(day) || !self.has_phase(day * units) {
                    let rest = (day + 1) * units - self.next;
                    self.next += (rest + self.step - 1) / self.step * self.step;
                    continue;
                }
                admitted_day = Some(day);
            }
            self.next += self.step;
            if self.rule.admits(second - day * DAY_SECONDS) {
                self.bases.push(second);
                return true;
            }
        }
    }

    /// Whether a period of the day that begins with this unit can meet the rule's times.
    fn has_phase(&self, first_unit: i64) -> bool {
        self.rule.phases.as_ref().is_none_or(|phases| {
            let phase = (self.next - first_unit).rem_euclid(self.step);
            phases[phase as usize]
        })
    }

    /// Settles which instances of the period are meant.
    fn pick(&mut self) {
        self.at = 0;
        self.len = self.bases.len() * self.times.len();
        if self.rule.positions.is_empty() {
            return;
        }
        self.picked.clear();
        self.picked.extend(places(self.rule, self.len));
        self.picked.sort_unstable();
        self.picked.dedup();
        self.len = self.picked.len();
    }

    /// The first instance of the period that lies at `wall` or after.
    fn first_at(&self, wall: i64) -> usize {
        let (mut low, mut high) = (self.at, self.len);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.time(middle) < wall {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }
}

impl Iterator for Occurrences<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        loop {
            if self.left == Some(0) {
                return None;
            }
            if self.at == self.len && !self.unfold() {
                return None;
            }
            let wall = self.time(self.at);
            if wall < self.from {
                // The rest of a period that began before: instances before the start are none,
                // those before what is sought count.
                let (begun, at) = (self.first_at(self.start), self.first_at(self.from));
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub((at - begun) as u64);
                }
                self.at = at;
                continue;
            }
            if wall > self.last {
                return None;
            }
            self.at += 1;
            self.left = self.left.map(|left| left - 1);
            return Some(wall);
        }
    }
}

/// Which of a period's instances its positions mean, by their places from 0 on.
fn places(rule: &Rule, len: usize) -> impl Iterator<Item = usize> {
    let len = len as i64;
    let place = move |position: &i64| {
        let from_end = if *position > 0 { -1 } else { len };
        usize::try_from(position + from_end).ok()
    };
    let places = rule.positions.iter().filter_map(place);
    places.filter(move |place| (*place as i64) < len)
}

/// The number of the period that a wall time is in; of a week, the day on which it begins.
fn number_of(rule: &Rule, wall: i64) -> i64 {
    let day = wall.div_euclid(DAY_SECONDS);
    let date = date_of(day);
    match (rule.freq, rule.freq.unit_seconds()) {
        (_, Some(unit)) => wall.div_euclid(unit),
        (Freq::Yearly, _) => date.year,
        (Freq::Monthly, _) => date.year * 12 + i64::from(date.month) - 1,
        (Freq::Weekly, _) => week_of(day, rule.week_start),
        _ => day,
    }
}

/// The days of a rule: those of its start, where it says nothing of them.
fn days_from(rule: &Rule, start: i64) -> DayFilter {
    let mut days = rule.days.clone();
    if days.picks_days() {
        return days;
    }
    let day = start.div_euclid(DAY_SECONDS);
    let date = date_of(day);
    if rule.freq == Freq::Yearly && days.months.is_none() {
        days.months = Some(1 << date.month);
    }
    match rule.freq {
        Freq::Yearly | Freq::Monthly => {
            let mut numbers = Numbers::default();
            numbers.insert(i64::from(date.day));
            days.month_days = Some(numbers);
        }
        Freq::Weekly => days.weekdays = Some(1 << weekday_of(day)),
        _ => {}
    }
    days
}

/// The times of a rule within a day or a shorter period, in order, in seconds.
fn times_from(rule: &Rule, start: i64) -> Vec<i64> {
    if let Some(times) = &rule.times {
        return times.clone();
    }
    let of_day = start.rem_euclid(DAY_SECONDS);
    // A unit that the period is no longer than is the period's own.
    let list = |set: Option<u64>, longer: bool, of_start: i64| -> Vec<i64> {
        match (longer, set) {
            (false, _) => vec![0],
            (true, None) => vec![of_start],
            (true, Some(bits)) => (0..60).filter(|at| bits >> at & 1 == 1).collect(),
        }
    };
    let hours = list(rule.hours, rule.freq < Freq::Hourly, of_day / 3600);
    let minutes = list(rule.minutes, rule.freq < Freq::Minutely, of_day / 60 % 60);
    let seconds = list(rule.seconds, rule.freq < Freq::Secondly, of_day % 60);
    let mut times = Vec::with_capacity(hours.len() * minutes.len() * seconds.len());
    for hour in &hours {
        for minute in &minutes {
            times.extend(
                seconds
                    .iter()
                    .map(|second| hour * 3600 + minute * 60 + second),
            );
        }
    }
    times
}
