import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.costs import ExitCosts
from service.backends.base import ModelKey
from service.backends.fake import FakeBackend, FakeModel, StageCall
from service.engine.cores import usable_cores
from service.engine.lane_layout import LaidOut, LaneLayout, choose_layout, layouts_of
from service.engine.request import ServedModel
from service.errors import BackendFailed

KEY = ModelKey("fake", "1")
COSTS = ExitCosts(trunk_macs=(100, 200), classifier_macs=(10, 20))
MODEL = ServedModel(KEY, COSTS, (1.0, 1.0), 8, (3, 2, 2))


class LaneClock:
    """Goes on for each thread by what its own stages are scripted to take."""

    def __init__(self) -> None:
        self._local = threading.local()

    def now(self) -> float:
        return getattr(self._local, "instant", 0.0)

    def advance(self, seconds: float) -> None:
        self._local.instant = self.now() + seconds


class Machine:
    """Builds backends on which an image takes one stage so long as the layout says."""

    def __init__(self, image_s: dict[int, float], *, device: str = "cpu") -> None:
        self.clock = LaneClock()
        self.built: dict[int, FakeBackend] = {}
        self._image_s = image_s  # by number of threads
        self._device = device

    def build(self, layout: LaneLayout) -> FakeBackend:
        num_threads = layout.num_threads

        def take_time(call: StageCall) -> None:
            self.clock.advance(len(call.images) * self._image_s[num_threads])

        backend = FakeBackend({KEY: FakeModel((0.5,) * 2)}, hooks=(take_time,))
        backend.device = self._device
        self.built[num_threads] = backend
        return backend

    def choose(self, *layouts: LaneLayout) -> LaidOut:
        return choose_layout(self.build, MODEL, layouts, clock=self.clock)


TWO_LANES, ONE_LANE = LaneLayout(2, 1), LaneLayout(1, 2)


@pytest.mark.parametrize(
    ("num_cores", "expected"),
    [
        (1, ["1x1"]),
        (2, ["2x1", "1x2"]),
        (6, ["6x1", "3x2", "1x4", "1x6"]),
        (8, ["8x1", "4x2", "2x4", "1x8"]),
    ],
)
def test_layouts_fill_the_cores_with_ever_fewer_lanes(num_cores, expected):
    assert [f"{x.num_lanes}x{x.num_threads}" for x in layouts_of(num_cores)] == expected


def test_what_the_operator_says_leaves_no_choice():
    assert layouts_of(8, num_lanes=3) == (LaneLayout(3, 2),)
    assert layouts_of(8, num_threads=3) == (LaneLayout(2, 3),)
    assert layouts_of(2, num_lanes=4, num_threads=5) == (LaneLayout(4, 5),)
    assert layouts_of(1, num_lanes=4) == (LaneLayout(4, 1),)
    assert layouts_of(1, num_threads=4) == (LaneLayout(1, 4),)


@given(num_cores=st.integers(1, 256))
def test_no_layout_wants_more_cores_than_there_are(num_cores):
    layouts = layouts_of(num_cores)

    assert all(0 < x.num_lanes * x.num_threads <= num_cores for x in layouts)
    assert layouts[0].num_lanes == layouts[-1].num_threads == num_cores


@pytest.mark.parametrize(
    ("image_s", "chosen"),
    [
        ({1: 0.001, 2: 0.0008}, TWO_LANES),
        ({1: 0.001, 2: 0.0003}, ONE_LANE),
        ({1: 0.001, 2: 0.00049}, TWO_LANES),
    ],
    ids=["more lanes are faster", "more threads are faster", "a tie goes to more lanes"],
)
def test_layout_that_runs_the_most_images_is_chosen(image_s, chosen):
    machine = Machine(image_s)

    laid_out = machine.choose(TWO_LANES, ONE_LANE)

    assert laid_out.layout == chosen
    assert laid_out.backend is machine.built[chosen.num_threads]
    assert laid_out.images_per_s == {
        TWO_LANES: pytest.approx(2 / (2 * image_s[1])),
        ONE_LANE: pytest.approx(1 / (2 * image_s[2])),
    }


