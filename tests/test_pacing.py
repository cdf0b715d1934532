"""How fast one client may send."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from chatproto.pacing import UNPACED, Pace, TokenBucket, pace_for

bursts = st.integers(1, 50)
rates = st.floats(0.01, 1000)


def take_all(pace: Pace) -> int:
    """Take lines until one has to wait; return how many passed."""
    taken = 0
    while not pace.take():
        taken += 1
    return taken


@pytest.mark.parametrize("burst", [1, 2, 100])
def test_a_burst_passes_at_once(burst: int) -> None:
    """As many lines as the burst pass without waiting, and the next one waits."""
    pace = TokenBucket(burst, 10.0, Clock().seconds)
    assert take_all(pace) == burst


def test_then_lines_pass_at_the_rate() -> None:
    """After the burst, one line passes each time its share of a second is over."""
    clock = Clock()
    pace = TokenBucket(3, 4.0, clock.seconds)
    take_all(pace)
    for _ in range(5):
        assert pace.take() == pytest.approx(0.25)
        clock.advance(0.25)
        assert take_all(pace) == 1


@settings(deadline=None)
@given(bursts, rates, st.lists(st.floats(0, 100), max_size=30))
def test_no_schedule_gets_more_than_burst_and_rate(
    burst: int, rate: float, pauses: list[float]
) -> None:
    """However a client times its lines, it gets the burst and the rate, and never more."""
    clock = Clock()
    pace = TokenBucket(burst, rate, clock.seconds)
    taken = take_all(pace)
    for pause in pauses:
        clock.advance(pause)
        taken += take_all(pace)
        assert taken <= burst + rate * clock.seconds() + 1e-6


@settings(deadline=None)
@given(bursts, rates, st.integers(1, 20))
def test_whoever_waits_as_told_gets_on(burst: int, rate: float, lines: int) -> None:
    """Waiting as long as told gives a line each time, in about the time that the rate takes."""
    clock = Clock()
    pace = TokenBucket(burst, rate, clock.seconds)
    take_all(pace)
    for _ in range(lines):
        while wait := pace.take():
            assert wait > 0
            clock.advance(wait)
    # The shortest wait is a millisecond; rounding may cost one more of it for each line.
    assert clock.seconds() <= lines * (max(1 / rate, 0.001) + 0.002)


def test_a_rest_gives_one_burst_and_no_more() -> None:
    """Silence is not saved up beyond one burst."""
    clock = Clock()
    pace = TokenBucket(5, 10.0, clock.seconds)
    take_all(pace)
    clock.advance(86_400)
    assert take_all(pace) == 5


def test_rested_means_a_whole_burst() -> None:
    """A client has rested when it may send a whole burst again, and not before."""
    clock = Clock()
    pace = TokenBucket(5, 10.0, clock.seconds)
    assert pace.is_rested()
    pace.take()
    assert not pace.is_rested()
    clock.advance(0.05)
    assert not pace.is_rested()
    clock.advance(0.05)
    assert pace.is_rested()


def test_a_clock_that_steps_back_takes_nothing_away() -> None:
    """When the clock is set back nobody is cut off from lines already earned, nor given any."""
    clock = Clock()
    clock.advance(1000)
    pace = TokenBucket(2, 1.0, clock.seconds)
    pace.take()
    clock.rightNow = 0.0
    assert not pace.take()
    assert pace.take() == pytest.approx(1.0)
    clock.advance(1)
    assert take_all(pace) == 1


def test_a_rate_of_zero_turns_it_off() -> None:
    """With `--rate 0` every line passes, and there is nothing to rest from."""
    pace = pace_for(1, 0, Clock().seconds)
    assert pace is UNPACED
    assert [pace.take() for _ in range(1000)] == [0.0] * 1000
    assert pace.is_rested()


def test_a_pace_belongs_to_one_client() -> None:
    """What one client sends does not slow another."""
    clock = Clock()
    one, other = pace_for(3, 10.0, clock.seconds), pace_for(3, 10.0, clock.seconds)
    take_all(one)
    assert take_all(other) == 3
