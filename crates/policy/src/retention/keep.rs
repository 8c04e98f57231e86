//! Which backups stay, and why.
//!
//! The *windows* of the rules that count hold backups in their places: the newest so many, and the
//! newest of each of the newest so many days, weeks, months and years that have one. A backup is
//! added to them in order of time and each window gives up at most one place for it, so that ten
//! years of hourly backups take milliseconds. [`Keeper`] adds backups as they are made and says
//! which go; [`decide`] adds those that there are and says of each what keeps it. Both go
//! through the same windows and the same judgement, and agree: what a window gives up it never
//! takes back, so that removing it changes nothing for the rest.
//!
//! A stamp and the windows go together so:
//! - Where the rules in force stamp the backup too, it stays while either holds it.
//! - Where they count only, the stamp is of rules that were in force before. Both apply, and it
//!   goes with whichever lets it go first.
//!   Source: the user guide on a change from a period to a number.
//! - Where they do not count, the stamp alone decides, and what has none is left alone.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use cairn_types::Timestamp;

use super::{Reason, Retention, Stamps};
use crate::civil::{DAY_SECONDS, date_of, week_of};
use crate::zone::{Wall, second_of};

/// How many failed scheduled backups are kept.
/// Source: the user guide on policies.
const FAILED_KEPT: usize = 10;
/// How long they are kept.
pub const FAILED_KEPT_SECONDS: i64 = 30 * DAY_SECONDS;

/// What is known of a backup that a policy made. Backups that somebody made by hand are none of a
/// policy's business, and are not to be among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// When it was made.
    pub created_at: Timestamp,
    /// Its stamp, as it was given when the backup was made.
    pub expired_at: Option<Timestamp>,
    /// It must not go whatever the rules say, and takes no place: an image of it is registered.
    pub held: bool,
    /// In a locked vault: the rules that it was made under, which have to let it go as well.
    pub made_under: Option<Retention>,
}

impl Fact {
    /// A backup that is neither held nor in a locked vault.
    pub const fn new(created_at: Timestamp, expired_at: Option<Timestamp>) -> Self {
        Self {
            created_at,
            expired_at,
            held: false,
            made_under: None,
        }
    }
}

/// What becomes of a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// What keeps it; it goes if nothing does.
    pub kept_by: Vec<Reason>,
    /// From when on the clock keeps it no longer, if that is known: none if it waits for a
    /// later backup to take its place, or is kept for ever.
    pub until: Option<Timestamp>,
}

impl Decision {
    /// Whether it stays.
    pub fn is_kept(&self) -> bool {
        !self.kept_by.is_empty()
    }

    /// Keeps it as long as the rules do that it was made under in a locked vault.
    fn lock(&mut self, under: &Self) {
        self.until = match self.is_kept() {
            true => self
                .until
                .zip(under.until)
                .map(|(one, other)| one.max(other)),
            false => {
                self.kept_by.push(Reason::Locked);
                under.until
            }
        };
    }
}

/// A backup in the windows.
#[derive(Debug, Clone, Copy)]
struct Entry {
    created_at: Timestamp,
    stamp: Option<Timestamp>,
    held: bool,
    /// Whether the rules in force would stamp it.
    stamps: Stamps,
    /// Bits of the windows that hold it.
    windows: u8,
}

impl Entry {
    fn is_stamped_by_rules(&self) -> bool {
        self.stamps.latest().is_some()
    }
}

/// Judges a backup under rules at an instant.
fn judge(rules: &Retention, entry: &Entry, now: Timestamp) -> Decision {
    if entry.held {
        return Decision {
            kept_by: vec![Reason::Held],
            until: None,
        };
    }
    if !is_kept(rules, entry, now) {
        return Decision {
            kept_by: Vec::new(),
            until: entry.stamp.filter(|stamp| *stamp <= now),
        };
    }
    let by_window = WINDOWS.iter().enumerate();
    let by_window = by_window.filter(|(at, _)| entry.windows >> at & 1 == 1);
    let mut kept_by: Vec<Reason> = by_window.map(|(_, reason)| *reason).collect();
    let ahead = entry.stamp.filter(|stamp| *stamp > now);
    let both_apply = rules.counts() && !entry.is_stamped_by_rules();
    if ahead.is_some() && !both_apply {
        match ahead == entry.stamps.latest() {
            true => kept_by.extend(entry.stamps.ahead(now)),
            false => kept_by.push(Reason::ExpiredAt),
        }
    }
    if kept_by.is_empty() {
        kept_by.push(Reason::Forever);
    }
    let until = ahead.filter(|_| entry.windows == 0 || both_apply);
    Decision { kept_by, until }
}

