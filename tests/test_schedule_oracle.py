"""When policies run, against others who know: python-dateutil for the rules of RFC 5545, and
Python's zoneinfo, with the same release of the time zone database, for the zones.

The program `policy_lines` answers by the crate that the service decides by. What is compared is
made here: wall times by dateutil, which knows no zone, and their instants by zoneinfo after our own
rule, the first of two and the next valid one for none.
"""

import bisect
import calendar
import datetime as dt
import importlib.resources
import json
import math
import os
import random
import struct
import subprocess
import types
import warnings
import zoneinfo

import pytest
import tzdata
from dateutil import rrule
from harness import ROOT

EPOCH = dt.datetime(1970, 1, 1)
UTC = dt.timezone.utc
DAY = 86400
FREQS = ["YEARLY", "MONTHLY", "WEEKLY", "DAILY", "HOURLY", "MINUTELY", "SECONDLY"]
DAYS = ["MO", "TU", "WE", "TH", "FR", "SA", "SU"]

# How many rules, and how many instants are asked about each: 100,000 cases.
RULES = int(os.environ.get("CAIRN_ORACLE_RULES", "10000"))
INSTANTS = 10
# As many runs of a rule are looked at, and so far from its start.
MAX_RUNS = 60
WINDOW_DAYS = {
    "YEARLY": 9000, "MONTHLY": 3000, "WEEKLY": 1500, "DAILY": 700, "HOURLY": 150, "MINUTELY": 40,
    "SECONDLY": 3,
}


def second(wall):
    """A wall time in seconds, as if the zone were UTC."""
    return (wall - EPOCH) // dt.timedelta(seconds=1)


@pytest.fixture(scope="module")
def ask():
    """Asks the program a list of questions and returns its answers."""
    build = "cargo build --quiet --locked --workspace --example policy_lines"
    path = os.environ["PATH"] + os.pathsep + os.path.expanduser("~/.cargo/bin")
    subprocess.run(build.split(), cwd=ROOT, check=True, env={**os.environ, "PATH": path})
    target = os.environ.get("CARGO_TARGET_DIR", ROOT / "target")
    program = f"{target}/debug/examples/policy_lines"

    def asked(questions):
        lines = "".join(json.dumps(question) + "\n" for question in questions)
        done = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        assert len(answers) == len(questions)
        return answers

    return asked


class Zone:
    """A zone by Python's reading of the database in the package, never the machine's."""

    def __init__(self, name):
        self.name = name
        folder = importlib.resources.files("tzdata.zoneinfo")
        self.file = folder.joinpath(*name.split("/"))
        with self.file.open("rb") as file:
            self.zone = zoneinfo.ZoneInfo.from_file(file, key=name)

    def wall(self, instant):
        """What the wall shows at an instant."""
        shown = dt.datetime.fromtimestamp(instant, UTC).astimezone(self.zone)
        return second(shown.replace(tzinfo=None))

    def offset(self, instant):
        return self.wall(instant) - instant

    def instant(self, wall):
        """The instant of a wall time: the first of two, the next valid one for none."""
        shown = (EPOCH + dt.timedelta(seconds=wall)).replace(tzinfo=self.zone)
        first = wall - round(shown.utcoffset().total_seconds())
        other = wall - round(shown.replace(fold=1).utcoffset().total_seconds())
        if first <= other and self.wall(first) == wall:
            return first
        # Neither shows it: the change lies between the two.
        assert other < first
        return self.change(other, first)

    def change(self, low, high):
        """The instant, after the one and up to the other, at which the offset changes."""
        before = self.offset(low)
        assert self.offset(high) != before
        while high - low > 1:
            middle = (low + high) // 2
            if self.offset(middle) == before:
                low = middle
            else:
                high = middle
        return high

    def changes(self, since, until):
        """All changes between two instants: those that the database lists, and those that
        follow from the rule at its end, which are weeks apart."""
        listed = [at for at in self.listed() if since <= at < until]
        found = {at for at in listed if self.offset(at - 1) != self.offset(at)}
        begin = max([since, *listed])
        for at in range(begin, until, 7 * DAY):
            if self.offset(at) != self.offset(at + 7 * DAY):
                found.add(self.change(at, at + 7 * DAY))
        return sorted(found)

    def listed(self):
        """The changes that the file lists. Source: RFC 8536."""
        data = self.file.read_bytes()
        header = struct.Struct(">4s1s15x6L")

        def counts(at):
            magic, version, *numbers = header.unpack_from(data, at)
            assert magic == b"TZif" and version >= b"2"
            return numbers

        ut, std, leap, times, types, chars = counts(0)
        at = header.size + times * 5 + types * 6 + chars + leap * 8 + std + ut
        times = counts(at)[3]
        return struct.unpack_from(f">{times}q", data, at + header.size)


