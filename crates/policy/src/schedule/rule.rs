//! A recurrence rule of iCalendar: its text, read and checked.
//! Source: RFC 5545, section 3.3.10.

use super::days::{DayFilter, Numbers};
use crate::civil::{DAY_SECONDS, day_of, days_in_month};

/// The longest text of a rule; one that lists every day of the year is shorter.
const MAX_RULE_CHARS: usize = 4096;
/// The largest interval, and the largest number of runs.
const MAX_INTERVAL: i64 = 999_999;
const MAX_COUNT: i64 = 1_000_000;

/// How often a rule repeats, before anything limits it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Freq {
    Yearly,
    Monthly,
    Weekly,
    Daily,
    Hourly,
    Minutely,
    Secondly,
}

impl Freq {
    /// The seconds of a period that is shorter than a day.
    pub(crate) const fn unit_seconds(self) -> Option<i64> {
        match self {
            Self::Hourly => Some(3600),
            Self::Minutely => Some(60),
            Self::Secondly => Some(1),
            Self::Yearly | Self::Monthly | Self::Weekly | Self::Daily => None,
        }
    }
}

/// The last instant of a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// An instant, in seconds.
    Utc(i64),
    /// What the wall shows, in seconds.
    Wall(i64),
}

/// A rule. What it leaves open comes from the start that it is used with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub freq: Freq,
    pub interval: i64,
    pub count: Option<u64>,
    pub until: Option<Until>,
    pub week_start: u8,
    pub days: DayFilter,
    /// Bits of the hours, minutes and seconds that it lists.
    pub hours: Option<u64>,
    pub minutes: Option<u64>,
    pub seconds: Option<u64>,
    /// The times of the day instead, in seconds, where hours and minutes do not make them.
    pub times: Option<Vec<i64>>,
    /// Which instances of a period count: from 1 on, or from the end by -1.
    pub positions: Vec<i64>,
    /// For periods shorter than a day: which remainders of the interval ever meet the hours,
    /// minutes and seconds, so that days without a chance are left out at once.
    pub phases: Option<Vec<bool>>,
}

impl Rule {
    /// A rule that lists days and times and nothing else.
    pub(crate) fn new(freq: Freq, interval: i64) -> Self {
        Self {
            freq,
            interval,
            count: None,
            until: None,
            week_start: 0,
            days: DayFilter::default(),
            hours: None,
            minutes: None,
            seconds: None,
            times: None,
            positions: Vec::new(),
            phases: None,
        }
    }