fn is_kept(rules: &Retention, entry: &Entry, now: Timestamp) -> bool {
    let in_window = entry.windows != 0;
    let ahead = entry.stamp.map(|stamp| stamp > now);
    match (ahead, rules.counts()) {
        (None, true) => in_window,
        (None, false) => true,
        (Some(ahead), false) => ahead,
        (Some(ahead), true) if entry.is_stamped_by_rules() => ahead || in_window,
        (Some(ahead), true) => ahead && in_window,
    }
}

/// Whether the clock has let a backup go by which the windows would still count.
fn is_past(rules: &Retention, entry: &Entry, now: Timestamp) -> bool {
    let past = entry.stamp.is_some_and(|stamp| stamp <= now);
    past && !(rules.counts() && entry.is_stamped_by_rules())
}

/// The rules that count, in the order of [`Retention`]'s counts.
const WINDOWS: [Reason; 5] = [
    Reason::MaxBackups,
    Reason::DayBackups,
    Reason::WeekBackups,
    Reason::MonthBackups,
    Reason::YearBackups,
];

/// The places of the rules that count: for each rule its periods in order, and the newest backup
/// of each. Where backups are counted by themselves, each is a period of its own.
#[derive(Debug, Clone)]
struct Windows<'r> {
    rules: &'r Retention,
    wall: Wall<'r>,
    places: [VecDeque<(i64, usize)>; 5],
    pushed: i64,
}

impl<'r> Windows<'r> {
    fn new(rules: &'r Retention) -> Self {
        Self {
            rules,
            wall: Wall::new(&rules.zone),
            places: Default::default(),
            pushed: 0,
        }
    }

    /// Gives an entry, which is the newest so far, its places, and takes them from those that it
    /// displaces; these are put to `lost`.
    fn push(&mut self, entries: &mut [Entry], at: usize, lost: &mut Vec<usize>) {
        let shown = self.wall.at(second_of(entries[at].created_at));
        let day = shown.div_euclid(DAY_SECONDS);
        let date = date_of(day);
        let month = date.year * 12 + i64::from(date.month);
        self.pushed += 1;
        let periods = [self.pushed, day, week_of(day, 0), month, date.year];
        for (window, period) in periods.into_iter().enumerate() {
            let count = self.rules.counts[window] as usize;
            if count == 0 {
                continue;
            }
            let places = &mut self.places[window];
            // Where clocks go back over midnight, a day may come again after the next has begun.
            let newer = places
                .iter()
                .rev()
                .take_while(|(of, _)| *of > period)
                .count();
            let place = places.len() - newer;
            entries[at].windows |= 1 << window;
            let displaced = match place.checked_sub(1).map(|place| &mut places[place]) {
                Some((of, holder)) if *of == period => Some(std::mem::replace(holder, at)),
                _ => {
                    places.insert(place, (period, at));
                    let over = places.len() > count;
                    over.then(|| places.pop_front().expect("it is over the count").1)
                }
            };
            if let Some(displaced) = displaced {
                entries[displaced].windows &= !(1 << window);
                lost.push(displaced);
            }
        }
    }
}

/// Keeps the backups of one resource by its rules, as they are made.
#[derive(Debug, Clone)]
pub struct Keeper<'r> {
    rules: &'r Retention,
    windows: Windows<'r>,
    entries: Vec<Entry>,
    gone: Vec<bool>,
    /// Those that only a stamp keeps, by it.
    stamped: BinaryHeap<Reverse<(Timestamp, usize)>>,
    lost: Vec<usize>,
}

impl<'r> Keeper<'r> {
    /// Nothing is kept yet.
    pub fn new(rules: &'r Retention) -> Self {
        Self {
            rules,
            windows: Windows::new(rules),
            entries: Vec::new(),
            gone: Vec::new(),
            stamped: BinaryHeap::new(),
            lost: Vec::new(),
        }
    }