def test_the_database_is_of_one_release(ask):
    """Both sides have the same zones; the next release of either needs the other's."""
    folder = importlib.resources.files("tzdata")
    ours = set(ask([{"ask": "zones"}])[0])
    theirs = set(folder.joinpath("zones").read_text().split())
    assert tzdata.IANA_VERSION == "2026e"
    assert ours - theirs <= {"Factory", "localtime", "posixrules"} and not theirs - ours


def test_wall_times_around_every_change_of_every_zone(ask):
    """1970 to 2100: seconds, minutes and hours around both ends of each repeated and skipped time."""
    around = [0, 1, 59, 1799, 1800, 3599, 3600, 3601, 7200, 86399]
    around = sorted({sign * distance for distance in around for sign in (1, -1)})
    since, until = second(dt.datetime(1970, 1, 1)), second(dt.datetime(2101, 1, 1))
    questions, zones = [], []
    names = importlib.resources.files("tzdata").joinpath("zones").read_text().split()
    for name in names:
        zone = Zone(name)
        walls = {since + DAY, until - DAY}
        for at in zone.changes(since, until):
            ends = at + zone.offset(at - 1), at + zone.offset(at)
            walls.update(end + distance for end in ends for distance in around)
        zones.append(zone)
        questions.append({"ask": "walls", "timezone": name, "walls": sorted(walls)})
    count = 0
    for zone, question, answer in zip(zones, questions, ask(questions)):
        for wall, instant in zip(question["walls"], answer, strict=True):
            count += 1
            expected = zone.instant(wall)
            assert instant == expected, f"{EPOCH + dt.timedelta(seconds=wall)} in {zone.name}"
    assert count > 1_000_000


def some(rng, low, high, most, negative=False):
    """Some numbers in a rule's form."""
    numbers = rng.sample(range(low, high + 1), rng.randint(1, min(most, high - low + 1)))
    return ",".join(str(-n if negative and rng.random() < 0.4 else n) for n in numbers)


