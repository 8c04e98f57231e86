//! The few rules that CBR takes: days of the week or every so many days, at minutes of the day.
//! Source: the trigger's definition in the vendor's documents.

use std::collections::{BTreeMap, BTreeSet};

use cairn_types::Weekday;

use super::rule::{Freq, Rule};

/// The longest text of a rule; one with every day, hour and minute is shorter.
const MAX_RULE_CHARS: usize = 512;
/// The longest interval between days. Source: what the vendor's console offers.
const MAX_INTERVAL_DAYS: u32 = 30;
/// Runs are at least so far apart.
const MIN_GAP_MINUTES: u32 = 60;
const DAY_MINUTES: u32 = 24 * 60;

/// The days of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Days {
    /// On these days of every week.
    Weekly(BTreeSet<Weekday>),
    /// Every so many days, counted from the day on which the policy was made.
    Every(u32),
}

impl Days {
    fn may_be(&self, day: Weekday) -> bool {
        match self {
            Self::Weekly(days) => days.contains(&day),
            Self::Every(_) => true,
        }
    }
}

/// At which minutes of which days; days that several texts name are one rule.
type Pattern = BTreeMap<Days, BTreeSet<u32>>;

/// Reads the texts of a pattern.
///
/// Errors: a key or value that CBR does not take, runs less than an hour apart.
pub(super) fn read(texts: &[String]) -> Result<Vec<Rule>, &'static str> {
    let mut pattern = Pattern::new();
    for text in texts {
        let (days, minutes) = parse(text)?;
        pattern.entry(days).or_default().extend(minutes);
    }
    match is_spaced(&pattern) {
        true => Ok(pattern.into_iter().map(rule).collect()),
        false => Err("Two runs must be at least one hour apart."),
    }
}

fn rule((days, minutes): (Days, BTreeSet<u32>)) -> Rule {
    let mut rule = match days {
        Days::Every(interval) => Rule::new(Freq::Daily, i64::from(interval)),
        Days::Weekly(days) => {
            let mut rule = Rule::new(Freq::Weekly, 1);
            rule.days.weekdays = Some(days.iter().fold(0, |bits, day| bits | 1 << *day as u8));
            rule
        }
    };
    rule.times = Some(
        minutes
            .iter()
            .map(|minute| i64::from(*minute) * 60)
            .collect(),
    );
    rule
}

/// Whether runs are far enough apart in every week. A rule that counts days
/// can fall on any day of the week, so it is taken to fall on each.
fn is_spaced(pattern: &Pattern) -> bool {
    let mut week = BTreeSet::new();
    for (number, day) in (0..).zip(Weekday::ALL) {
        let start = number * DAY_MINUTES;
        let of_day = pattern.iter().filter(|(days, _)| days.may_be(*day));
        week.extend(of_day.flat_map(|(_, minutes)| minutes.iter().map(move |at| start + at)));
    }
    let first_again = week.first().map(|minute| minute + 7 * DAY_MINUTES);
    let next = week.iter().copied().skip(1).chain(first_again);
    week.iter()
        .zip(next)
        .all(|(one, next)| next - one >= MIN_GAP_MINUTES)
}

fn parse(text: &str) -> Result<(Days, BTreeSet<u32>), &'static str> {
    if text.len() > MAX_RULE_CHARS {
        return Err("A rule is too long.");
    }
    let parts = Parts::read(text)?;
    let days = match (parts.freq, parts.days, parts.interval) {
        (Some("WEEKLY"), Some(days), None | Some(1)) => Days::Weekly(days),
        (Some("DAILY"), None, interval) => Days::Every(interval.unwrap_or(1)),
        (Some("WEEKLY"), None, _) => return Err("A weekly rule needs BYDAY."),
        (Some("WEEKLY"), Some(_), _) => return Err("A weekly rule takes no INTERVAL."),
        (Some("DAILY"), Some(_), _) => return Err("A daily rule takes no BYDAY."),
        _ => return Err("FREQ must be WEEKLY or DAILY."),
    };
    let (Some(hours), Some(minutes)) = (parts.hours, parts.minutes) else {
        return Err("A rule needs BYHOUR and BYMINUTE.");
    };
    let minutes = hours
        .iter()
        .flat_map(|hour| minutes.iter().map(move |minute| hour * 60 + minute))
        .collect();
    Ok((days, minutes))
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
    fn read(text: &'a str) -> Result<Self, &'static str> {
        let mut parts = Self::default();
        for piece in text.split(';') {
            let (key, value) = piece
                .split_once('=')
                .ok_or("A rule is made of KEY=VALUE with semicolons between.")?;
            let first = match key {
                "FREQ" => parts.freq.replace(value).is_none(),
                "BYDAY" => parts.days.replace(weekdays(value)?).is_none(),
                "INTERVAL" => parts.interval.replace(interval(value)?).is_none(),
                "BYHOUR" => parts.hours.replace(numbers(value, 23)?).is_none(),
                "BYMINUTE" => parts.minutes.replace(numbers(value, 59)?).is_none(),
                _ => return Err("A rule takes FREQ, BYDAY, BYHOUR, BYMINUTE and INTERVAL only."),
            };
            if !first {
                return Err("A rule has a key twice.");
            }
        }
        Ok(parts)
    }
}

