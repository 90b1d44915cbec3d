import asyncio
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import model_store
from benchmarks.overheads.call_log import CallLog, calls_between
from benchmarks.overheads.cheapest_loop import layouts
from benchmarks.overheads.comparison import Round, Summary
from benchmarks.overheads.minimal_server import Batcher
from benchmarks.overheads.recording_backend import RecordingBackend
from benchmarks.overheads.replay import cpu_seconds, plan
from benchmarks.serving.fastest_stages import Layout
from benchmarks.stage_graphs import StageGraphs, open_stages
from model_store.reader import open_bundle
from service.backends.base import FeatureRows, ModelKey, StageKey
from service.backends.fake import FakeBackend, FakeModel, numbered_images
from service.backends.onnx_graph import ORT_ERRORS

BUNDLE = Path(model_store.__file__).parent / "bundles/cifar10-msdnet/1"
MODEL = ModelKey("m", "1")


@pytest.fixture
def stages() -> list[StageGraphs]:
    return open_stages(open_bundle(BUNDLE), num_threads=1, num_rows=4)


def test_calls_of_a_period_come_back_in_order(tmp_path: Path):
    log = CallLog(tmp_path / "calls", capacity=8)
    for began_at in (3.0, 1.0, 2.0, 4.0):
        log.add(began_at, 7, 0, 1, 0, 1)

    calls = calls_between(tmp_path / "calls", 1.5, 4.0)

    assert calls["began_at"].tolist() == [2.0, 3.0]


def test_what_was_never_written_belongs_to_no_period(tmp_path: Path):
    CallLog(tmp_path / "calls", capacity=8).add(5.0, 7, 0, 1, 0, 1)

    assert len(calls_between(tmp_path / "calls", 1.0, 9.0)) == 1


def test_the_oldest_calls_are_forgotten_first(tmp_path: Path):
    log = CallLog(tmp_path / "calls", capacity=2)
    for began_at in (1.0, 2.0, 3.0):
        log.add(began_at, 7, 0, 1, 0, 1)

    assert calls_between(tmp_path / "calls", 0.5, 9.0)["began_at"].tolist() == [2.0, 3.0]


def test_a_recorded_backend_answers_as_before_and_takes_down_what_it_was_asked(tmp_path: Path):
    backend = FakeBackend({MODEL: FakeModel(confidences=(0.5, 0.9))})
    recorded = RecordingBackend(backend, CallLog(tmp_path / "calls", capacity=8), num_threads=2)
    before = time.monotonic()

    handle = recorded.put(MODEL, numbered_images([3, 4, 5]))
    parts = [FeatureRows(handle, (0,)), FeatureRows(handle, (1, 2))]
    output = recorded.submit(StageKey(MODEL, 0), parts, classify=(1, 2)).result()

    (call,) = calls_between(tmp_path / "calls", before, time.monotonic() + 1)
    assert output.logits.argmax(axis=1).tolist() == [4, 5]
    assert call.tolist()[1:] == (threading.get_ident(), 0, 3, 2, 2)


def test_closing_a_recorded_backend_closes_the_one_inside(tmp_path: Path):
    backend = FakeBackend({MODEL: FakeModel(confidences=(0.5,))})

    RecordingBackend(backend, CallLog(tmp_path / "calls", capacity=8), num_threads=1).close()

    assert backend.is_closed


def test_a_replay_runs_each_lane_s_own_calls_at_their_size(
    tmp_path: Path, stages: list[StageGraphs]
):
    log = CallLog(tmp_path / "calls", capacity=8)
    log.add(1.0, 7, 0, 4, 0, 1)
    log.add(2.0, 8, 6, 2, 1, 1)
    log.add(3.0, 7, 1, 3, 3, 1)

    first, second = plan(calls_between(tmp_path / "calls", 0.5, 9.0), stages)

    assert [graph.session for graph in first] == [
        stages[0].trunk.session,
        stages[1].trunk.session,
        stages[1].classifier.session,
    ]
    assert [{len(rows) for rows in graph.feeds.values()} for graph in first] == [{4}, {3}, {3}]
    assert [{len(rows) for rows in graph.feeds.values()} for graph in second] == [{2}, {1}]


def test_a_longer_sequence_takes_more_processor_time(stages: list[StageGraphs]):
    lane = [stage.trunk for stage in stages]

    assert 0 < cpu_seconds([lane]) < cpu_seconds([20 * lane])


def test_a_replay_that_fails_says_so_and_does_not_hang(stages: list[StageGraphs]):
    broken = stages[1].classifier
    broken.feeds["unheard_of"] = np.zeros((1, 1), dtype=np.float32)

    with pytest.raises(ORT_ERRORS, match="unheard_of"):
        cpu_seconds([[broken], [stages[0].trunk]])


def test_bare_loops_are_tried_alone_and_on_all_cores():
    assert layouts(2) == [
        Layout(lanes=1, threads=1),
        Layout(lanes=2, threads=1),
        Layout(lanes=1, threads=2),
    ]


def test_a_summary_is_the_medians_of_its_rounds_and_the_worst_of_the_neighbours():
    rounds = [
        Round(images=100, seconds=1.0, server_cpu_s=cpu_s, bare_cpu_s=0.1, foreign_share=share)
        for cpu_s, share in ((0.12, 0.0), (0.15, 0.5), (0.3, 0.1))
    ]

    found = Summary.of(rounds)

    assert found.ratio == pytest.approx(1.5)
    assert found.beyond_us == pytest.approx(500)
    assert found.foreign_share == 0.5


async def test_a_minimal_server_gathers_what_waits_and_answers_each_its_own():
    sizes: list[int] = []

    async def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        sizes.append(len(pixels))
        return pixels.reshape(len(pixels), -1)[:, :1].astype(np.float32)

    batcher = Batcher(run)
    serving = asyncio.create_task(batcher.serve())
    images = [np.full((2, 2, 3), number, dtype=np.uint8) for number in range(10)]

    answers = await asyncio.gather(*(batcher.classify(image) for image in images))
    serving.cancel()

    assert [int(answer[0]) for answer in answers] == list(range(10))
    assert sizes == [8, 2]
