from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.serving.bars import Bar, check_bars, ideal_full_depth
from benchmarks.serving.bodies import Form
from benchmarks.serving.cell import CapacityRecord, Cell, CellRecord
from benchmarks.serving.journal import Journal
from benchmarks.serving.judge import Outcomes
from benchmarks.serving.plan import Plan
from benchmarks.serving.plots import write_plots
from benchmarks.serving.results import Place, Results
from benchmarks.serving.trace import ArrivalProcess

NUM_ARRIVALS = 1000
ACCURACIES = (0.88, 0.90, 0.92)
PLAN = Plan(
    servers=("anytime", "peer"),
    rhos=(0.5, 2.0),
    seconds=1.0,
    repeats=1,
    closed_seconds=1.0,
    clients=(8,),
    other_deadlines_ms=(),
    has_bursts=True,
    static_seconds=1.0,
    form=Form.NPY,
    max_foreign_share=0.02,
    max_send_lag_ms=1.0,
    max_attempts=3,
)


def outcomes(*, useful: int, late_ms: float) -> Outcomes:
    """Return a run in which the first `useful` arrivals are right and in time, the rest late."""
    is_useful = np.arange(NUM_ARRIVALS) < useful
    return Outcomes(
        deadline_ms=30.0,
        seconds=1.0,
        scheduled_s=np.linspace(0, 1, NUM_ARRIVALS),
        lag_ms=np.zeros(NUM_ARRIVALS),
        latency_ms=np.where(is_useful, 20.0, 30.0 + late_ms),
        statuses=np.full(NUM_ARRIVALS, 200),
        image_indices=np.arange(NUM_ARRIVALS),
        is_right=is_useful,
        exits=np.full(NUM_ARRIVALS, 2),
        own_word=np.ones(NUM_ARRIVALS, dtype=np.int64),
        queue_ms=np.zeros(NUM_ARRIVALS),
        compute_ms=np.zeros(NUM_ARRIVALS),
    )


class WorkFolder:
    """A run's folder, written by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        (path / "cells").mkdir()
        self.capacities = Journal(path / "capacities.jsonl", CapacityRecord)
        self.cells = Journal(path / "cells.jsonl", CellRecord)
        self.add_capacity(None, 1000.0)
        self.add_capacity(0, 3000.0)

    def add_capacity(self, exit_index: int | None, images_per_s: float) -> None:
        self.capacities.append(
            CapacityRecord(
                server="anytime",
                exit_index=exit_index,
                num_clients=8,
                images_per_s=images_per_s,
                foreign_share=0.0,
                settings={},
            )
        )

    def add(
        self,
        server: str,
        rho: float,
        *,
        useful: int,
        late_ms: float = 0.5,
        exit_index: int | None = None,
        process: ArrivalProcess = ArrivalProcess.POISSON,
        foreign_share: float = 0.0,
        attempt: int = 0,
    ) -> None:
        cell = Cell(
            server=server,
            exit_index=exit_index,
            process=process,
            deadline_ms=30.0,
            rho=rho,
            rate_hz=1000 * rho,
            seconds=1.0,
            run_seconds=1.0,
            repeat=0,
        )
        file = f"{cell.key}-{attempt}.npz"
        outcomes(useful=useful, late_ms=late_ms).write(self.path / "cells" / file)
        self.cells.append(
            CellRecord(
                cell=cell,
                attempt=attempt,
                file=file,
                foreign_share=foreign_share,
                send_lag_p99_ms=0.1,
                generator_us=30.0,
                scheduling="real-time",
                resident_bytes=1,
            )
        )

    def results(self) -> Results:
        return Results(self.path, PLAN, ACCURACIES)

    def bar(self, words: str) -> Bar:
        return next(bar for bar in check_bars(self.results()) if words in bar.claim)


@pytest.fixture
def work(tmp_path):
    return WorkFolder(tmp_path)


def test_an_ideal_full_depth_server_loses_what_is_beyond_its_throughput():
    assert ideal_full_depth(0.5, 0.92) == 0.92
    assert ideal_full_depth(2.0, 0.92) == 0.46


def test_what_was_not_measured_is_neither_kept_nor_missed(work):
    assert {bar.is_kept for bar in check_bars(work.results())} == {None}


@pytest.mark.parametrize(("useful", "is_kept"), [(915, True), (900, False)], ids=["kept", "missed"])
def test_light_load_must_keep_99_per_cent_of_the_full_accuracy(work, useful, is_kept):
    work.add("anytime", 0.5, useful=useful)

    assert work.bar("0.99 of the full network").is_kept is is_kept


def test_heavy_load_is_0_8_of_lambda_0_where_that_is_less_than_twice_full_depth(work):
    work.capacities.append(
        CapacityRecord(
            server="peer",
            exit_index=None,
            num_clients=8,
            images_per_s=1600.0,
            foreign_share=0.0,
            settings={},
        )
    )
    work.add("anytime", 1.5, useful=1000)

    assert work.bar("rho = 1.5: at least 99 % in time").is_kept is True


@pytest.mark.parametrize(
    ("theirs", "below", "above"),
    [(800, True, True), (883, True, False), (890, False, False)],
    ids=["worse", "a little better", "better by more than half a point"],
)
def test_a_peer_may_be_half_a_point_better_but_not_under_overload(work, theirs, below, above):
    work.add("anytime", 2.0, useful=880)
    work.add("peer", 2.0, useful=theirs)

    assert work.bar("never more than 0.5 point below peer").is_kept is below
    assert work.bar("above peer from").is_kept is above


def test_the_best_static_exit_is_chosen_in_hindsight_and_compared_in_pairs(work):
    work.add("anytime", 2.0, useful=880)
    work.add("anytime", 2.0, useful=500, exit_index=2)
    work.add("anytime", 2.0, useful=870, exit_index=0)

    bar = work.bar("above our best static exit")

    assert bar.is_kept is True
    assert bar.found.startswith("+1.00")
    assert "exit 0" in bar.found


@pytest.mark.parametrize(
    ("late_ms", "is_kept"), [(4.0, True), (6.0, False)], ids=["kept", "missed"]
)
def test_lateness_under_bursts_is_judged_among_the_answered(work, late_ms, is_kept):
    work.add("anytime", 3.0, useful=500, late_ms=late_ms, process=ArrivalProcess.BURSTY)

    assert work.bar("p99.9 of lateness").is_kept is is_kept


def test_a_noisy_attempt_does_not_count_beside_a_quiet_one(work):
    work.add("anytime", 0.5, useful=100, foreign_share=0.5)
    work.add("anytime", 0.5, useful=900, attempt=1)

    measured = work.results().at(Place("anytime", None, 0.5))

    assert measured.summary.accuracy == 0.9
    assert measured.is_quiet


def test_where_no_attempt_was_quiet_all_count_and_it_is_said(work):
    for attempt, useful in enumerate((100, 300)):
        work.add("anytime", 0.5, useful=useful, foreign_share=0.5, attempt=attempt)

    measured = work.results().at(Place("anytime", None, 0.5))

    assert measured.summary.accuracy == 0.2
    assert not measured.is_quiet


@pytest.mark.slow
def test_pictures_are_drawn_of_whatever_was_measured(work, tmp_path: Any):
    work.add("anytime", 0.5, useful=900)
    work.add("anytime", 2.0, useful=880)
    work.add("peer", 2.0, useful=400)

    pictures = write_plots(work.results(), tmp_path, stem="run")

    assert all(picture.stat().st_size > 10_000 for picture in pictures)