    /// Reads a rule, such as `FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=22;BYMINUTE=0`.
    ///
    /// Errors: the sentence says what is not a rule about it.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_RULE_CHARS {
            return Err("A rule is too long.");
        }
        let text = text.to_ascii_uppercase();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for piece in text.strip_prefix("RRULE:").unwrap_or(&text).split(';') {
            let pair = piece
                .split_once('=')
                .ok_or("A rule is made of KEY=VALUE with semicolons between.")?;
            if pairs.iter().any(|(key, _)| *key == pair.0) {
                return Err("A rule has a key twice.");
            }
            pairs.push(pair);
        }
        let freq = pairs.iter().find(|(key, _)| *key == "FREQ");
        let mut rule = Self::new(freq_of(freq.map_or("", |(_, value)| value))?, 1);
        for (key, value) in pairs {
            rule.set(key, value)?;
        }
        rule.check()?;
        rule.phases = rule.phases();
        Ok(rule)
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        let days = &mut self.days;
        match key {
            "FREQ" => {}
            "INTERVAL" => {
                let wrong = "INTERVAL takes a whole number from 1 to 999999.";
                self.interval = number(value, 1, MAX_INTERVAL).ok_or(wrong)?;
            }
            "COUNT" => {
                let wrong = "COUNT takes a whole number from 1 to 1000000.";
                let count = number(value, 1, MAX_COUNT).ok_or(wrong)?;
                self.count = Some(count.unsigned_abs());
            }
            "UNTIL" => {
                let wrong = "UNTIL takes a local time as 20261231T235900, or UTC with Z behind.";
                self.until = Some(until(value).ok_or(wrong)?);
            }
            "WKST" => self.week_start = weekday(value).ok_or("WKST takes a day as MO.")?,
            "BYMONTH" => {
                let wrong = "BYMONTH takes 1 to 12, with commas between.";
                days.months = Some(bits(value, 1, 12).ok_or(wrong)?);
            }
            "BYWEEKNO" => {
                let wrong = "BYWEEKNO takes 1 to 53 and -53 to -1, with commas between.";
                days.weeks = Some(signed(value, 53).ok_or(wrong)?);
            }
            "BYYEARDAY" => {
                let wrong = "BYYEARDAY takes 1 to 366 and -366 to -1, with commas between.";
                days.year_days = Some(signed(value, 366).ok_or(wrong)?);
            }
            "BYMONTHDAY" => {
                let wrong = "BYMONTHDAY takes 1 to 31 and -31 to -1, with commas between.";
                days.month_days = Some(signed(value, 31).ok_or(wrong)?);
            }
            "BYDAY" => {
                let wrong = "BYDAY takes days as MO, or 1MO and -1FR, with commas between.";
                days.set_weekdays(value).ok_or(wrong)?;
            }
            "BYHOUR" => {
                let wrong = "BYHOUR takes 0 to 23, with commas between.";
                self.hours = Some(bits(value, 0, 23).ok_or(wrong)?);
            }
            "BYMINUTE" => {
                let wrong = "BYMINUTE takes 0 to 59, with commas between.";
                self.minutes = Some(bits(value, 0, 59).ok_or(wrong)?);
            }
            "BYSECOND" => {
                // A 60th second is a leap second, which no clock here shows.
                let wrong = "BYSECOND takes 0 to 60, with commas between.";
                self.seconds = Some(bits(value, 0, 60).ok_or(wrong)? & !(1 << 60));
            }
            "BYSETPOS" => {
                let wrong = "BYSETPOS takes 1 to 366 and -366 to -1, with commas between.";
                let read: Option<_> = value
                    .split(',')
                    .map(|one| signed_number(one, 366))
                    .collect();
                self.positions = read.ok_or(wrong)?;
            }
            _ => return Err("A rule has a key that RFC 5545 does not know."),
        }
        Ok(())
    }

    /// Which parts go together. Source: the table and the notes of RFC 5545, section 3.3.10.
    fn check(&mut self) -> Result<(), &'static str> {
        let (freq, days) = (self.freq, &mut self.days);
        days.week_start = self.week_start;
        days.ordinals_in_year = freq == Freq::Yearly && days.months.is_none();
        if self.count.is_some() && self.until.is_some() {
            return Err("A rule takes COUNT or UNTIL, not both.");
        }
        if days.weeks.is_some() && freq != Freq::Yearly {
            return Err("BYWEEKNO goes with FREQ=YEARLY only.");
        }
        if days.year_days.is_some() && matches!(freq, Freq::Monthly | Freq::Weekly | Freq::Daily) {
            return Err("BYYEARDAY does not go with FREQ=MONTHLY, WEEKLY or DAILY.");
        }
        if days.month_days.is_some() && freq == Freq::Weekly {
            return Err("BYMONTHDAY does not go with FREQ=WEEKLY.");
        }
        if days.has_ordinals() && (freq > Freq::Monthly || days.weeks.is_some()) {
            let text =
                "BYDAY takes numbers with FREQ=MONTHLY and YEARLY only, and not with BYWEEKNO.";
            return Err(text);
        }
        let times = [self.hours, self.minutes, self.seconds];
        let limited = !days.is_open() || times.iter().any(Option::is_some);
        if !self.positions.is_empty() && !limited {
            return Err("BYSETPOS needs another BY part.");
        }
        Ok(())
    }

    /// Whether hours, minutes and seconds admit a unit of the day, for periods shorter than one.
    pub(crate) fn admits(&self, second_of_day: i64) -> bool {
        let has = |set: Option<u64>, at: i64| set.is_none_or(|bits| bits >> at & 1 == 1);
        has(self.hours, second_of_day / 3600)
            && (self.freq < Freq::Minutely || has(self.minutes, second_of_day / 60 % 60))
            && (self.freq < Freq::Secondly || has(self.seconds, second_of_day % 60))
    }

    fn phases(&self) -> Option<Vec<bool>> {
        let unit = self.freq.unit_seconds()?;
        let units = DAY_SECONDS / unit;
        if self.interval >= units {
            return None;
        }
        let mut phases = vec![false; usize::try_from(self.interval).ok()?];
        for at in (0..units).filter(|at| self.admits(at * unit)) {
            phases[usize::try_from(at % self.interval).ok()?] = true;
        }
        Some(phases)
    }
}

