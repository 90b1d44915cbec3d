"""Stages in processes of their own: the same numbers, and what becomes of processes."""

import gc
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.reader import Bundle
from service.backends.base import (
    FeatureHandle,
    FeatureRows,
    ModelKey,
    StageBackend,
    StageKey,
    StageLane,
)
from service.backends.onnx_runtime import OnnxRuntimeBackend
from service.backends.processes.backend import LaneProcesses, LaneProcessOptions
from service.errors import BackendFailed

KEY = ModelKey("toy", "1")
PATIENCE_S = 20.0  # for what must happen; only a failure takes so long

MakeLanes = Callable[[], LaneProcesses]


def images(num_images: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(num_images)
    return generator.standard_normal((num_images, 3, 4, 4), dtype=np.float32)


def whole(handle: FeatureHandle) -> FeatureRows:
    return FeatureRows(handle, tuple(range(handle.num_rows)))


def build(bundle: Bundle, num_processes: int = 1) -> LaneProcesses:
    options = LaneProcessOptions(num_processes, max_feature_bytes=2**23)
    return LaneProcesses({KEY: bundle}, options)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process's main thread has started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(child) for child in children.split()]


def opened() -> Counter[str]:
    """Return what descriptors of this process are open on: sockets, pipes and memory."""
    links = list(Path("/proc/self/fd").iterdir())
    return Counter(str(link.readlink()) for link in links if link.is_symlink())


def can_be_read(fd: int, within_s: float = PATIENCE_S) -> bool:
    return bool(select.select([fd], [], [], within_s)[0])


def revive(lane: StageLane) -> None:
    lane.revive()
    assert can_be_read(lane.fileno())
    lane.take_up()


def answer(lane: StageLane) -> NDArray[np.float32]:
    features = lane.put(KEY, images(2))
    return lane.submit(StageKey(KEY, 0), [whole(features)], classify=(0, 1)).result().logits


@pytest.fixture
def in_process(toy_bundles: Mapping[str, Bundle]) -> Iterator[StageBackend]:
    backend = OnnxRuntimeBackend({KEY: toy_bundles["onnx"]}, device="cpu", num_threads=1)
    yield backend
    backend.close()


@pytest.fixture
def backend(toy_bundles: Mapping[str, Bundle], others: set[int]) -> Iterator[LaneProcesses]:
    """One lane, for this test alone; started after those of `others`."""
    made = build(toy_bundles["onnx"])
    yield made
    made.close()


@pytest.fixture
def child(backend: LaneProcesses, others: set[int]) -> int:
    """The process of that lane."""
    (pid,) = set(children_of(os.getpid())) - others
    return pid


@pytest.fixture
def others(lane_processes: MakeLanes) -> set[int]:
    """Processes that other tests may have started."""
    lane_processes()
    return set(children_of(os.getpid()))


def regrouped(backend: StageBackend) -> list[NDArray[np.float32]]:
    """Return logits of stages over joined handles, picked rows and some classified rows."""
    inputs = images(6)
    left, right = backend.put(KEY, inputs[:4]), backend.put(KEY, inputs[4:])
    first = backend.submit(StageKey(KEY, 0), [whole(left), whole(right)], classify=(5, 0))
    one = first.result()
    alone = backend.submit(StageKey(KEY, 0), [FeatureRows(right, (1,))], classify=())
    another = alone.result()
    parts = [FeatureRows(one.features, (3, 1)), whole(another.features), whole(one.features)]
    second = backend.submit(StageKey(KEY, 1), parts, classify=(2, 3, 8)).result()
    picked = [FeatureRows(second.features, (2, 3, 4))]
    third = backend.submit(StageKey(KEY, 2), picked, classify=(1,)).result()
    return [one.logits, another.logits, second.logits, third.logits]


def test_logits_are_those_of_the_runtime_in_one_process(
    in_process: StageBackend, lane_processes: MakeLanes
):
    found = regrouped(lane_processes())

    for logits, expected in zip(found, regrouped(in_process), strict=True):
        np.testing.assert_array_equal(logits, expected)


def test_each_lane_reads_what_another_left(in_process: StageBackend, lane_processes: MakeLanes):
    one, another = lane_processes().lanes
    inputs = images(3)
    features = one.submit(StageKey(KEY, 0), [whole(one.put(KEY, inputs))], classify=()).result()

    ticket = another.submit(StageKey(KEY, 1), [whole(features.features)], classify=(0, 2))

    assert can_be_read(another.fileno())
    before = in_process.submit(
        StageKey(KEY, 0), [whole(in_process.put(KEY, inputs))], classify=()
    ).result()
    expected = in_process.submit(
        StageKey(KEY, 1), [whole(before.features)], classify=(0, 2)
    ).result()
    np.testing.assert_array_equal(ticket.result().logits, expected.logits)


def fill(backend: StageBackend) -> list[FeatureHandle]:
    """Put images until there is no room for more."""
    held: list[FeatureHandle] = []
    try:
        while True:
            held.append(backend.put(KEY, images(5000)))
    except BackendFailed:
        return held


def test_memory_is_free_again_once_handles_are_gone(lane_processes: MakeLanes):
    backend = lane_processes()
    held = fill(backend)
    num_held = len(held)
    assert num_held > 0
    held.clear()
    answer(backend.lanes[0])

    assert len(fill(backend)) == num_held


def test_a_batch_beyond_all_measure_fails_and_the_lane_goes_on(lane_processes: MakeLanes):
    (lane, _) = lane_processes().lanes
    handle = lane.put(KEY, images(17_000))
    backwards = FeatureRows(handle, tuple(reversed(range(17_000))))

    with pytest.raises(BackendFailed, match="bytes to describe"):
        lane.submit(StageKey(KEY, 0), [backwards], classify=())

    assert len(answer(lane)) == 2


def test_a_lane_whose_process_dies_fails_its_batch_and_computes_again_once_revived(
    backend: LaneProcesses, child: int
):
    (lane,) = backend.lanes
    before = answer(lane)
    features = lane.put(KEY, images(2))
    os.kill(child, signal.SIGSTOP)
    ticket = lane.submit(StageKey(KEY, 0), [whole(features)], classify=(0, 1))
    os.kill(child, signal.SIGKILL)

    with pytest.raises(BackendFailed, match="lane process 0 ended with status -9"):
        ticket.result()
    assert lane.fileno() == -1
    with pytest.raises(BackendFailed, match="is gone"):
        answer(lane)

    revive(lane)

    again = lane.submit(StageKey(KEY, 0), [whole(features)], classify=(0, 1)).result()
    np.testing.assert_array_equal(again.logits, before)


def test_an_idle_lane_whose_process_dies_can_be_heard_and_is_revived(
    backend: LaneProcesses, child: int
):
    (lane,) = backend.lanes
    before = answer(lane)
    os.kill(child, signal.SIGKILL)
    assert can_be_read(lane.fileno())

    revive(lane)

    np.testing.assert_array_equal(answer(lane), before)


def test_a_lane_takes_nothing_before_it_is_taken_up(backend: LaneProcesses):
    (lane,) = backend.lanes
    lane.revive()

    with pytest.raises(BackendFailed, match="is gone"):
        answer(lane)

    assert can_be_read(lane.fileno())
    lane.take_up()
    assert len(answer(lane)) == 2


def test_a_process_that_dies_while_it_starts_is_told_and_can_be_started_again(
    backend: LaneProcesses, others: set[int]
):
    (lane,) = backend.lanes
    lane.revive()
    (pid,) = set(children_of(os.getpid())) - others
    os.kill(pid, signal.SIGKILL)

    with pytest.raises(BackendFailed, match="cannot run: lane process 0 ended with status -9"):
        lane.take_up()
    assert lane.fileno() == -1
    with pytest.raises(BackendFailed, match="is gone"):
        lane.take_up()

    revive(lane)
    assert len(answer(lane)) == 2


def test_a_bundle_damaged_after_it_was_opened_is_named_and_no_process_is_left(
    write_onnx_toy: Callable[..., Bundle], others: set[int]
):
    bundle = write_onnx_toy()
    graph = bundle.file("graphs/t1.onnx")
    graph.chmod(0o644)
    graph.write_bytes(b"damaged")

    with pytest.raises(BackendFailed, match=r"lane process 0 cannot run: .*t1\.onnx"):
        build(bundle, num_processes=2)

    assert set(children_of(os.getpid())) == others


def test_a_graph_that_is_not_what_the_manifest_says_is_named(write_onnx_toy: Callable[..., Bundle]):
    bundle = write_onnx_toy(t1="(float[N,4,4,4] s0_a) => (float[N,6,4,4] x) {x = Unheard(s0_a)}")

    with pytest.raises(BackendFailed, match=r"t1\.onnx: cannot"):
        build(bundle)


def test_a_bundle_for_another_runtime_is_refused(toy_bundles: Mapping[str, Bundle]):
    with pytest.raises(BackendFailed, match="lane process 0 cannot run"):
        build(toy_bundles["torchscript"])


def test_nothing_is_left_of_a_backend_that_was_closed(
    toy_bundles: Mapping[str, Bundle], others: set[int]
):
    gc.collect()
    open_before = opened()
    backend = build(toy_bundles["onnx"], num_processes=2)
    lane = backend.lanes[0]
    assert len(answer(lane)) == 2

    backend.close()
    backend.close()

    assert set(children_of(os.getpid())) == others
    with pytest.raises(BackendFailed, match="was let go"):
        lane.revive()
    assert lane.fileno() == -1
    del backend, lane
    gc.collect()
    assert opened() <= open_before


def test_a_process_that_the_system_does_not_start_is_told_and_leaves_nothing_open(
    backend: LaneProcesses, monkeypatch: pytest.MonkeyPatch
):
    (lane,) = backend.lanes
    with monkeypatch.context() as changed:
        changed.setattr(sys, "executable", "/nowhere/python")
        with pytest.raises(BackendFailed, match=r"lane process 0 cannot be started: .*nowhere"):
            lane.revive()
        open_before = opened()
        with pytest.raises(BackendFailed, match="cannot be started"):
            lane.revive()

    assert opened() <= open_before
    assert lane.fileno() == -1
    revive(lane)
    assert len(answer(lane)) == 2


def test_a_stage_that_runs_while_the_backend_is_closed_has_failed(
    backend: LaneProcesses, child: int
):
    (lane,) = backend.lanes
    os.kill(child, signal.SIGSTOP)
    features = lane.put(KEY, images(1))
    ticket = lane.submit(StageKey(KEY, 0), [whole(features)], classify=())

    backend.close()

    with pytest.raises(BackendFailed, match="is gone"):
        ticket.result()


def test_processes_end_with_a_parent_that_is_killed(toy_bundles: Mapping[str, Bundle]):
    script = """
import sys
from pathlib import Path
from model_store.reader import open_bundle
from service.backends.base import ModelKey
from service.backends.processes.backend import LaneProcesses, LaneProcessOptions

bundles = {ModelKey("toy", "1"): open_bundle(Path(sys.argv[1]))}
backend = LaneProcesses(bundles, LaneProcessOptions(2, max_feature_bytes=2**20))
print("ready", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(toy_bundles["onnx"].path)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        children = [os.pidfd_open(pid) for pid in children_of(parent.pid)]
        parent.kill()

    assert len(children) == 2
    for pidfd in children:
        assert can_be_read(pidfd)
        os.close(pidfd)
