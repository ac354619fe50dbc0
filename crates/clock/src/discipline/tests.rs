//! Single cases, and a simulated clock with a source that is honest, hostile or absent.

use proptest::prelude::*;

use super::*;

const LIMITS: SourceLimits =
    SourceLimits { max_round_trip: Duration::from_millis(1), error: Duration::from_millis(10) };

const SECOND: i64 = 1_000_000_000;
const MILLI: i64 = 1_000_000;

/// `nanos` after the beginning of November 2026.
fn date(nanos: i64) -> Date {
    Date::from_parts(1_793_491_200, 0).unwrap().plus(Offset::from_nanos(nanos))
}

/// A clock at `at` that is behind the source by `offset`, read in `round_trip`.
fn reading(at: i64, offset: i64, round_trip: i64) -> Reading {
    Reading { before: date(at), source: date(at + round_trip / 2 + offset), after: date(at + round_trip) }
}

fn correct(discipline: &mut Discipline, readings: &[Reading], now: Duration) -> Correction {
    let decision = discipline.decide(readings, now).unwrap();
    discipline.performed(&decision);
    decision.correction()
}

#[test]
fn the_first_correction_sets_the_date_and_later_ones_do_not() {
    let mut discipline = Discipline::new(LIMITS, true);
    let first = correct(&mut discipline, &[reading(0, 3600 * SECOND, 1000)], Duration::ZERO);
    assert_eq!(first, Correction::Step(Offset::from_nanos(3600 * SECOND)));
    let second = correct(&mut discipline, &[reading(0, 3600 * SECOND, 1000)], PERIOD);
    assert_eq!(second, Correction::Slew(Offset::from_nanos(30 * MILLI)));
    assert!(!discipline.is_trusted(PERIOD), "the date is still an hour off");
}

#[test]
fn the_date_is_not_set_once_services_may_run_even_if_no_reading_could_be_used_before() {
    let mut discipline = Discipline::new(LIMITS, true);
    let slow = reading(0, 3600 * SECOND, 2 * MILLI);
    assert!(discipline.decide(&[slow], Duration::ZERO).is_err());
    discipline.end_steps();
    let later = correct(&mut discipline, &[reading(0, 3600 * SECOND, 1000)], PERIOD);
    assert_eq!(later, Correction::Slew(Offset::from_nanos(30 * MILLI)));
}

#[test]
fn a_small_offset_and_that_of_running_programs_is_never_a_step() {
    let slew = |offset| Correction::Slew(Offset::from_nanos(offset));
    let first = |may_step, offset| {
        correct(&mut Discipline::new(LIMITS, may_step), &[reading(0, offset, 1000)], Duration::ZERO)
    };
    assert_eq!(first(true, -20 * MILLI), slew(-20 * MILLI));
    assert_eq!(first(false, 3600 * SECOND), slew(30 * MILLI));
    assert_eq!(first(false, -3600 * SECOND), slew(-30 * MILLI));
}

#[test]
fn the_fastest_reading_counts_and_a_slow_one_is_refused() {
    let mut discipline = Discipline::new(LIMITS, true);
    let slow = reading(0, 40 * MILLI, 2 * MILLI);
    let refused = discipline.decide(&[slow], Duration::ZERO).unwrap_err();
    assert_eq!(refused, Refusal::Slow(Duration::from_millis(2)));
    assert_eq!(refused.to_string(), "the fastest reading took 2000 µs");
    let fastest = reading(0, MILLI, 2000);
    let correction = correct(&mut discipline, &[slow, fastest, reading(0, 9 * MILLI, 5000)], Duration::ZERO);
    assert_eq!(correction, Correction::Slew(Offset::from_nanos(MILLI)));
    // The source's error, half of the round trip, and the offset, which is not corrected yet.
    assert_eq!(discipline.bound(Duration::ZERO), Some(Duration::from_micros(11_001)));
    assert_eq!(discipline.decide(&[], Duration::ZERO).unwrap_err(), Refusal::NoReading);
    let backwards = Reading { before: date(5), source: date(5), after: date(4) };
    assert_eq!(discipline.decide(&[backwards], Duration::ZERO).unwrap_err(), Refusal::NoReading);
}

