//! When a policy runs: CBR's pattern, and beyond it the recurrence rules of iCalendar, in a zone.
//!
//! Everything follows from the rules, the instant the policy was made (its *anchor*), and the
//! instant that is asked about: a *slot* is an instant at which a run falls due. The anchor's wall
//! time without its seconds is where the rules begin, which intervals are counted from.
//! Whoever accepts a policy reads its rules here, and so does whoever runs it.

mod days;
mod occurrences;
mod pattern;
mod rule;

use cairn_types::Timestamp;
use uuid::Uuid;

use crate::zone::{Wall, Zone, second_of, timestamp_of};
use occurrences::{Occurrences, WALL_MAX, WALL_MIN};
use rule::{Freq, Rule, Until};

/// The most rules of either kind. Source: the trigger's definition in the vendor's documents.
pub const MAX_RULES: usize = 24;
/// As many missed slots are counted; more are "at least so many".
pub const MAX_MISSED: u64 = 1000;
/// How far back the search for the newest slot looks first; then twice as far, and so on.
const FIRST_LOOK_BACK_SECONDS: i64 = 3600;

/// The part of a trigger that is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScheduleField {
    /// CBR's rules.
    Pattern,
    /// The zone that the hours are meant in.
    Timezone,
    /// The rules of iCalendar.
    RecurrenceRules,
}

impl ScheduleField {
    /// Its name in a trigger's properties.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pattern => "pattern",
            Self::Timezone => "timezone",
            Self::RecurrenceRules => "recurrence_rules",
        }
    }
}

/// A text that is no schedule; the sentence says which rule it breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ScheduleError {
    /// Where.
    pub field: ScheduleField,
    text: &'static str,
}

impl ScheduleError {
    const fn new(field: ScheduleField, text: &'static str) -> Self {
        Self { field, text }
    }
}

/// When a policy runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    zone: Zone,
    rules: Vec<Rule>,
}

/// When a rule that falls at all has begun to.
const LONG_AGO: Timestamp = Timestamp::from_micros(0);

impl Schedule {
    /// Reads a schedule: `pattern` holds CBR's rules, such as
    /// `FREQ=WEEKLY;BYDAY=MO,TU;BYHOUR=14;BYMINUTE=00`, and `rules` those of iCalendar. One of the
    /// two may be empty. The hours of both are meant in `timezone`, which is UTC if unset.
    ///
    /// Errors: a rule or a zone that is none, no rule or too many, runs of the pattern less than
    /// an hour apart.
    pub fn new(
        pattern: &[String],
        timezone: Option<&str>,
        rules: &[String],
    ) -> Result<Self, ScheduleError> {
        use ScheduleField::{Pattern, RecurrenceRules, Timezone};
        if pattern.len() > MAX_RULES || (pattern.is_empty() && rules.is_empty()) {
            return Err(ScheduleError::new(Pattern, "It takes 1 to 24 rules."));
        }
        if rules.len() > MAX_RULES {
            return Err(ScheduleError::new(
                RecurrenceRules,
                "It takes 1 to 24 rules.",
            ));
        }
        let zone = match timezone {
            None => Zone::UTC,
            Some(name) => {
                let text = "It takes a zone as Europe/Berlin, or an offset as UTC+08:00.";
                Zone::parse(name).ok_or(ScheduleError::new(Timezone, text))?
            }
        };
        let mut read = pattern::read(pattern).map_err(|text| ScheduleError::new(Pattern, text))?;
        for text in rules {
            let rule = Rule::parse(text);
            read.push(rule.map_err(|text| ScheduleError::new(RecurrenceRules, text))?);
        }
        Ok(Self { zone, rules: read })
    }

    /// Whether a policy may run by it: at whole minutes, so that no two runs are closer than one.
    ///
    /// Errors: a rule falls on other seconds, or never.
    pub fn check_for_policy(&self) -> Result<(), ScheduleError> {
        let whole = |rule: &Rule| {
            rule.freq < Freq::Secondly && rule.seconds.is_none_or(|seconds| seconds == 1)
        };
        let wrong = |text| Err(ScheduleError::new(ScheduleField::RecurrenceRules, text));
        if !self.rules.iter().all(whole) {
            return wrong(
                "A policy runs at whole minutes: no FREQ=SECONDLY, and no BYSECOND but 0.",
            );
        }
        // A rule that has ended by now fell once.
        if self.next_after(LONG_AGO, LONG_AGO).is_none() {
            return wrong("It names days or times that never come.");
        }
        Ok(())
    }

