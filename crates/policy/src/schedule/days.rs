//! Which days a rule admits.

use super::rule::{signed_number, weekday};
use crate::civil::{date_of, days_in_month, week_number, weekday_of, year_start};

/// Whole numbers other than 0, up to 366: from the front, or from the end by a minus.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Numbers {
    front: [u64; 6],
    back: [u64; 6],
}

impl Numbers {
    pub(crate) fn insert(&mut self, number: i64) {
        let side = match number > 0 {
            true => &mut self.front,
            false => &mut self.back,
        };
        let at = number.unsigned_abs() as usize;
        side[at / 64] |= 1 << (at % 64);
    }

    /// Whether they hold the `number`th of `count`, counted from 1.
    fn hold(&self, number: i64, count: i64) -> bool {
        let has = |side: &[u64; 6], at: i64| side[at as usize / 64] >> (at % 64) & 1 == 1;
        has(&self.front, number) || has(&self.back, count - number + 1)
    }
}

/// What limits the days of a rule. A part that is unset admits all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DayFilter {
    pub months: Option<u64>,
    pub weeks: Option<Numbers>,
    pub year_days: Option<Numbers>,
    pub month_days: Option<Numbers>,
    /// Bits of the days of the week, 0 for Monday.
    pub weekdays: Option<u8>,
    /// A day of the week, and which one of the month or the year.
    ordinals: Vec<(u8, i64)>,
    /// Whether they count in the year.
    pub ordinals_in_year: bool,
    pub week_start: u8,
}

impl DayFilter {
    /// Reads days of the week, `MO` or `-1FR`; those of both kinds are admitted.
    pub(crate) fn set_weekdays(&mut self, value: &str) -> Option<()> {
        let mut plain = 0;
        for one in value.split(',') {
            let name = one
                .len()
                .checked_sub(2)
                .filter(|at| one.is_char_boundary(*at))?;
            let (ordinal, name) = one.split_at(name);
            let day = weekday(name)?;
            match ordinal {
                "" => plain |= 1 << day,
                ordinal => self.ordinals.push((day, signed_number(ordinal, 53)?)),
            }
        }
        self.weekdays = Some(plain);
        Some(())
    }

    pub(crate) fn has_ordinals(&self) -> bool {
        !self.ordinals.is_empty()
    }

    /// Whether it admits every day.
    pub(crate) fn is_open(&self) -> bool {
        self.months.is_none() && !self.picks_days()
    }

    /// Whether anything but the month is limited.
    pub(crate) fn picks_days(&self) -> bool {
        self.weeks.is_some()
            || self.year_days.is_some()
            || self.month_days.is_some()
            || self.weekdays.is_some()
    }

    /// Whether days of a month may be admitted.
    pub(crate) fn admits_month(&self, month: u8) -> bool {
        self.months.is_none_or(|months| months >> month & 1 == 1)
    }

    /// Whether a day is admitted.
    pub(crate) fn admits(&self, day: i64) -> bool {
        if let Some(weekdays) = self.weekdays
            && weekdays >> weekday_of(day) & 1 == 0
            && !self.is_ordinal(day)
        {
            return false;
        }
        if self.months.is_none()
            && self.month_days.is_none()
            && self.year_days.is_none()
            && self.weeks.is_none()
        {
            return true;
        }
        let date = date_of(day);
        self.admits_month(date.month)
            && self.month_days.as_ref().is_none_or(|days| {
                let count = days_in_month(date.year, date.month);
                days.hold(i64::from(date.day), i64::from(count))
            })
            && self.year_days.as_ref().is_none_or(|days| {
                let (number, count) = in_year(day);
                days.hold(number, count)
            })
            && self.weeks.as_ref().is_none_or(|weeks| {
                let (number, count) = week_number(day, self.week_start);
                weeks.hold(i64::from(number), i64::from(count))
            })
    }

    fn is_ordinal(&self, day: i64) -> bool {
        let weekday = weekday_of(day);
        if !self.ordinals.iter().any(|(of, _)| *of == weekday) {
            return false;
        }
        let (number, count) = match self.ordinals_in_year {
            true => in_year(day),
            false => {
                let date = date_of(day);
                let count = days_in_month(date.year, date.month);
                (i64::from(date.day), i64::from(count))
            }
        };
        let (front, back) = ((number - 1) / 7 + 1, (count - number) / 7 + 1);
        let is = |ordinal: i64| ordinal == front || ordinal == -back;
        self.ordinals
            .iter()
            .any(|(of, ordinal)| *of == weekday && is(*ordinal))
    }
}

/// A day's number in its year, from 1 on, and how many days the year has.
fn in_year(day: i64) -> (i64, i64) {
    let year = date_of(day).year;
    let start = year_start(year);
    (day - start + 1, year_start(year + 1) - start)
}
