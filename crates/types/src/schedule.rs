//! When a policy runs: the few recurrence rules of iCalendar that CBR takes,
//! all in UTC, read and checked in one place. Whoever accepts a policy parses
//! its rules here, and so does whoever runs it; the texts themselves are kept as they came.

use std::collections::BTreeSet;

use crate::named::named;

/// The most rules of a schedule. Source: the trigger's definition in the vendor's documents.
pub const MAX_RULES: usize = 24;
/// The longest text of a rule; one with every day, hour and minute is shorter.
const MAX_RULE_CHARS: usize = 512;
/// The longest interval between days. Source: what the vendor's console offers.
const MAX_INTERVAL_DAYS: u32 = 30;
/// Runs are at least so far apart.
const MIN_GAP_MINUTES: u32 = 60;
const DAY_MINUTES: u32 = 24 * 60;

named! {
    /// A day of the week.
    pub enum Weekday: "weekday" {
        /// Monday.
        Monday = "MO",
        /// Tuesday.
        Tuesday = "TU",
        /// Wednesday.
        Wednesday = "WE",
        /// Thursday.
        Thursday = "TH",
        /// Friday.
        Friday = "FR",
        /// Saturday.
        Saturday = "SA",
        /// Sunday.
        Sunday = "SU",
    }
}

/// A text that is no schedule; the sentence says which rule it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(&'static str);

/// When a policy runs, in UTC. Two runs are at least an hour apart, so a day has at most 24.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    rules: Vec<Rule>,
}

/// One rule of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// On which days.
    pub days: Days,
    /// At which minutes of the day, counted from midnight UTC.
    pub minutes: BTreeSet<u32>,
}

/// The days of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Days {
    /// On these days of every week.
    Weekly(BTreeSet<Weekday>),
    /// Every so many days, counted from the day on which the policy was made.
    Every(u32),
}

impl Schedule {
    /// Reads the rules of a schedule, such as `FREQ=WEEKLY;BYDAY=MO,TU;BYHOUR=14;BYMINUTE=00`
    /// and `FREQ=DAILY;INTERVAL=2;BYHOUR=6,18;BYMINUTE=30`.
    ///
    /// Errors: no rule or too many, a key or value that CBR does not take, runs too close together.
    pub fn parse<T: AsRef<str>>(rules: &[T]) -> Result<Self, ScheduleError> {
        if !(1..=MAX_RULES).contains(&rules.len()) {
            return Err(ScheduleError("It takes 1 to 24 rules."));
        }
        let rules: Result<Vec<_>, _> = rules
            .iter()
            .map(|rule| Rule::parse(rule.as_ref()))
            .collect();
        let schedule = Self { rules: rules? };
        match schedule.is_spaced() {
            true => Ok(schedule),
            false => Err(ScheduleError("Two runs must be at least one hour apart.")),
        }
    }

    /// The rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether runs are far enough apart in every week. A rule that counts days
    /// can fall on any day of the week, so it is taken to fall on each.
    fn is_spaced(&self) -> bool {
        let mut week = BTreeSet::new();
        for (number, day) in Weekday::ALL.iter().enumerate() {
            let start = u32::try_from(number).expect("a week has seven days") * DAY_MINUTES;
            let rules = self.rules.iter().filter(|rule| rule.may_fall_on(*day));
            week.extend(
                rules.flat_map(|rule| rule.minutes.iter().map(move |minute| start + minute)),
            );
        }
        let first_again = week.first().map(|minute| minute + 7 * DAY_MINUTES);
        let next = week.iter().copied().skip(1).chain(first_again);
        week.iter()
            .zip(next)
            .all(|(one, next)| next - one >= MIN_GAP_MINUTES)
    }
}

impl Rule {
    fn may_fall_on(&self, day: Weekday) -> bool {
        match &self.days {
            Days::Weekly(days) => days.contains(&day),
            Days::Every(_) => true,
        }
    }

