//! Ticks, by the clock of the simulated world.

use crate::world::{MONOTONIC_CLOCK, Probe};

const MILLISECOND: u64 = 1_000_000;

/// How often it ticked, and in how many milliseconds it wants to be asked again.
fn ticked(probe: &Probe, now: u64) -> (usize, Option<u64>) {
    let work = probe.filter.plugin.work();
    assert!(work.errors.is_empty(), "{:?}", work.errors);
    let count = probe.said().iter().filter(|line| line.starts_with("tick ")).count();
    (count, work.next.map(|next| (next - MONOTONIC_CLOCK) / MILLISECOND - now))
}

#[test]
fn a_tick_comes_when_its_period_is_over_and_late_ones_are_not_made_up_for() {
    let probe = Probe::new("configure: set_tick_period_milliseconds 20\ntick: ids");
    let pass = |ms| probe.filter.host.pass(ms);
    probe.said();
    assert_eq!(ticked(&probe, 0), (0, Some(20)));
    pass(19);
    assert_eq!(ticked(&probe, 19), (0, Some(1)));
    pass(1);
    assert_eq!(ticked(&probe, 20), (1, Some(20)));
    // A worker that was busy for a second: one tick, and the next one a whole period later.
    pass(1000);
    assert_eq!(ticked(&probe, 1020), (1, Some(20)));
    assert_eq!(ticked(&probe, 1020), (0, Some(20)));
}

#[test]
fn a_period_is_set_again_and_ended_by_the_tick() {
    let probe = Probe::new(
        "configure: set_tick_period_milliseconds 20
         tick@first: set_tick_period_milliseconds 100
         tick@again: set_tick_period_milliseconds 0",
    );
    let pass = |ms| probe.filter.host.pass(ms);
    probe.said();
    pass(20);
    assert_eq!(ticked(&probe, 20), (1, Some(100)));
    pass(100);
    assert_eq!(ticked(&probe, 120), (1, None));
    pass(1000);
    assert_eq!(ticked(&probe, 1120), (0, None));
}

#[test]
fn each_context_has_a_period_of_its_own() {
    let probe = Probe::new("configure: set_tick_period_milliseconds 20\ntick: ids");
    let other = probe.filter.context("configure: set_tick_period_milliseconds 50\ntick: ids");
    let pass = |ms| probe.filter.host.pass(ms);
    probe.said();
    pass(50);
    assert_eq!(ticked(&probe, 50), (2, Some(20)));
    pass(40);
    assert_eq!(ticked(&probe, 90), (1, Some(10)));
    probe.filter.drop_context(&probe.context).expect("an end");
    pass(10);
    assert_eq!(ticked(&probe, 100), (1, Some(50)));
    probe.filter.drop_context(&other).expect("an end");
    assert_eq!(ticked(&probe, 100), (0, None));
}