def random_rule(rng, start):
    """A rule that RFC 5545 allows. Three things that dateutil is known to read otherwise are left
    to tests of their own: days of both kinds at once, which it intersects, and the weeks 52 and 53
    from either end, of which it gives the first days of a year a wrong number."""
    freq = rng.choice(FREQS)
    level = FREQS.index(freq)
    parts = {}
    maybe = lambda chance: rng.random() < chance
    if maybe(0.6):
        parts["INTERVAL"] = rng.choice([1, 2, 3, 4, 5, 7, 10, 11, 12, 24, 30, 36, 60, 90])
    if maybe(0.3):
        parts["BYMONTH"] = some(rng, 1, 12, 6)
    if freq == "YEARLY" and maybe(0.2):
        parts["BYWEEKNO"] = some(rng, 1, 51, 6, negative=True)
    if freq in ("YEARLY", "HOURLY", "MINUTELY", "SECONDLY") and maybe(0.15):
        parts["BYYEARDAY"] = some(rng, 1, 366, 40, negative=True)
    if freq != "WEEKLY" and maybe(0.25):
        parts["BYMONTHDAY"] = some(rng, 1, 31, 12, negative=True)
    if maybe(0.35):
        days = rng.sample(DAYS, rng.randint(1, 5))
        if level <= 1 and "BYWEEKNO" not in parts and maybe(0.6):
            most = 53 if freq == "YEARLY" and "BYMONTH" not in parts else 5
            days = [f"{rng.choice(['', '+', '-'])}{rng.randint(1, most)}{day}" for day in days]
        parts["BYDAY"] = ",".join(days)
    if maybe(0.35):
        parts["BYHOUR"] = some(rng, 0, 23, 5)
    if maybe(0.35):
        parts["BYMINUTE"] = some(rng, 0, 59, 5)
    if maybe(0.15):
        parts["BYSECOND"] = some(rng, 0, 59, 4)
    if any(part.startswith("BY") for part in parts) and maybe(0.3):
        # No further than there are instances in a period, for dateutil looks at each second of
        # years for one that is not there.
        times = ["BYHOUR", "BYMINUTE", "BYSECOND"][max(0, level - 3) :]
        most = math.prod(len(parts.get(part, "").split(",")) for part in times)
        parts["BYSETPOS"] = some(rng, 1, most if level >= 3 else 12, 3, negative=True)
    if maybe(0.4):
        parts["WKST"] = rng.choice(DAYS)
    if maybe(0.2):
        parts["COUNT"] = rng.randint(1, 40)
    elif maybe(0.3):
        end = start + dt.timedelta(seconds=rng.randint(0, WINDOW_DAYS[freq] * DAY // 2))
        parts["UNTIL"] = end.strftime("%Y%m%dT%H%M%S") + rng.choice(["", "Z"])
    order = list(parts.items())
    rng.shuffle(order)
    return freq, ";".join([f"FREQ={freq}", *(f"{key}={value}" for key, value in order)])


def dateutils(rule, start, window):
    """The wall times of a rule up to the window's end, and whether there may be more in it."""
    utc = None
    if rule.rpartition("UNTIL=")[2].split(";")[0].endswith("Z") and "UNTIL=" in rule:
        # dateutil takes no instant for an end where it has no zone: ours is applied afterwards.
        before, _, after = rule.partition("UNTIL=")
        text, _, rest = after.partition(";")
        utc = second(dt.datetime.strptime(text, "%Y%m%dT%H%M%SZ"))
        rule = (before + rest).strip(";")
    walls = []
    # It looks for the next run until the years end: here it need not.
    rrule.datetime = types.SimpleNamespace(**{**vars(dt), "MAXYEAR": window.year})
    try:
        for wall in rrule.rrulestr(rule, dtstart=start):
            if wall > window:
                return walls, False, utc
            walls.append(second(wall))
            if len(walls) == MAX_RUNS:
                return walls, True, utc
    except ValueError as error:
        # Its way to say that the parts together never fall.
        assert "empty" in str(error)
    finally:
        rrule.datetime = dt
    return walls, False, utc


def case(rng, zones):
    """A random rule with its runs, as others see them, and instants to ask about."""
    zone = rng.choice(zones)
    anchor = rng.randint(second(dt.datetime(1975, 1, 1)), second(dt.datetime(2060, 1, 1)))
    if rng.random() < 0.3:
        # Just before a change, where there is one.
        at = bisect.bisect(zone.changes_by_then, anchor)
        later = zone.changes_by_then[at : at + 2]
        anchor = rng.choice(later) - rng.randint(0, 2 * DAY) if later else anchor
    start = EPOCH + dt.timedelta(seconds=zone.wall(anchor))
    start = start.replace(second=0)
    freq, rule = random_rule(rng, start)
    window = start + dt.timedelta(days=WINDOW_DAYS[freq])
    walls, more, until = dateutils(rule, start, window)
    runs = sorted({zone.instant(wall) for wall in walls})
    if until is not None:
        more = more and (not runs or runs[-1] <= until)
        runs = [run for run in runs if run <= until]
    # What is asked about is known: up to the last run that was looked at, or the window's end.
    end = runs[-1] - 1 if more else zone.instant(second(window))
    begin = min(zone.instant(second(start)), anchor) - 2
    instants = [rng.randint(begin, max(begin, end)) for _ in range(INSTANTS // 2)]
    near = [rng.choice(runs) + rng.choice([-1, 0, 1]) for _ in range(INSTANTS // 2) if runs]
    instants += [min(instant, end) for instant in near]
    instants += [begin] * (INSTANTS - len(instants))
    question = {"timezone": zone.name, "rules": [rule], "anchor": anchor}
    return question, runs, more, end, instants


def test_random_rules_are_read_as_dateutil_reads_them(ask):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    assert calendar.firstweekday() == 0, "what dateutil begins weeks with"
    warnings.simplefilter("error")
    names = importlib.resources.files("tzdata").joinpath("zones").read_text().split()
    zones = [Zone(name) for name in ["UTC", *rng.sample(names, 80)]]
    for zone in zones:
        span = second(dt.datetime(1975, 1, 1)), second(dt.datetime(2060, 1, 1))
        zone.changes_by_then = zone.changes(*span)
    cases = [case(rng, zones) for _ in range(RULES)]
    questions = []
    for question, _, _, end, instants in cases:
        questions.append({"ask": "next", **question, "after": instants})
        begin = question["anchor"] - 400 * DAY
        span = {"from": begin, "until": end, "max": MAX_RUNS + 1}
        questions.append({"ask": "runs", **question, **span})
    answers = iter(ask(questions))
    asked = fell = 0
    for question, runs, more, end, instants in cases:
        nexts, all_runs = next(answers), next(answers)
        assert isinstance(nexts, list), f"{question}: {nexts}"
        for instant, answer in zip(instants, nexts, strict=True):
            at = bisect.bisect_right(runs, instant)
            expected = runs[at] if at < len(runs) else None
            if expected is None and answer is not None and answer > end:
                answer = None
            assert answer == expected, f"seed {seed}: {question} after {instant}: {answer}"
            asked += 1
        expected = runs[:-1] if more else [run for run in runs if run <= end]
        assert all_runs == expected, f"seed {seed}: {question}: {all_runs}, not {expected}"
        fell += bool(runs)
    assert asked == RULES * INSTANTS
    assert fell > RULES / 2, "most rules fall"


def week_of(day, first):
    """The number of a day's week, and the number of weeks of the year that it counts in."""
    begin = day - dt.timedelta(days=(day.weekday() - first) % 7)
    year = (begin + dt.timedelta(days=3)).year
    number = lambda day: ((day - dt.date(year, 1, 1)).days) // 7 + 1
    last = dt.date(year, 12, 28)
    last -= dt.timedelta(days=(last.weekday() - first) % 7)
    return number(begin + dt.timedelta(days=3)), number(last + dt.timedelta(days=3))


def test_weeks_have_the_numbers_of_iso_8601_from_either_end(ask):
    """All days of 40 years, all first days of the week, all numbers."""
    start = dt.date(1995, 1, 1)
    days = [start + dt.timedelta(days=number) for number in range(40 * 365)]
    assert all(week_of(day, 0)[0] == day.isocalendar().week for day in days)
    anchor = second(dt.datetime(1995, 1, 1))
    until = anchor + len(days) * DAY - 1
    questions, expected = [], []
    for first, name in enumerate(DAYS):
        weeks = [week_of(day, first) for day in days]
        for number in [*range(1, 54), *range(-53, 0)]:
            rule = f"FREQ=YEARLY;BYWEEKNO={number};WKST={name}"
            question = {"ask": "runs", "rules": [rule], "anchor": anchor, "from": anchor}
            questions.append({**question, "until": until, "max": len(days)})
            in_week = lambda week: number in (week[0], week[0] - week[1] - 1)
            places = [place for place, week in enumerate(weeks) if in_week(week)]
            expected.append([anchor + place * DAY for place in places])
    for question, answer, days in zip(questions, ask(questions), expected):
        assert answer == days, question["rules"]


def test_days_of_both_kinds_are_those_of_either(ask):
    """BYDAY with and without numbers: dateutil takes only what is in both."""
    start, end = dt.datetime(2020, 1, 1), dt.datetime(2030, 1, 1)
    span = {"from": second(start), "until": second(end), "max": 10000}
    question = {"ask": "runs", "anchor": second(start), **span}
    for freq in ("MONTHLY", "YEARLY"):
        one, other = f"FREQ={freq};BYDAY=MO,TH", f"FREQ={freq};BYDAY=-1FR,2SU"
        both = f"FREQ={freq};BYDAY=-1FR,MO,2SU,TH"
        walls = set()
        for rule in (one, other):
            walls.update(rrule.rrulestr(rule, dtstart=start).between(start, end, inc=True))
        answer = ask([{**question, "rules": [both]}])[0]
        assert answer == sorted(second(wall) for wall in walls)