    fn parse(text: &str) -> Result<Self, ScheduleError> {
        if text.len() > MAX_RULE_CHARS {
            return Err(ScheduleError("A rule is too long."));
        }
        let parts = Parts::read(text)?;
        let days = match (parts.freq, parts.days, parts.interval) {
            (Some("WEEKLY"), Some(days), None | Some(1)) => Days::Weekly(days),
            (Some("DAILY"), None, interval) => Days::Every(interval.unwrap_or(1)),
            (Some("WEEKLY"), None, _) => return Err(ScheduleError("A weekly rule needs BYDAY.")),
            (Some("WEEKLY"), Some(_), _) => {
                return Err(ScheduleError("A weekly rule takes no INTERVAL."));
            }
            (Some("DAILY"), Some(_), _) => {
                return Err(ScheduleError("A daily rule takes no BYDAY."));
            }
            _ => return Err(ScheduleError("FREQ must be WEEKLY or DAILY.")),
        };
        let (Some(hours), Some(minutes)) = (parts.hours, parts.minutes) else {
            return Err(ScheduleError("A rule needs BYHOUR and BYMINUTE."));
        };
        let minutes = hours
            .iter()
            .flat_map(|hour| minutes.iter().map(move |minute| hour * 60 + minute))
            .collect();
        Ok(Self { days, minutes })
    }
}

/// The keys of a rule, each at most once.
#[derive(Default)]
struct Parts<'a> {
    freq: Option<&'a str>,
    days: Option<BTreeSet<Weekday>>,
    interval: Option<u32>,
    hours: Option<BTreeSet<u32>>,
    minutes: Option<BTreeSet<u32>>,
}

impl<'a> Parts<'a> {
    fn read(text: &'a str) -> Result<Self, ScheduleError> {
        let mut parts = Self::default();
        for piece in text.split(';') {
            let (key, value) = piece.split_once('=').ok_or(ScheduleError(
                "A rule is made of KEY=VALUE with semicolons between.",
            ))?;
            let first = match key {
                "FREQ" => parts.freq.replace(value).is_none(),
                "BYDAY" => parts.days.replace(weekdays(value)?).is_none(),
                "INTERVAL" => parts.interval.replace(interval(value)?).is_none(),
                "BYHOUR" => parts.hours.replace(numbers(value, 23)?).is_none(),
                "BYMINUTE" => parts.minutes.replace(numbers(value, 59)?).is_none(),
                _ => {
                    let keys = "A rule takes FREQ, BYDAY, BYHOUR, BYMINUTE and INTERVAL only.";
                    return Err(ScheduleError(keys));
                }
            };
            if !first {
                return Err(ScheduleError("A rule has a key twice."));
            }
        }
        Ok(parts)
    }
}

fn weekdays(value: &str) -> Result<BTreeSet<Weekday>, ScheduleError> {
    let days: Result<_, _> = value.split(',').map(str::parse).collect();
    days.map_err(|_| {
        ScheduleError("BYDAY takes MO, TU, WE, TH, FR, SA and SU with commas between.")
    })
}

fn interval(value: &str) -> Result<u32, ScheduleError> {
    let days = digits(value).filter(|days| (1..=MAX_INTERVAL_DAYS).contains(days));
    days.ok_or(ScheduleError("INTERVAL takes 1 to 30 days."))
}

/// Whole numbers up to `max` with commas between.
fn numbers(value: &str, max: u32) -> Result<BTreeSet<u32>, ScheduleError> {
    let numbers: Option<_> = value
        .split(',')
        .map(|number| digits(number).filter(|number| *number <= max))
        .collect();
    numbers.ok_or(ScheduleError(
        "BYHOUR takes 0 to 23 and BYMINUTE 0 to 59, with commas between.",
    ))
}

