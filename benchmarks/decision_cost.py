"""What it costs to decide which batch runs next, with 10, 1 000 and 10 000 images waiting.

`python -m benchmarks.decision_cost [--bundle PATH]` profiles the bundle's stages on one thread,
then lets the scheduler hand out batch after batch: of images without an answer, and of images at
all stages whose answers are drawn from the bundle's hold-out set. Whoever leaves is replaced by his
like, so that as many and such wait at every decision. Counted is the CPU time of all that the
scheduler does, joining the queue and giving up included.
Exit status 1 if a decision takes more than 5 % of its batch's compute at 1 000 waiting, or more
than twice as much per image at 10 000 as at 10.
"""

import argparse
import math
import sys
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import thread_time
from typing import Final

import numpy as np

from model_store.gains import GainTable
from model_store.reader import Bundle, open_bundle
from service.backends.base import ModelKey, StageKey
from service.backends.onnx_runtime import OnnxRuntimeBackend
from service.engine.clock import MonotonicClock
from service.engine.member import Kind, Member, Outset
from service.engine.request import ServedModel
from service.engine.scheduler import Dispatch, StageScheduler
from service.engine.stage_costs import StageCosts
from service.engine.warm_up import WarmUp

_BUNDLE: Final = Path("model_store/bundles/cifar10-msdnet/1")
_MODEL: Final = ModelKey("cifar10-msdnet", "1")
_MAX_BATCH: Final = 64
_WAITING: Final = (10, 1_000, 10_000)
_DECISIONS: Final = 2_000
_ROUNDS: Final = 3
_LEAST_PATIENCE_S: Final = 0.03
_LONGEST_S: Final = 0.0075  # a quarter of a deadline of 30 ms
_MAX_COMPUTE_SHARE: Final = 0.05
_MAX_GROWTH: Final = 2.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Means over many decisions."""

    decision_s: float
    batch_s: float  # what the batches were expected to take
    batch_size: float
    given_up: float  # images whose time ran out, for each batch

    @property
    def compute_share(self) -> float:
        """Seconds of deciding for each second of running."""
        return self.decision_s / self.batch_s

    @property
    def per_image_s(self) -> float:
        """Seconds of deciding for each image that runs."""
        return self.decision_s / self.batch_size


def main() -> int:
    """Measure and print as Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decision_cost", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=_BUNDLE)
    bundle = open_bundle(parser.parse_args().bundle)
    stage_costs = _profile(bundle)
    sys.stdout.write("| waiting | µs a decision | images | µs an image | given up | ÷ compute |\n")
    sys.stdout.write("|:--|--:|--:|--:|--:|--:|\n")
    is_met = [_report(bundle, stage_costs, kind) for kind in (Kind.MANDATORY, Kind.OPTIONAL)]
    return 0 if all(is_met) else 1


def _report(bundle: Bundle, stage_costs: StageCosts, kind: Kind) -> bool:
    costs = {num: _cost(bundle, stage_costs, num, kind) for num in _WAITING}
    _print(kind, costs)
    growth = costs[_WAITING[-1]].per_image_s / costs[_WAITING[0]].per_image_s
    compute_share = costs[_WAITING[1]].compute_share
    sys.stdout.write(
        f"| {kind.name.lower()}: ÷ compute at {_WAITING[1]} {compute_share:.3f}, at most "
        f"{_MAX_COMPUTE_SHARE}; µs an image at {_WAITING[-1]} ÷ at {_WAITING[0]} {growth:.2f}, "
        f"at most {_MAX_GROWTH:g} | | | | | |\n"
    )
    return compute_share <= _MAX_COMPUTE_SHARE and growth <= _MAX_GROWTH


def _print(kind: Kind, costs: dict[int, Cost]) -> None:
    for num_waiting, cost in costs.items():
        sys.stdout.write(
            f"| {num_waiting} {kind.name.lower()} | {1e6 * cost.decision_s:.1f} "
            f"| {cost.batch_size:.1f} | {1e6 * cost.per_image_s:.1f} | {cost.given_up:.1f} "
            f"| {cost.compute_share:.3f} |\n"
        )


