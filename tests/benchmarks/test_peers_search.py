"""The search finds good settings with few trials, and says how far they can be trusted."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.serving.peers.search import AXES, climb, status_of
from benchmarks.serving.peers.settings import (
    PeerSettings,
    SearchResult,
    Trial,
    load_settings,
    store_settings,
)

BEGIN = PeerSettings(
    workers=1,
    threads=1,
    may_spin=False,
    max_batch_size=1,
    batch_wait_ms=0,
    expiry=1,
    queue_deadlines=1,
    front_ends=1,
)
SIZES = [{"max_batch_size": size} for size in (1, 2, 4, 8)]
WAITS = [{"batch_wait_ms": wait} for wait in (0, 1, 2)]


class Machine:
    """Answers best at batches of four that wait one millisecond; counts what it is asked."""

    def __init__(self, foreign_share: float = 0.0) -> None:
        self.asked: list[PeerSettings] = []
        self._foreign_share = foreign_share

    def measure(self, settings: PeerSettings) -> Trial:
        self.asked.append(settings)
        off = abs(settings.max_batch_size - 4) / 10 + abs(settings.batch_wait_ms - 1) / 10
        return Trial(settings=settings, accuracies=(1 - off,), foreign_share=self._foreign_share)


def test_the_best_value_of_every_axis_is_found():
    machine = Machine()

    trials = climb(BEGIN, [SIZES, WAITS], measure=machine.measure, is_time_left=lambda: True)

    best = trials[0].settings
    assert (best.max_batch_size, best.batch_wait_ms) == (4, 1)
    assert [trial.score for trial in trials] == sorted((t.score for t in trials), reverse=True)


def test_nothing_is_tried_twice():
    machine = Machine()

    climb(BEGIN, [SIZES, WAITS], measure=machine.measure, is_time_left=lambda: True)

    assert len(machine.asked) == len(set(machine.asked))


def test_a_search_ends_with_its_time_and_has_something_even_then():
    machine = Machine()

    trials = climb(
        BEGIN,
        [SIZES, WAITS],
        measure=machine.measure,
        is_time_left=lambda: len(machine.asked) < 3,
    )

    assert len(trials) == len(machine.asked) == 3
    assert climb(BEGIN, [], measure=machine.measure, is_time_left=lambda: False)


@pytest.mark.parametrize(
    ("foreign_share", "status"), [(0.01, "searched"), (0.3, "provisional")], ids=["quiet", "noisy"]
)
def test_settings_found_among_neighbours_stay_provisional(foreign_share: float, status: str):
    trial = Machine(foreign_share).measure(BEGIN)

    assert status_of([trial]) == status


@pytest.mark.parametrize("peer", AXES)
def test_every_value_that_is_searched_is_one_a_peer_can_have(peer: str):
    chosen = load_settings(peer).chosen

    for change in (change for axis in AXES[peer] for change in axis):
        assert set(change.items()) <= set(chosen.changed(change).model_dump().items())


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValidationError):
        BEGIN.changed({"workers": 0})


def test_a_table_has_a_line_for_every_trial():
    trial = Machine().measure(BEGIN)
    result = SearchResult(
        status="searched", chosen=BEGIN, service_ms=(1, 2), rates_hz=(500.0,), trials=(trial,)
    )

    assert "accuracy at 500/s" in result.table()
    assert len(result.table().splitlines()) == 3


def test_a_result_is_kept_as_it_was(tmp_path: Path):
    result = SearchResult(status="searched", chosen=BEGIN, service_ms=(1, 2))
    folder = tmp_path / "settings"

    store_settings("some", result, folder=folder)

    assert load_settings("some", folder=folder) == result
