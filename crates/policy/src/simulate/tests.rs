use cairn_types::OperationDefinition;

use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse("%Y-%m-%dT%H:%M:%SZ", text).unwrap()
}

fn hourly() -> Schedule {
    Schedule::new(&[], None, &["FREQ=HOURLY".to_owned()]).unwrap()
}

fn daily() -> Schedule {
    let pattern = ["FREQ=DAILY;BYHOUR=2;BYMINUTE=0".to_owned()];
    Schedule::new(&pattern, None, &[]).unwrap()
}

fn run(schedule: &Schedule, definition: &OperationDefinition, until: &str) -> Vec<Simulated> {
    let retention = Retention::new(definition).unwrap();
    let span = (at("2026-01-01T00:00:00Z"), at(until));
    simulate(schedule, &retention, span, MAX_SIMULATED).unwrap()
}

#[test]
fn a_count_lets_each_go_with_the_one_that_takes_its_place() {
    let definition = OperationDefinition {
        max_backups: Some(2),
        ..OperationDefinition::default()
    };
    let backups = run(&daily(), &definition, "2026-01-04T02:00:00Z");
    let shown: Vec<(Option<Timestamp>, &[Reason])> = backups
        .iter()
        .map(|backup| (backup.expired_at, backup.kept_by.as_slice()))
        .collect();
    let wanted: [(Option<Timestamp>, &[Reason]); 4] = [
        (Some(at("2026-01-03T02:00:00Z")), &[]),
        (Some(at("2026-01-04T02:00:00Z")), &[]),
        (None, &[Reason::MaxBackups]),
        (None, &[Reason::MaxBackups]),
    ];
    assert_eq!(shown, wanted);
}

#[test]
fn a_stamp_is_told_beyond_the_end() {
    let definition = OperationDefinition {
        retention_duration_days: Some(2),
        ..OperationDefinition::default()
    };
    let backups = run(&daily(), &definition, "2026-01-04T02:00:00Z");
    let gone: Vec<String> = backups
        .iter()
        .map(|backup| backup.expired_at.unwrap().format("%d"))
        .collect();
    assert_eq!(gone, ["03", "04", "05", "06"]);
    let kept: Vec<bool> = backups
        .iter()
        .map(|backup| !backup.kept_by.is_empty())
        .collect();
    assert_eq!(
        kept,
        [false, false, true, true],
        "a stamp of that very instant is past"
    );
}

#[test]
fn what_nothing_limits_stays() {
    let backups = run(
        &daily(),
        &OperationDefinition::default(),
        "2026-03-01T00:00:00Z",
    );
    assert_eq!(backups.len(), 59);
    let forever =
        |backup: &Simulated| backup.expired_at.is_none() && backup.kept_by == [Reason::Forever];
    assert!(backups.iter().all(forever));
}

#[test]
fn more_than_a_simulation_holds_is_an_error() {
    let minutely = Schedule::new(&[], None, &["FREQ=MINUTELY".to_owned()]).unwrap();
    let retention = Retention::new(&OperationDefinition::default()).unwrap();
    let from = at("2026-01-01T00:00:00Z");
    let two_years = at("2028-01-01T00:00:00Z");
    let run = |from, until, max| simulate(&minutely, &retention, (from, until), max);
    let refused = run(from, two_years, usize::MAX).unwrap_err();
    assert_eq!(refused.max, MAX_SIMULATED);
    assert_eq!(
        run(from, from.plus_seconds(600), 10),
        Err(TooManyBackups { max: 10 })
    );
    assert_eq!(run(from, from.plus_seconds(600), 11).unwrap().len(), 11);
    assert!(run(two_years, from, 10).unwrap().is_empty());
}

/// The numbers are for what tests are built with; an optimised program takes a fraction.
#[test]
fn ten_years_of_every_hour_take_no_time_to_speak_of() {
    let definition = OperationDefinition {
        max_backups: Some(48),
        day_backups: Some(30),
        week_backups: Some(20),
        month_backups: Some(24),
        year_backups: Some(10),
        timezone: Some("UTC+08:00".to_owned()),
        ..OperationDefinition::default()
    };
    let began = std::time::Instant::now();
    let backups = run(&hourly(), &definition, "2036-01-01T00:00:00Z");
    let took = began.elapsed();
    assert_eq!(backups.len(), 87_649);
    let kept = backups.iter().filter(|backup| !backup.kept_by.is_empty());
    assert!((90..140).contains(&kept.count()));
    assert!(took.as_millis() < 1000, "{took:?}");
}