def _profile(bundle: Bundle) -> StageCosts:
    backend = OnnxRuntimeBackend({_MODEL: bundle}, device="cpu", num_threads=1)
    stage_costs = StageCosts(max_batch=_MAX_BATCH)
    image = bundle.manifest.input
    model = ServedModel(
        key=_MODEL,
        costs=bundle.costs,
        temperatures=tuple(bundle.calibration.temperatures.tolist()),
        border_bytes=bundle.manifest.border_bytes,
        input_shape=(image.channels, image.height, image.width),
    )
    WarmUp(backend, stage_costs, MonotonicClock()).profile(model)
    return stage_costs


def _cost(bundle: Bundle, stage_costs: StageCosts, num_waiting: int, kind: Kind) -> Cost:
    """Return what the quickest of some rounds found; the others were disturbed."""
    rounds = (_Queue(bundle, stage_costs, num_waiting, kind).measure() for _ in range(_ROUNDS))
    return min(rounds, key=lambda cost: cost.decision_s)


class _Queue:
    """A scheduler for which always as many wait. Mutable.

    Args:
        bundle: Whose hold-out images arrive.
        stage_costs: Profiled.
        num_waiting: How many.
        kind: Which.
    """

    def __init__(
        self, bundle: Bundle, stage_costs: StageCosts, num_waiting: int, kind: Kind
    ) -> None:
        gains = GainTable.from_calibration(bundle.calibration)
        self._kind = kind
        self._num_exits = gains.num_exits
        self._confidences = bundle.calibration.confidences()
        self._scheduler = StageScheduler(stage_costs, {_MODEL: gains}, can_join=True)
        self._stages = [StageKey(_MODEL, index) for index in range(self._num_exits)]
        self._random = np.random.default_rng(0)
        self._serials = count()
        # As patient as the queue is long: deadlines nobody can keep would only empty the queue.
        whole_way_s = sum(stage_costs.expected_s(stage, 1, 1) for stage in self._stages)
        self._patience_s = _LEAST_PATIENCE_S + num_waiting * whole_way_s
        self._now = 0.0
        for _ in range(num_waiting):
            self._scheduler.add(self._arrival())

    def measure(self) -> Cost:
        """Hand out batches, replacing whoever leaves, and time the scheduler alone."""
        decision_s = batch_s = 0.0
        num_images = num_given_up = 0
        newcomers: list[Member] = []
        self._decide(newcomers)
        for _ in range(_DECISIONS):
            begun_at = thread_time()
            dispatch = self._decide(newcomers)
            decision_s += thread_time() - begun_at
            batch = dispatch.batch
            if batch is None:
                raise RuntimeError("images wait, and none of them runs")
            given_up = (*dispatch.expired, *dispatch.crowded_out, *dispatch.hopeless)
            self._now += batch.expected_s
            newcomers = [self._like(member) for member in (*batch.members, *given_up)]
            batch_s += batch.expected_s
            num_images += len(batch.members)
            num_given_up += len(given_up)
        return Cost(
            decision_s / _DECISIONS,
            batch_s / _DECISIONS,
            num_images / _DECISIONS,
            num_given_up / _DECISIONS,
        )

    def _decide(self, newcomers: list[Member]) -> Dispatch:
        for member in newcomers:
            self._scheduler.add(member)
        return self._scheduler.next_batch(
            self._now, spare_s=math.inf, idle_lanes=1, longest_optional_s=_LONGEST_S
        )

    def _arrival(self) -> Member:
        if self._kind is Kind.MANDATORY:
            return self._member(self._stages[0], answered_exit=-1, confidence=math.nan)
        stage_index = int(self._random.integers(1, self._num_exits))
        answered_exit = int(self._random.integers(0, stage_index))
        image = self._random.integers(0, len(self._confidences))
        confidence = float(self._confidences[image, answered_exit])
        return self._member(self._stages[stage_index], answered_exit, confidence)

    def _like(self, member: Member) -> Member:
        return self._member(member.stage, member.answered_exit, member.confidence)

    def _member(self, stage: StageKey, answered_exit: int, confidence: float) -> Member:
        # Admission lets nobody in whose first answer the backlog would make late.
        least = 0.5 if self._kind is Kind.MANDATORY else 0.05
        answer_by = self._now + self._patience_s * float(self._random.uniform(least, 1.0))
        member = Member(None, 0, stage, Outset(self._kind, None, answer_by, self._num_exits - 1))
        member.answer_by = member.deadline_at = answer_by
        member.source = next(self._serials)
        member.answered_exit = answered_exit
        member.confidence = confidence
        return member


if __name__ == "__main__":
    sys.exit(main())