@pytest.mark.parametrize("image_s", [{1: 0.001, 2: 0.0008}, {1: 0.001, 2: 0.0003}])
def test_backend_that_lost_is_closed_and_the_other_is_not(image_s):
    machine = Machine(image_s)

    laid_out = machine.choose(TWO_LANES, ONE_LANE)

    assert {backend.is_closed for backend in machine.built.values()} == {True, False}
    assert not machine.built[laid_out.layout.num_threads].is_closed


def test_where_there_is_no_choice_nothing_is_measured():
    machine = Machine({3: 0.001})

    laid_out = machine.choose(LaneLayout(5, 3))

    assert laid_out.layout == LaneLayout(5, 3)
    assert laid_out.images_per_s == {}
    assert not machine.built[3].calls


def test_accelerator_has_two_batches_in_flight_unmeasured():
    machine = Machine({1: 0.001}, device="cuda:0")

    laid_out = machine.choose(LaneLayout(16, 1), LaneLayout(8, 2))

    assert laid_out.layout == LaneLayout(2, 1)
    assert not machine.built[1].calls


def test_accelerator_has_as_many_as_the_operator_says():
    machine = Machine({1: 0.001}, device="cuda:0")

    assert machine.choose(LaneLayout(3, 1)).layout == LaneLayout(3, 1)


def test_choice_and_measurements_are_logged(caplog):
    with caplog.at_level("INFO"):
        Machine({1: 0.001, 2: 0.001}).choose(TWO_LANES, ONE_LANE)

    assert caplog.messages == [
        "2 lanes of 1 threads on cpu; full-depth images/s: 2x1 1000, 1x2 500"
    ]


def test_stage_that_does_not_run_is_told():
    def build(num_threads):
        def fail(call):
            raise BackendFailed("out of memory")

        return FakeBackend({KEY: FakeModel((0.5,) * 2)}, hooks=(fail,))

    with pytest.raises(BackendFailed, match="out of memory"):
        choose_layout(build, MODEL, layouts_of(2), clock=LaneClock())


@pytest.fixture
def groups(tmp_path):
    """Write the files that tell a process its groups and their quotas."""

    def write(own, **limits_by_file):
        for path, text in {"proc/self/cgroup": own, **limits_by_file}.items():
            file = Path(tmp_path, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="ascii")
        return tmp_path

    return write


UNIFIED, FIRST = "sys/fs/cgroup", "sys/fs/cgroup/cpu,cpuacct"


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ("0::/\n", {f"{UNIFIED}/cpu.max": "100000 100000\n"}),
        ("0::/a/b\n", {f"{UNIFIED}/a/b/cpu.max": "max 100000\n", f"{UNIFIED}/a/cpu.max": "50 50"}),
        ("0::/a\n", {f"{UNIFIED}/a/cpu.max": "20000 100000\n"}),
        (
            "5:cpu,cpuacct:/a\n4:memory:/\n",
            {f"{FIRST}/a/cpu.cfs_quota_us": "100000\n", f"{FIRST}/a/cpu.cfs_period_us": "100000\n"},
        ),
    ],
    ids=["own group", "group around it", "part of a core", "first version"],
)
def test_quota_of_one_core_leaves_one(groups, own, limits):
    assert usable_cores(groups(own, **limits)) == 1


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ("0::/\n", {}),
        ("0::/\n", {f"{UNIFIED}/cpu.max": "max 100000\n"}),
        ("0::/\n", {f"{UNIFIED}/cpu.max": "9000000 100\n"}),
        (
            "5:cpu,cpuacct:/\n",
            {f"{FIRST}/cpu.cfs_quota_us": "-1\n", f"{FIRST}/cpu.cfs_period_us": "100000\n"},
        ),
    ],
    ids=["unreadable", "none", "more than there are", "none in the first version"],
)
def test_without_a_quota_all_cores_of_the_affinity_count(groups, tmp_path, own, limits):
    unlimited = usable_cores(tmp_path / "nowhere")

    assert usable_cores(groups(own, **limits)) == unlimited