/// A number of one or two digits; no sign, no space.
fn digits(text: &str) -> Option<u32> {
    let plain = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().expect("two digits are a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(rules: &[&str]) -> Result<Schedule, ScheduleError> {
        Schedule::parse(rules)
    }

    #[test]
    fn the_rules_that_clients_write_are_read() {
        let weekly = parse(&["FREQ=WEEKLY;BYDAY=MO,SU;BYHOUR=14;BYMINUTE=00"]).unwrap();
        let days = [Weekday::Monday, Weekday::Sunday].into();
        let rule = Rule {
            days: Days::Weekly(days),
            minutes: [14 * 60].into(),
        };
        assert_eq!(weekly.rules(), [rule]);
        let daily = parse(&["FREQ=DAILY;INTERVAL=5;BYHOUR=06,6,18;BYMINUTE=30"]).unwrap();
        assert_eq!(daily.rules()[0].days, Days::Every(5));
        assert_eq!(daily.rules()[0].minutes, [6 * 60 + 30, 18 * 60 + 30].into());
        let plain = parse(&["BYMINUTE=5;FREQ=DAILY;BYHOUR=0"]).unwrap();
        assert_eq!(plain.rules()[0].days, Days::Every(1));
        let every_hour: Vec<String> = (0..24)
            .map(|hour| format!("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR={hour};BYMINUTE=00"))
            .collect();
        assert_eq!(Schedule::parse(&every_hour).unwrap().rules().len(), 24);
        assert!(parse(&["FREQ=WEEKLY;INTERVAL=1;BYDAY=MO;BYHOUR=1;BYMINUTE=1"]).is_ok());
    }

    #[test]
    fn what_is_no_rule_is_refused() {
        for bad in [
            "",
            ";",
            "daily",
            "FREQ=DAILY",
            "FREQ=DAILY;BYHOUR=1",
            "FREQ=DAILY;BYMINUTE=1",
            "FREQ=MONTHLY;BYHOUR=1;BYMINUTE=0",
            "FREQ=WEEKLY;BYHOUR=1;BYMINUTE=0",
            "FREQ=WEEKLY;BYDAY=;BYHOUR=1;BYMINUTE=0",
            "FREQ=WEEKLY;BYDAY=1MO;BYHOUR=1;BYMINUTE=0",
            "FREQ=WEEKLY;BYDAY=MO;INTERVAL=2;BYHOUR=1;BYMINUTE=0",
            "FREQ=DAILY;BYDAY=MO;BYHOUR=1;BYMINUTE=0",
            "FREQ=DAILY;INTERVAL=0;BYHOUR=1;BYMINUTE=0",
            "FREQ=DAILY;INTERVAL=31;BYHOUR=1;BYMINUTE=0",
            "FREQ=DAILY;BYHOUR=24;BYMINUTE=0",
            "FREQ=DAILY;BYHOUR=1;BYMINUTE=60",
            "FREQ=DAILY;BYHOUR=-1;BYMINUTE=0",
            "FREQ=DAILY;BYHOUR=+1;BYMINUTE=0",
            "FREQ=DAILY;BYHOUR=001;BYMINUTE=0",
            "FREQ=DAILY;BYHOUR= 1;BYMINUTE=0",
            "FREQ=DAILY;BYHOUR=1;BYMINUTE=0;",
            "FREQ=DAILY;BYHOUR=1;BYHOUR=2;BYMINUTE=0",
            "FREQ=DAILY;COUNT=2;BYHOUR=1;BYMINUTE=0",
            "RRULE:FREQ=DAILY;BYHOUR=1;BYMINUTE=0",
        ] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
        assert!(parse(&[]).is_err());
        assert!(parse(&["FREQ=DAILY;BYHOUR=1;BYMINUTE=0"; 25]).is_err());
        let long = format!("FREQ=DAILY;BYHOUR={};BYMINUTE=0", "1,".repeat(400));
        assert!(parse(&[&long]).is_err());
    }

    #[test]
    fn runs_are_an_hour_apart_on_every_day_and_over_midnight() {
        let at = |days: &str, hour: u32, minute: u32| {
            format!("FREQ=WEEKLY;BYDAY={days};BYHOUR={hour};BYMINUTE={minute}")
        };
        for (one, two, apart) in [
            (at("MO", 8, 0), at("MO", 9, 0), true),
            (at("MO", 8, 0), at("MO", 8, 59), false),
            (at("MO", 8, 0), at("TU", 8, 30), true),
            (at("MO", 23, 30), at("TU", 0, 29), false),
            (at("MO", 23, 30), at("TU", 0, 30), true),
            (at("SU", 23, 30), at("MO", 0, 0), false),
            (
                at("MO", 8, 0),
                "FREQ=DAILY;INTERVAL=3;BYHOUR=8;BYMINUTE=30".to_owned(),
                false,
            ),
            // The same instant twice is one run.
            (at("MO", 8, 0), at("MO,TU", 8, 0), true),
        ] {
            assert_eq!(Schedule::parse(&[&one, &two]).is_ok(), apart, "{one} {two}");
        }
        assert!(parse(&["FREQ=DAILY;BYHOUR=1;BYMINUTE=0,30"]).is_err());
    }
}
