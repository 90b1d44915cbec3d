import os
from collections.abc import Mapping

import pytest

from benchmarks.serving.noise import Snapshot, foreign_share, parse_processors, take_snapshot

#                 user nice system idle iowait irq softirq steal guest guest_nice
STAT_LINE = "cpu  100  20   30     400  5      6   7       8     50    0"


def snapshot(
    *, busy: int = 0, stolen: int = 0, idle: int = 0, own: Mapping[int, int] | None = None
) -> Snapshot:
    line = f"cpu {busy} 0 0 {idle} 0 0 0 {stolen} 0 0"
    return Snapshot(parse_processors(line), own or {})


def test_busy_is_what_processes_took_and_guests_are_not_counted_twice():
    ticks = parse_processors(STAT_LINE)

    assert (ticks.busy, ticks.stolen, ticks.total) == (150, 8, 576)


def test_what_is_ours_is_no_noise():
    before = snapshot(own={7: 10})
    after = snapshot(busy=60, idle=40, own={7: 70})

    assert foreign_share(before, after) == 0


def test_other_processes_and_stolen_time_are_noise():
    before = snapshot(own={7: 10})
    after = snapshot(busy=60, idle=30, stolen=10, own={7: 40})

    assert foreign_share(before, after) == pytest.approx((30 + 10) / 100)


def test_a_process_of_ours_that_began_in_between_counts_from_its_beginning():
    after = snapshot(busy=50, idle=50, own={8: 50})

    assert foreign_share(snapshot(), after) == 0


def test_sampling_error_never_makes_noise_negative():
    after = snapshot(busy=10, idle=90, own={7: 12})

    assert foreign_share(snapshot(own={7: 0}), after) == 0


def test_this_very_process_is_found():

    assert os.getpid() in take_snapshot((), {os.getpid()}).own_ticks