fn freq_of(name: &str) -> Result<Freq, &'static str> {
    Ok(match name {
        "YEARLY" => Freq::Yearly,
        "MONTHLY" => Freq::Monthly,
        "WEEKLY" => Freq::Weekly,
        "DAILY" => Freq::Daily,
        "HOURLY" => Freq::Hourly,
        "MINUTELY" => Freq::Minutely,
        "SECONDLY" => Freq::Secondly,
        _ => {
            return Err("FREQ takes YEARLY, MONTHLY, WEEKLY, DAILY, HOURLY, MINUTELY or SECONDLY.");
        }
    })
}

/// A day of the week by its two letters, 0 for Monday.
pub(super) fn weekday(name: &str) -> Option<u8> {
    let day: cairn_types::Weekday = name.parse().ok()?;
    Some(day as u8)
}

/// A whole number without sign, of at most seven digits.
fn number(text: &str, min: i64, max: i64) -> Option<i64> {
    let plain = (1..=7).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = plain.then(|| text.parse().ok()).flatten()?;
    (min..=max).contains(&number).then_some(number)
}

/// A whole number other than 0, with a sign or without.
pub(super) fn signed_number(text: &str, max: i64) -> Option<i64> {
    match text.strip_prefix('-') {
        Some(digits) => number(digits, 1, max).map(|number| -number),
        None => number(text.strip_prefix('+').unwrap_or(text), 1, max),
    }
}

fn bits(value: &str, min: i64, max: i64) -> Option<u64> {
    value
        .split(',')
        .try_fold(0, |bits, one| Some(bits | 1 << number(one, min, max)?))
}

fn signed(value: &str, max: i64) -> Option<Numbers> {
    let mut numbers = Numbers::default();
    for one in value.split(',') {
        numbers.insert(signed_number(one, max)?);
    }
    Some(numbers)
}

fn until(text: &str) -> Option<Until> {
    let (text, utc) = match text.strip_suffix('Z') {
        Some(rest) => (rest, true),
        None => (text, false),
    };
    let (date, time) = text.split_once('T')?;
    if date.len() != 8 || time.len() != 6 || !text.is_ascii() {
        return None;
    }
    let part = |text: &str, min, max| number(text, min, max);
    let year = part(&date[..4], 1, 9999)?;
    let month = u8::try_from(part(&date[4..6], 1, 12)?).ok()?;
    let day = u8::try_from(part(&date[6..], 1, 31)?).ok()?;
    if day > days_in_month(year, month) {
        return None;
    }
    let (hour, minute) = (part(&time[..2], 0, 23)?, part(&time[2..4], 0, 59)?);
    let second = part(&time[4..], 0, 60)?.min(59);
    let wall = day_of(year, month, day) * DAY_SECONDS + hour * 3600 + minute * 60 + second;
    Some(if utc {
        Until::Utc(wall)
    } else {
        Until::Wall(wall)
    })
}
