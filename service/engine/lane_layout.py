"""How many lanes of how many threads suit this machine: measured at start-up, on real stages."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.backends.base import FeatureRows, StageBackend, StageKey
from service.engine.clock import Clock
from service.engine.request import ServedModel
from service.engine.side_by_side import SideBySide

_log = logging.getLogger(__name__)

_CPU: Final = "cpu"
# Two batches in flight: while one computes, the host prepares the other.
_LANES_OF_AN_ACCELERATOR: Final = 2
_IMAGES_PER_CORE: Final = 8  # in flight during the measurement, whatever the layout
_MEASURED_S: Final = 0.15  # a turn, of which each layout has two
# Of the best. Measurements beside a busy neighbour differ by as much, and threads that share one
# stage wait for each other: under load they fall behind more lanes by more than the probe shows.
_AS_GOOD: Final = 0.8
_SEED: Final = 0


@dataclass(frozen=True, slots=True)
class LaneLayout:
    """How the cores are used."""

    num_lanes: int  # batches that run at once
    num_threads: int  # of the runtime, for each of them


@dataclass(frozen=True, slots=True)
class LaidOut:
    """What was chosen, and why."""

    layout: LaneLayout
    backend: StageBackend  # built for it
    images_per_s: Mapping[LaneLayout, float]  # to the last exit; empty: nothing was measured


def layouts_of(
    num_cores: int, *, num_lanes: int | None = None, num_threads: int | None = None
) -> tuple[LaneLayout, ...]:
    """Return the layouts that fill the cores, by falling number of lanes: c × 1, c/2 × 2, … 1 × c.

    Where the operator said one number, the other follows; there is one layout then.

    Args:
        num_cores: At least one; where they do not divide evenly, some stay free.
        num_lanes: As the operator wants it; None where it is not said.
        num_threads: Of one lane, likewise.
    """
    if num_lanes is not None:
        return (LaneLayout(num_lanes, num_threads or max(1, num_cores // num_lanes)),)
    if num_threads is not None:
        return (LaneLayout(max(1, num_cores // num_threads), num_threads),)
    halvings = {1 << exponent for exponent in range(num_cores.bit_length())} | {num_cores}
    return tuple(LaneLayout(num_cores // threads, threads) for threads in sorted(halvings))


def choose_layout(
    build: Callable[[LaneLayout], StageBackend],
    model: ServedModel,
    layouts: Sequence[LaneLayout],
    *,
    clock: Clock,
) -> LaidOut:
    """Build the backend for the layout that runs the most images to the last exit.

    Layouts that are as good count by the order given. On an accelerator nothing is measured: it
    takes two lanes unless there is but one layout to choose from. The choice is logged.

    Args:
        build: Makes a backend for a layout.
        model: To measure with.
        layouts: At least one, the preferred ones first; see `layouts_of`.
        clock: To measure by, in every lane.

    Raises:
        BackendFailed: A backend cannot be built, or a stage does not run.
    """
    layout = layouts[0]
    backend = build(layout)
    if len(layouts) > 1 and backend.device == _CPU:
        return _measured(LaidOut(layout, backend, {}), layouts, build, model, clock=clock)
    if len(layouts) > 1:
        layout = LaneLayout(_LANES_OF_AN_ACCELERATOR, layout.num_threads)
    _log.info(
        "%d lanes of %d threads on %s, not measured",
        *(layout.num_lanes, layout.num_threads, backend.device),
    )
    return LaidOut(layout, backend, {})


def _measured(
    first: LaidOut,
    layouts: Sequence[LaneLayout],
    build: Callable[[LaneLayout], StageBackend],
    model: ServedModel,
    *,
    clock: Clock,
) -> LaidOut:
    backends = {first.layout: first.backend}
    backends.update((layout, build(layout)) for layout in layouts[1:])
    images_per_s = dict.fromkeys(layouts, 0.0)
    # In turns, and the best turn counts: what other processes do meanwhile only ever slows.
    for layout in (*layouts, *layouts):
        found = _images_per_s(backends[layout], model, layout, clock)
        images_per_s[layout] = max(images_per_s[layout], found)
    enough = _AS_GOOD * max(images_per_s.values())
    layout = next(layout for layout in layouts if images_per_s[layout] >= enough)
    backend = backends.pop(layout)
    for slower in backends.values():
        slower.close()
    _log.info(
        "%d lanes of %d threads on %s; full-depth images/s: %s",
        *(layout.num_lanes, layout.num_threads, backend.device),
        ", ".join(f"{x.num_lanes}x{x.num_threads} {n:.0f}" for x, n in images_per_s.items()),
    )
    return LaidOut(layout, backend, images_per_s)


def _images_per_s(
    backend: StageBackend, model: ServedModel, layout: LaneLayout, clock: Clock
) -> float:
    """Return the images that all lanes together run to the last exit in a second."""
    size = _IMAGES_PER_CORE * layout.num_threads
    noise = np.random.default_rng(_SEED)
    pixels = noise.standard_normal((size, *model.input_shape), dtype=np.float32)

    def lane() -> float:
        _run_through(backend, model, pixels)  # pays for memory and is not counted
        begun_at, num_passes, elapsed_s = clock.now(), 0, 0.0
        while elapsed_s < _MEASURED_S:
            _run_through(backend, model, pixels)
            num_passes += 1
            elapsed_s = clock.now() - begun_at
        return num_passes * size / elapsed_s

    with SideBySide(layout.num_lanes) as lanes:
        return sum(lanes.run(lane))


def _run_through(backend: StageBackend, model: ServedModel, pixels: NDArray[np.float32]) -> None:
    rows = tuple(range(len(pixels)))
    features, last = backend.put(model.key, pixels), model.costs.num_exits - 1
    for stage_index in range(last + 1):
        classify = rows if stage_index == last else ()
        ticket = backend.submit(
            StageKey(model.key, stage_index), [FeatureRows(features, rows)], classify=classify
        )
        features = ticket.result().features
