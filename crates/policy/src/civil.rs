//! The Gregorian calendar in whole numbers: days count from 1970-01-01, wall time in seconds
//! from its midnight, whatever the zone. Searches look at hundreds of thousands of days, so this
//! is arithmetic and nothing else.

/// Seconds of a day.
pub(crate) const DAY_SECONDS: i64 = 24 * 60 * 60;

/// A day by its year, month (1 to 12) and number in the month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Date {
    pub year: i64,
    pub month: u8,
    pub day: u8,
}

/// The date of a day. Years are counted from March in between, so that a leap day comes last.
/// Source: <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>
pub(crate) const fn date_of(day: i64) -> Date {
    let shifted = day + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let number = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    Date {
        year,
        month: month as u8,
        day: number as u8,
    }
}

/// The day of a date; numbers past the month's end run on into the next.
pub(crate) const fn day_of(year: i64, month: u8, day: u8) -> i64 {
    let month = month as i64;
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let march_month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * march_month + 2) / 5 + day as i64 - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

/// The day on which a year begins.
pub(crate) const fn year_start(year: i64) -> i64 {
    day_of(year, 1, 1)
}

/// How many days a month has.
pub(crate) const fn days_in_month(year: i64, month: u8) -> u8 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// The day of the week, 0 for Monday.
pub(crate) const fn weekday_of(day: i64) -> u8 {
    (day + 3).rem_euclid(7) as u8
}

/// The first day of the week that a day is in, where weeks begin on `week_start`.
pub(crate) const fn week_of(day: i64, week_start: u8) -> i64 {
    day - (weekday_of(day) as i64 - week_start as i64).rem_euclid(7)
}

/// The number of a day's week, and how many weeks the year has that the week belongs to: the
/// first is the one with four days or more in the year.
pub(crate) const fn week_number(day: i64, week_start: u8) -> (u8, u8) {
    let middle = week_of(day, week_start) + 3;
    let year = date_of(middle).year;
    let number = (middle - year_start(year)) / 7 + 1;
    // The 28th of December is in the last week of its year, wherever weeks begin.
    let last = week_of(day_of(year, 12, 28), week_start) + 3;
    let count = (last - year_start(year)) / 7 + 1;
    (number as u8, count as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_and_dates_are_each_others_inverse_and_the_calendars() {
        let mut date = jiff::civil::date(-50, 1, 1);
        let first = day_of(-50, 1, 1);
        for day in first..first + 400_000 {
            let ours = date_of(day);
            let theirs = (i64::from(date.year()), date.month(), date.day());
            assert_eq!((ours.year, ours.month as i8, ours.day as i8), theirs);
            assert_eq!(day_of(ours.year, ours.month, ours.day), day);
            let month_days = days_in_month(ours.year, ours.month);
            assert_eq!(month_days as i8, date.days_in_month());
            let weekday = date.weekday().to_monday_zero_offset();
            assert_eq!(weekday_of(day) as i8, weekday);
            let week = date.iso_week_date();
            assert_eq!(week_number(day, 0).0 as i8, week.week());
            assert_eq!(week_number(day, 0).1 as i8, week.weeks_in_year());
            date = date.tomorrow().unwrap();
        }
    }

    #[test]
    fn weeks_may_begin_on_any_day() {
        // 2026-01-01 is a Thursday: with weeks from Friday on, its week is the last of 2025.
        let day = day_of(2026, 1, 1);
        assert_eq!(week_number(day, 0), (1, 53));
        assert_eq!(week_number(day, 4).0, 52);
        for week_start in 0..7 {
            let first = week_of(day, week_start);
            assert_eq!(weekday_of(first), week_start);
            assert!((0..7).contains(&(day - first)));
        }
    }
}