    /// The slots from `from` on, that instant with them, in order.
    ///
    /// They end where the rules do, or with the first that would lie more than 400 years after
    /// `from`: the calendar repeats by then, so it is none that ever comes.
    pub fn runs(&self, anchor: Timestamp, from: Timestamp) -> Runs<'_> {
        let whole = from.as_micros().rem_euclid(1_000_000) == 0;
        let from = second_of(from) + if whole { 0 } else { 1 };
        Runs::new(self, second_of(anchor), from)
    }

    /// The first slot after an instant.
    pub fn next_after(&self, anchor: Timestamp, after: Timestamp) -> Option<Timestamp> {
        Runs::new(self, second_of(anchor), second_of(after).saturating_add(1)).next()
    }

    /// The newest slot up to `until`, that instant with it, and not before `from`.
    fn newest(&self, anchor: Timestamp, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let mut look_back = FIRST_LOOK_BACK_SECONDS;
        loop {
            let start = until.plus_seconds(-look_back).max(from);
            let slots = self.runs(anchor, start).take_while(|slot| *slot <= until);
            if let Some(newest) = slots.last() {
                return Some(newest);
            }
            if start == from {
                return None;
            }
            look_back = look_back.saturating_mul(2);
        }
    }
}

/// The slots of a schedule.
#[derive(Debug)]
pub struct Runs<'s> {
    wall: Wall<'s>,
    /// Each rule's next wall time, and those after it.
    rules: Vec<(i64, Occurrences<'s>)>,
    from: i64,
    last: Option<i64>,
}

impl<'s> Runs<'s> {
    fn new(schedule: &'s Schedule, anchor: i64, from: i64) -> Self {
        let mut wall = Wall::new(&schedule.zone);
        let start = wall.at(anchor.clamp(WALL_MIN, WALL_MAX));
        let start = start - start.rem_euclid(60);
        let from = from.clamp(WALL_MIN, WALL_MAX + 1);
        // What the wall shows up to the second before has all been by then.
        let first = wall.at(from - 1) + 1;
        let mut rules = Vec::with_capacity(schedule.rules.len());
        for rule in &schedule.rules {
            let until = match rule.until {
                None => i64::MAX,
                Some(Until::Wall(until)) => until,
                Some(Until::Utc(until)) => last_wall(&mut wall, until),
            };
            let mut occurrences = Occurrences::new(rule, start, first, until);
            if let Some(next) = occurrences.next() {
                rules.push((next, occurrences));
            }
        }
        let last = None;
        Self {
            wall,
            rules,
            from,
            last,
        }
    }
}

/// The last wall time whose instant is not after this one.
fn last_wall(wall: &mut Wall<'_>, until: i64) -> i64 {
    // A later wall time is never an earlier instant, and no zone is two days off.
    let (mut low, mut high) = (
        until - 2 * crate::civil::DAY_SECONDS,
        until + 2 * crate::civil::DAY_SECONDS,
    );
    while low < high {
        let middle = low + (high - low + 1) / 2;
        match wall.instant(middle) <= until {
            true => low = middle,
            false => high = middle - 1,
        }
    }
    low
}

impl Iterator for Runs<'_> {
    type Item = Timestamp;

    fn next(&mut self) -> Option<Timestamp> {
        loop {
            let next = self.rules.iter().map(|(next, _)| *next).min()?;
            self.rules.retain_mut(|(wall, occurrences)| {
                if *wall > next {
                    return true;
                }
                let following = occurrences.next();
                *wall = following.unwrap_or(*wall);
                following.is_some()
            });
            // A time that was skipped is the same instant as the one after, and one run.
            let slot = self.wall.instant(next);
            if slot >= self.from && self.last != Some(slot) {
                self.last = Some(slot);
                return Some(timestamp_of(slot));
            }
        }
    }
}

/// When the run of a slot starts: within the window behind the slot, at a second that follows
/// from the seed and the slot alone, so that the policies of one slot do not start all at once.
pub fn start_of(slot: Timestamp, window_minutes: Option<u32>, seed: Uuid) -> Timestamp {
    let seconds = u64::from(window_minutes.unwrap_or(0)) * 60;
    if seconds == 0 {
        return slot;
    }
    let (high, low) = seed.as_u64_pair();
    let mixed = mix(mix(mix(high) ^ low) ^ slot.as_micros().cast_unsigned());
    let late = mixed % seconds;
    slot.plus_seconds(late.cast_signed())
}

/// Spreads the bits of a number over all of it.
/// Source: the finaliser of SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
const fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A run that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// The newest slot that has come.
    pub slot: Timestamp,
    /// How many slots before it were missed and are not made up for; counted up to [`MAX_MISSED`].
    pub missed: u64,
}

/// The run that is due at `now`, if the slots up to `last_slot_done` have had theirs: that of the
/// newest slot. With none done yet, slots count from the anchor on.
pub fn due(
    schedule: &Schedule,
    anchor: Timestamp,
    last_slot_done: Option<Timestamp>,
    now: Timestamp,
) -> Option<Due> {
    let from = match last_slot_done {
        None => anchor,
        Some(last) => Timestamp::from_micros(last.as_micros() + 1).max(anchor),
    };
    let slot = schedule.newest(anchor, from, now)?;
    let before = schedule
        .runs(anchor, from)
        .take_while(|earlier| *earlier < slot);
    let missed = before.take(MAX_MISSED as usize).count() as u64;
    Some(Due { slot, missed })
}

#[cfg(test)]
mod tests;
