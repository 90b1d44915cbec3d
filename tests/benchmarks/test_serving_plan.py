from typing import Any

import pytest

from benchmarks.serving.bodies import Form
from benchmarks.serving.capacity import by_exit, yardstick
from benchmarks.serving.cell import CapacityRecord, Cell, CellRecord
from benchmarks.serving.journal import Journal, JournalMismatch, check_same_run
from benchmarks.serving.plan import Plan, left_to_do, main_cells, own_cells, with_sustainable
from benchmarks.serving.statics import by_promise, next_to_run, promise
from benchmarks.serving.trace import ArrivalProcess

RHOS = (0.5, 2.0)


def make_plan(**about: Any) -> Plan:
    given: dict[str, Any] = {
        "servers": ("anytime", "peer", "other"),
        "rhos": RHOS,
        "seconds": 20.0,
        "repeats": 3,
        "closed_seconds": 3.0,
        "clients": (8, 32),
        "other_deadlines_ms": (15.0, 100.0),
        "has_bursts": True,
        "static_seconds": 10.0,
        "form": Form.NPY,
        "max_foreign_share": 0.02,
        "max_send_lag_ms": 1.0,
        "max_attempts": 3,
    }
    return Plan(**given | about)


def make_cell(**about: Any) -> Cell:
    given: dict[str, Any] = {
        "server": "anytime",
        "exit_index": None,
        "process": ArrivalProcess.POISSON,
        "deadline_ms": 30.0,
        "rho": 1.0,
        "rate_hz": 1000.0,
        "seconds": 20.0,
        "run_seconds": 20.0,
        "repeat": 0,
    }
    return Cell(**given | about)


def make_record(
    *, foreign_share: float = 0.0, send_lag_p99_ms: float = 0.1, **about: Any
) -> CellRecord:
    return CellRecord(
        cell=make_cell(**about),
        attempt=0,
        file="cell.npz",
        foreign_share=foreign_share,
        send_lag_p99_ms=send_lag_p99_ms,
        generator_us=30.0,
        scheduling="real-time",
        resident_bytes=1,
    )


def make_capacity(
    images_per_s: float,
    *,
    server: str = "anytime",
    exit_index: int | None = None,
    num_clients: int = 8,
) -> CapacityRecord:
    return CapacityRecord(
        server=server,
        exit_index=exit_index,
        num_clients=num_clients,
        images_per_s=images_per_s,
        foreign_share=0.0,
        settings={},
    )


def test_every_server_runs_every_load_on_the_same_traces():
    cells = main_cells(make_plan(), RHOS, reference_hz=1000)

    traces = {name: {c.load for c in cells if c.server == name} for name in make_plan().servers}

    assert len(cells) == 3 * 2 * 3
    assert traces["anytime"] == traces["peer"] == traces["other"]
    assert len({cell.key for cell in cells}) == len(cells)


def test_servers_take_turns_and_none_is_always_first():
    cells = main_cells(make_plan(), RHOS, reference_hz=1000)
    rounds = [cells[i : i + 3] for i in range(0, len(cells), 3)]

    assert all(len({cell.load for cell in of_one}) == 1 for of_one in rounds)
    assert {of_one[0].server for of_one in rounds} == {"anytime", "peer", "other"}


def test_other_deadlines_are_tried_on_a_trace_of_the_main_grid():
    main = main_cells(make_plan(), RHOS, reference_hz=1000)
    own = own_cells(make_plan(), reference_hz=1000)
    poisson = [cell for cell in own if cell.process is ArrivalProcess.POISSON]

    assert len(own) == 2 * 3
    assert {cell.load for cell in poisson} <= {cell.load for cell in main}


@pytest.mark.parametrize(
    ("lambda_0", "expected"),
    [(1500.0, [0.5, 1.2, 2.0]), (5000.0, [0.5, 2.0])],
    ids=["sustains less than twice full depth", "sustains more"],
)
def test_the_sustainable_load_joins_the_grid_where_it_is_below_twice_full_depth(lambda_0, expected):
    assert with_sustainable(RHOS, reference_hz=1000, lambda_0=lambda_0) == expected


def test_what_is_done_is_not_done_again():
    first, second = make_cell(repeat=0), make_cell(repeat=1)

    assert left_to_do([first, second], [first]) == [second]


def test_a_journal_is_read_back_and_forgets_a_line_cut_off_by_a_crash(tmp_path):
    path = tmp_path / "cells.jsonl"
    journal = Journal(path, CellRecord)
    journal.append(make_record(repeat=0))
    with path.open("a") as file:
        file.write('{"cell": {"serv')

    journal.append(make_record(repeat=1))

    assert [record.cell.repeat for record in journal.read()] == [0, 1]


def test_a_folder_of_another_run_is_refused(tmp_path):
    path = tmp_path / "plan.json"
    check_same_run(path, make_plan())
    check_same_run(path, make_plan())

    with pytest.raises(JournalMismatch):
        check_same_run(path, make_plan(seconds=5.0))


@pytest.mark.parametrize(
    ("about", "is_quiet"),
    [({}, True), ({"foreign_share": 0.03}, False), ({"send_lag_p99_ms": 1.2}, False)],
    ids=["quiet", "neighbours", "generator late"],
)
def test_a_run_counts_only_if_neither_neighbours_nor_the_generator_had_a_part(about, is_quiet):
    assert make_record(**about).is_quiet(0.02, 1.0) is is_quiet


def test_the_yardstick_is_the_best_full_depth_of_any_server_and_ours_at_exit_0():
    rates = yardstick(
        [
            make_capacity(900.0),
            make_capacity(1100.0, server="peer", num_clients=64),
            make_capacity(5000.0, server="peer", exit_index=0),
            make_capacity(3000.0, exit_index=0),
        ],
        num_exits=7,
    )

    assert (rates.reference_hz, rates.reference_server, rates.lambda_0) == (1100.0, "peer", 3000.0)


def test_full_depth_without_an_exit_asked_for_is_the_last_exit():
    records = [make_capacity(900.0), make_capacity(950.0, num_clients=32)]
    shallow = make_capacity(3000.0, exit_index=0)

    assert by_exit([*records, shallow], "anytime", num_exits=7) == {6: 950.0, 0: 3000.0}


def test_an_exit_promises_its_accuracy_up_to_its_capacity_and_a_share_beyond():
    assert promise(0.9, 1000, 500) == 0.9
    assert promise(0.9, 1000, 2100) == pytest.approx(0.45)


def test_light_loads_promise_most_to_the_deepest_exit_and_heavy_ones_to_the_first():
    accuracies, capacities = (0.88, 0.90, 0.92), {0: 3000.0, 1: 1500.0, 2: 1000.0}

    assert by_promise(accuracies, capacities, 500)[0] == 2
    assert by_promise(accuracies, capacities, 2500)[0] == 0


def test_an_exit_whose_promise_is_below_what_was_measured_is_not_run():
    promises = {0: 0.88, 1: 0.70, 2: 0.50}

    assert next_to_run([0, 1, 2], {}, promises) == 0
    assert next_to_run([0, 1, 2], {0: 0.6}, promises) == 1
    assert next_to_run([0, 1, 2], {0: 0.87}, promises) is None


def test_a_run_without_repetitions_keeps_to_the_time_it_may_take():
    full = make_plan(rhos=(0.5, 0.8, 1.0, 1.5, 2.0, 3.0), clients=(8, 16, 32, 64, 128))

    assert full.estimated_s(num_exits=7) <= 50 * 60