fn weekdays(value: &str) -> Result<BTreeSet<Weekday>, &'static str> {
    let days: Result<_, _> = value.split(',').map(str::parse).collect();
    days.map_err(|_| "BYDAY takes MO, TU, WE, TH, FR, SA and SU with commas between.")
}

fn interval(value: &str) -> Result<u32, &'static str> {
    let days = digits(value).filter(|days| (1..=MAX_INTERVAL_DAYS).contains(days));
    days.ok_or("INTERVAL takes 1 to 30 days.")
}

/// Whole numbers up to `max` with commas between.
fn numbers(value: &str, max: u32) -> Result<BTreeSet<u32>, &'static str> {
    let numbers: Option<_> = value
        .split(',')
        .map(|number| digits(number).filter(|number| *number <= max))
        .collect();
    numbers.ok_or("BYHOUR takes 0 to 23 and BYMINUTE 0 to 59, with commas between.")
}

/// A number of one or two digits; no sign, no space.
fn digits(text: &str) -> Option<u32> {
    let plain = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    plain.then(|| text.parse().expect("two digits are a number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_all(rules: &[&str]) -> Result<Pattern, &'static str> {
        let texts: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        read(&texts)?;
        Ok(texts.iter().map(|text| parse(text).unwrap()).collect())
    }

    #[test]
    fn the_rules_that_clients_write_are_read() {
        let weekly = parse_all(&["FREQ=WEEKLY;BYDAY=MO,SU;BYHOUR=14;BYMINUTE=00"]).unwrap();
        let days = Days::Weekly([Weekday::Monday, Weekday::Sunday].into());
        assert_eq!(weekly, [(days, [14 * 60].into())].into());
        let daily = parse_all(&["FREQ=DAILY;INTERVAL=5;BYHOUR=06,6,18;BYMINUTE=30"]).unwrap();
        let minutes = [6 * 60 + 30, 18 * 60 + 30].into();
        assert_eq!(daily, [(Days::Every(5), minutes)].into());
        let plain = parse_all(&["BYMINUTE=5;FREQ=DAILY;BYHOUR=0"]).unwrap();
        assert_eq!(plain, [(Days::Every(1), [5].into())].into());
        assert!(parse_all(&["FREQ=WEEKLY;INTERVAL=1;BYDAY=MO;BYHOUR=1;BYMINUTE=1"]).is_ok());
    }

    #[test]
    fn texts_about_the_same_days_become_one_rule() {
        let every_hour: Vec<String> = (0..24)
            .map(|hour| format!("FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYHOUR={hour};BYMINUTE=00"))
            .collect();
        let rules = read(&every_hour).unwrap();
        assert_eq!(rules.len(), 1);
        assert_eq!(rules[0].times.as_ref().unwrap().len(), 24);
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
            assert!(parse_all(&[bad]).is_err(), "{bad}");
        }
        let long = format!("FREQ=DAILY;BYHOUR={};BYMINUTE=0", "1,".repeat(400));
        assert!(parse_all(&[&long]).is_err());
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
            assert_eq!(parse_all(&[&one, &two]).is_ok(), apart, "{one} {two}");
        }
        assert!(parse_all(&["FREQ=DAILY;BYHOUR=1;BYMINUTE=0,30"]).is_err());
    }
}
