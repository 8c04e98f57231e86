//! Zones of time: from an instant to what the clock on the wall shows there, and back.
//!
//! The wall may show a time twice, when clocks go back: the first of the two is meant. It may
//! leave a time out, when they go forward: the instant of the change is meant. So a later wall
//! time is never an earlier instant. The zones' database is part of the program.

use std::sync::LazyLock;

use cairn_types::Timestamp;
use jiff::tz::{Offset, TimeZone, TimeZoneDatabase};

/// No zone is further from UTC, in seconds.
const MAX_OFFSET: i64 = 26 * 60 * 60;
/// Names of zones are shorter.
const MAX_NAME_CHARS: usize = 64;
/// The largest offset that is written as hours and minutes. Source: the contract's zones.
const MAX_OFFSET_HOURS: i32 = 14;

static DATABASE: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A zone: one of IANA's by its name, or a fixed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

/// A stretch of time, in seconds since 1970 UTC, in which a zone's offset stays the same.
#[derive(Debug, Clone, Copy)]
struct Segment {
    from: i64,
    until: i64,
    offset: i64,
}

impl Zone {
    /// Coordinated universal time.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// A zone by its name: `Europe/Berlin` as IANA calls it, in capitals or not, or a fixed
    /// offset such as `UTC+08:00`.
    pub fn parse(name: &str) -> Option<Self> {
        if name.len() > MAX_NAME_CHARS {
            return None;
        }
        if let Some(offset) = name.strip_prefix("UTC").filter(|rest| !rest.is_empty()) {
            return fixed_offset(offset).map(|offset| Self(TimeZone::fixed(offset)));
        }
        let zone = DATABASE.get(name).ok()?;
        (!zone.is_unknown()).then_some(Self(zone))
    }

    /// The names of all zones of the database.
    pub fn names() -> impl Iterator<Item = String> {
        DATABASE.available().map(|name| name.as_str().to_owned())
    }

    /// The instants of wall times, these in seconds as if the zone were UTC: the first of two, the
    /// next valid one for none.
    pub fn instants_of(
        &self,
        walls: impl IntoIterator<Item = i64>,
    ) -> impl Iterator<Item = Timestamp> {
        let mut wall = Wall::new(self);
        walls
            .into_iter()
            .map(move |at| timestamp_of(wall.instant(at)))
    }

    /// The stretch that an instant is in.
    fn segment(&self, second: i64) -> Segment {
        let at = instant(second);
        let after = instant(second.saturating_add(1));
        let change = |change: jiff::tz::TimeZoneTransition<'_>| change.timestamp().as_second();
        Segment {
            from: self.0.preceding(after).next().map_or(i64::MIN, change),
            until: self.0.following(at).next().map_or(i64::MAX, change),
            offset: i64::from(self.0.to_offset(at).seconds()),
        }
    }
}

/// An instant as near as there is one: the years -9999 to 9999.
fn instant(second: i64) -> jiff::Timestamp {
    let (min, max) = (jiff::Timestamp::MIN, jiff::Timestamp::MAX);
    let second = second.clamp(min.as_second(), max.as_second());
    jiff::Timestamp::from_second(second).expect("it lies between the least and the greatest")
}

/// An offset as the contract writes it: a sign, two digits, a colon, two digits.
fn fixed_offset(text: &str) -> Option<Offset> {
    let sign = match text.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let (hours, minutes) = text[1..].split_once(':')?;
    let number = |digits: &str| {
        let plain = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse::<i32>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    let fits = hours <= MAX_OFFSET_HOURS && minutes <= 59;
    fits.then(|| Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok())?
}

/// Goes between instants and wall times of a zone, both in seconds. It remembers the stretch it
/// was in last, so that going on from there costs next to nothing.
#[derive(Debug, Clone)]
pub(crate) struct Wall<'z> {
    zone: &'z Zone,
    segment: Segment,
    /// From this wall time on, no earlier stretch can be meant.
    resolved: i64,
}

impl<'z> Wall<'z> {
    pub(crate) fn new(zone: &'z Zone) -> Self {
        Self {
            zone,
            segment: zone.segment(0),
            resolved: i64::MAX,
        }
    }

    /// What the wall shows at an instant.
    pub(crate) fn at(&mut self, second: i64) -> i64 {
        if !(self.segment.from..self.segment.until).contains(&second) {
            self.segment = self.zone.segment(second);
            self.resolved = i64::MAX;
        }
        second + self.segment.offset
    }