#[test]
fn a_date_outside_the_limits_is_refused() {
    let discipline = Discipline::new(LIMITS, true);
    for source in [EARLIEST.plus(Offset::from_nanos(-1)), LATEST] {
        let reading = Reading { before: date(0), source, after: date(0) };
        let refused = discipline.decide(&[reading], Duration::ZERO).unwrap_err();
        assert_eq!(refused, Refusal::Implausible(source));
    }
}

#[test]
fn trust_begins_with_a_correction_and_ends_some_hours_after_the_last() {
    let mut discipline = Discipline::new(LIMITS, true);
    assert_eq!((discipline.bound(Duration::ZERO), discipline.is_trusted(Duration::ZERO)), (None, false));
    let decision = discipline.decide(&[reading(0, 0, 0)], Duration::ZERO).unwrap();
    assert!(!discipline.is_trusted(Duration::ZERO), "the correction has not been performed yet");
    discipline.performed(&decision);
    // 100 millionths of 9,900 s are 990 ms, and the source's error is 10 ms.
    assert!(discipline.is_trusted(Duration::from_mins(165)));
    assert!(!discipline.is_trusted(Duration::from_secs(9_901)));
}

proptest! {
    /// A clock that drifts, corrected by an honest source: the bound holds at each time, and the date is trusted.
    #[test]
    fn the_error_is_within_the_bound(
        drift_ppm in -100_i64..=100,
        start in -3600 * SECOND..3600 * SECOND,
        source_errors in proptest::collection::vec(-10 * MILLI..=10 * MILLI, 1..60),
        round_trip in 0_i64..MILLI,
        asymmetry in 0_i64..=100,
    ) {
        let mut discipline = Discipline::new(LIMITS, true);
        let (mut error, mut now) = (start, Duration::ZERO);
        for source_error in source_errors {
            // The clock reads the true date plus `error`; the source is read at any moment of the round trip.
            let before = date(i64::try_from(now.as_nanos()).unwrap() + error);
            let asked = round_trip * asymmetry / 100;
            let source = before.plus(Offset::from_nanos(asked - error + source_error));
            let reading = Reading { before, source, after: before.plus(Offset::from_nanos(round_trip)) };
            let correction = correct(&mut discipline, &[reading], now);
            if let Correction::Step(offset) = correction { error += offset.nanos() }
            prop_assert!(within(error, discipline.bound(now)), "{error} {:?}", discipline.bound(now));
            prop_assert!(discipline.is_trusted(now));
            if let Correction::Slew(offset) = correction { error += offset.nanos() }
            error += drift_ppm * i64::try_from(PERIOD.as_micros()).unwrap() / 1000;
            now += PERIOD;
            prop_assert!(within(error, discipline.bound(now)), "{error} {:?}", discipline.bound(now));
        }
    }

    /// Whatever a source states, within thirty-six years, the date is set at most once and while that is allowed, to a plausible one,
    /// and then changes within the rate.
    #[test]
    fn a_hostile_source_is_limited(
        may_step: bool,
        steps_end in 0_u32..30,
        claims in proptest::collection::vec((any::<i64>(), any::<i64>(), any::<i64>()), 1..30),
    ) {
        let mut discipline = Discipline::new(LIMITS, may_step);
        let (mut clock, mut set) = (date(0), 0);
        for (round, (before, source, after)) in (0_u32..).zip(claims) {
            if round == steps_end {
                discipline.end_steps();
            }
            let at = |nanos| clock.plus(Offset::from_nanos(nanos));
            let claim = Reading { before: at(before % MILLI), source: at(source >> 3), after: at(after % (2 * MILLI)) };
            let Ok(decision) = discipline.decide(&[claim], PERIOD * round) else { continue };
            discipline.performed(&decision);
            match decision.correction() {
                Correction::Step(offset) => {
                    set += 1;
                    clock = clock.plus(offset);
                    prop_assert!(may_step && round < steps_end);
                    prop_assert!(clock >= EARLIEST.plus(Offset::from_nanos(-2 * MILLI)) && clock < LATEST.plus(Offset::from_nanos(2 * MILLI)));
                }
                Correction::Slew(offset) => {
                    prop_assert!(offset.magnitude() <= Duration::from_millis(30));
                    clock = clock.plus(offset);
                }
            }
        }
        prop_assert!(set <= 1);
    }
}

/// Whether an error is at most the bound.
fn within(error: i64, bound: Option<Duration>) -> bool {
    bound.is_some_and(|bound| Offset::from_nanos(error).magnitude() <= bound)
}
