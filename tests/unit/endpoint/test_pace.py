import asyncio
import random

import pytest

from r1mm.endpoint.pace import Pace, Retries
from tests.asking import Ticking


def sent_at(pace: Pace, clock: Ticking, tokens: list[int], used: int | None = None) -> list[float]:
    """When requests of so many tokens go out that are all wanted at once; each in truth takes `used`."""
    at = []

    async def one(most: int) -> None:
        await pace.turn(most)
        at.append(clock.time - 100.0)
        if used is not None:
            pace.put_back(most - used)

    async def all_of_them() -> None:
        await asyncio.gather(*map(one, tokens))

    asyncio.run(all_of_them())
    return at


def test_requests_a_minute_are_spread_evenly() -> None:
    clock = Ticking()
    at = sent_at(Pace(requests=30, clock=clock), clock, [1] * 61)
    assert at == pytest.approx([2.0 * i for i in range(61)])
    assert all(sum(start <= moment < start + 60 for moment in at) <= 30 for start in at)


def test_a_pause_is_not_made_up_for() -> None:
    clock = Ticking()
    pace = Pace(requests=60, clock=clock)
    sent_at(pace, clock, [1])
    clock.time += 1000
    assert sent_at(pace, clock, [1, 1]) == pytest.approx([1000.0, 1001.0])


def test_tokens_a_minute() -> None:
    clock = Ticking()
    # A full store of 6,000, then 100 a second.
    assert sent_at(Pace(tokens=6000, clock=clock), clock, [2000] * 5) == pytest.approx([0, 0, 0, 20, 40])
    clock = Ticking()
    # What was not needed is put back.
    assert sent_at(Pace(tokens=6000, clock=clock), clock, [2000] * 5, used=500) == pytest.approx([0, 0, 0, 0, 0])
    clock = Ticking()
    # Larger than the store: when that is full, and the next one pays.
    assert sent_at(Pace(tokens=6000, clock=clock), clock, [9000, 1000]) == pytest.approx([0, 40])


def test_what_the_server_says_holds_all() -> None:
    clock = Ticking()
    pace = Pace(clock=clock)
    pace.hold(30.0)
    pace.hold(5.0)
    assert sent_at(pace, clock, [1, 1]) == pytest.approx([30.0, 30.0])


def test_without_limits_nobody_waits() -> None:
    clock = Ticking()
    sent_at(Pace(clock=clock), clock, [10**6] * 9)
    assert clock.slept == []


def test_back_off_is_left_to_chance_from_nothing_to_twice_as_long_each_time() -> None:
    retries = Retries(chance=random.Random(1).random)
    for failures, longest in ((1, 1.0), (2, 2.0), (5, 16.0), (7, 60.0), (40, 60.0)):
        waits = [retries.wait(failures) for _ in range(4000)]
        assert max(waits) <= longest
        assert max(waits) > 0.99 * longest
        assert min(waits) < 0.01 * longest
        assert sum(waits) / len(waits) == pytest.approx(longest / 2, rel=0.05)
    assert [Retries(chance=random.Random(7).random).wait(3) for _ in range(2)] == [random.Random(7).random() * 4] * 2


def test_what_the_server_tells_is_a_least_and_bounded() -> None:
    retries = Retries(chance=lambda: 0.5)
    assert retries.wait(1, 12.0) == 12.5
    assert retries.wait(1, 1e9) == 600.5
    assert retries.wait(6, 0.0) == 0.5