    /// The instant of a wall time: the first, if there are two; the next, if there is none.
    pub(crate) fn instant(&mut self, wall: i64) -> i64 {
        if wall < self.resolved || wall - self.segment.offset >= self.segment.until {
            // The first stretch that ends after this wall time; those that end earlier than
            // any zone could show it are left out.
            let mut segment = self.zone.segment(wall - MAX_OFFSET);
            while wall - segment.offset >= segment.until {
                segment = self.zone.segment(segment.until);
            }
            self.segment = segment;
            self.resolved = wall;
        }
        (wall - self.segment.offset).max(self.segment.from)
    }
}

/// The second of an instant; parts of it are cut off.
pub(crate) const fn second_of(instant: Timestamp) -> i64 {
    instant.as_micros().div_euclid(1_000_000)
}

/// The instant of a second.
pub(crate) const fn timestamp_of(second: i64) -> Timestamp {
    Timestamp::from_micros(second.saturating_mul(1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(zone: &str, wall: &str) -> String {
        let wall = Timestamp::parse("%Y-%m-%dT%H:%M:%S", wall).unwrap();
        let zone = Zone::parse(zone).unwrap();
        let second = Wall::new(&zone).instant(second_of(wall));
        timestamp_of(second).format("%Y-%m-%dT%H:%M:%SZ")
    }

    #[test]
    fn zones_are_iana_names_and_offsets() {
        for good in [
            "UTC",
            "Europe/Berlin",
            "europe/berlin",
            "UTC+08:00",
            "UTC-03:30",
            "UTC+14:59",
        ] {
            assert!(Zone::parse(good).is_some(), "{good}");
        }
        for bad in [
            "",
            "UTC+8:00",
            "UTC+08",
            "UTC08:00",
            "UTC+0800",
            "UTC+15:00",
            "UTC+08:60",
            "+08:00",
            "UTC+0:800",
            "UTC++1:00",
            "UTC+é:00",
            "Mars/Base",
            "Etc/Unknown",
            "../etc/passwd",
        ] {
            assert!(Zone::parse(bad).is_none(), "{bad}");
        }
        assert!(Zone::parse(&"A".repeat(65)).is_none());
        assert!(
            Zone::names().count() > 400,
            "the database is in the program"
        );
    }

    #[test]
    fn a_repeated_hour_means_its_first_and_a_skipped_one_its_end() {
        for (zone, wall, instant) in [
            ("UTC", "2026-03-29T02:30:00", "2026-03-29T02:30:00Z"),
            ("UTC+08:00", "2026-03-29T02:30:00", "2026-03-28T18:30:00Z"),
            (
                "Europe/Berlin",
                "2026-03-29T01:59:59",
                "2026-03-29T00:59:59Z",
            ),
            (
                "Europe/Berlin",
                "2026-03-29T02:00:00",
                "2026-03-29T01:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-03-29T02:30:00",
                "2026-03-29T01:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-03-29T03:00:00",
                "2026-03-29T01:00:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-03-29T03:00:01",
                "2026-03-29T01:00:01Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-25T02:30:00",
                "2026-10-25T00:30:00Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-25T02:59:59",
                "2026-10-25T00:59:59Z",
            ),
            (
                "Europe/Berlin",
                "2026-10-25T03:00:00",
                "2026-10-25T02:00:00Z",
            ),
            // A whole day that Samoa left out.
            (
                "Pacific/Apia",
                "2011-12-30T12:00:00",
                "2011-12-30T10:00:00Z",
            ),
            (
                "Pacific/Apia",
                "2011-12-31T00:00:00",
                "2011-12-30T10:00:00Z",
            ),
            (
                "Australia/Lord_Howe",
                "2026-10-04T02:10:00",
                "2026-10-03T15:30:00Z",
            ),
            (
                "America/Sao_Paulo",
                "9998-03-29T02:30:00",
                "9998-03-29T05:30:00Z",
            ),
        ] {
            assert_eq!(resolve(zone, wall), instant, "{wall} in {zone}");
        }
    }

    #[test]
    fn the_order_of_questions_changes_no_answer() {
        let zone = Zone::parse("Australia/Lord_Howe").unwrap();
        let start = 1_772_323_200; // 2026-03-01
        let mut walls: Vec<i64> = (0..20_000).map(|half| start + half * 1800 - 1).collect();
        let mut forward = Wall::new(&zone);
        let answers: Vec<i64> = walls.iter().map(|wall| forward.instant(*wall)).collect();
        assert!(answers.is_sorted());
        let mut both_ways = Wall::new(&zone);
        walls.reverse();
        for (wall, answer) in walls.iter().zip(answers.iter().rev()) {
            assert_eq!(both_ways.instant(*wall), *answer);
            assert_eq!(Wall::new(&zone).instant(*wall), *answer);
            let shown = both_ways.at(*answer);
            assert!(shown >= *wall, "the next valid time, or the same");
            assert_eq!(both_ways.instant(*wall), *answer, "after another question");
        }
    }
}