    /// Adds a backup that was made at an instant, no earlier than those before, and stamped by
    /// the rules. `drop` is told of each backup that goes by then, by its number in the order of
    /// adding, and when it went.
    pub fn add(&mut self, created_at: Timestamp, mut drop: impl FnMut(usize, Timestamp)) {
        self.expire(created_at, &mut drop);
        let at = self.entries.len();
        let stamps = self.rules.stamps(&mut self.windows.wall, created_at);
        self.entries.push(Entry {
            created_at,
            stamp: stamps.latest(),
            held: false,
            stamps,
            windows: 0,
        });
        self.gone.push(false);
        self.lost.push(at);
        self.windows.push(&mut self.entries, at, &mut self.lost);
        while let Some(lost) = self.lost.pop() {
            let entry = &self.entries[lost];
            if entry.windows != 0 || self.gone[lost] {
                continue;
            }
            match entry.stamp {
                Some(stamp) if stamp > created_at => self.stamped.push(Reverse((stamp, lost))),
                None if !self.rules.counts() => {}
                _ => {
                    self.gone[lost] = true;
                    drop(lost, created_at);
                }
            }
        }
    }

    /// Lets the backups go whose time has come by `now`, and which no place holds.
    pub fn expire(&mut self, now: Timestamp, mut drop: impl FnMut(usize, Timestamp)) {
        while let Some(Reverse((stamp, at))) = self.stamped.peek().copied()
            && stamp <= now
        {
            self.stamped.pop();
            if !std::mem::replace(&mut self.gone[at], true) {
                drop(at, stamp);
            }
        }
    }

    /// What becomes of a backup, by its number in the order of adding; nothing keeps one that
    /// has gone.
    pub fn decision(&self, number: usize, now: Timestamp) -> Decision {
        judge(self.rules, &self.entries[number], now)
    }
}

/// Says of each of a resource's scheduled backups what becomes of it at `now`, in their order.
///
/// Of backups that count, this is meant to be asked when another one has been made: until then a
/// change of the rules takes effect on none. What the clock has let go may go at any time.
pub fn decide(rules: &Retention, facts: &[Fact], now: Timestamp) -> Vec<Decision> {
    let mut order: Vec<usize> = (0..facts.len()).collect();
    order.sort_by_key(|at| facts[*at].created_at);
    let mut decisions = decide_by(rules, facts, &order, now);
    let mut locked_by: Vec<&Retention> = Vec::new();
    for made_under in facts.iter().filter_map(|fact| fact.made_under.as_ref()) {
        if made_under != rules && !locked_by.contains(&made_under) {
            locked_by.push(made_under);
        }
    }
    for made_under in locked_by {
        let under = decide_by(made_under, facts, &order, now);
        for ((fact, decision), under) in facts.iter().zip(&mut decisions).zip(under) {
            if !fact.held && fact.made_under.as_ref() == Some(made_under) && under.is_kept() {
                decision.lock(&under);
            }
        }
    }
    decisions
}

fn decide_by(rules: &Retention, facts: &[Fact], order: &[usize], now: Timestamp) -> Vec<Decision> {
    let mut windows = Windows::new(rules);
    let entry = |fact: &Fact| Entry {
        created_at: fact.created_at,
        stamp: fact.expired_at,
        held: fact.held,
        stamps: rules.stamps(&mut windows.wall, fact.created_at),
        windows: 0,
    };
    let mut entries: Vec<Entry> = facts.iter().map(entry).collect();
    let mut lost = Vec::new();
    for at in order {
        let counted = !entries[*at].held && !is_past(rules, &entries[*at], now);
        if counted {
            windows.push(&mut entries, *at, &mut lost);
        }
    }
    entries
        .iter()
        .map(|entry| judge(rules, entry, now))
        .collect()
}

/// Which of a resource's failed scheduled backups are to be removed, by their places in the list
/// of when they were made: all but the newest ten of the last thirty days.
pub fn failed_to_remove(made_at: &[Timestamp], now: Timestamp) -> Vec<usize> {
    let mut newest_first: Vec<usize> = (0..made_at.len()).collect();
    newest_first.sort_by_key(|at| Reverse((made_at[*at], *at)));
    let is_kept = |(place, at): (usize, usize)| {
        place < FAILED_KEPT && now.seconds_since(made_at[at]) < FAILED_KEPT_SECONDS
    };
    let places = newest_first.into_iter().enumerate();
    let mut removed: Vec<usize> = places
        .filter(|it| !is_kept(*it))
        .map(|(_, at)| at)
        .collect();
    removed.sort_unstable();
    removed
}
