"""Where the images of a window stand: the books every policy keeps, and no decision."""

import math
from collections.abc import Collection, Iterable, Mapping

from model_store.costs import ExitCosts
from model_store.policies.base import ExitStanding, LeaveReason, Step


class Standings:
    """Exit, confidence, reason and charge of each image. Mutable; owned by one window's policy.

    Args:
        costs: Prices of the exits.
        num_images: Images of the window, known by their positions 0, 1, ….
    """

    def __init__(self, costs: ExitCosts, num_images: int) -> None:
        self.costs = costs
        self.num_images = num_images
        self._exit_indices: list[int | None] = [None] * num_images
        self._confidences = [0.0] * num_images
        self._reasons: list[LeaveReason | None] = [None] * num_images
        self._spent_macs = [0] * num_images
        self._running: dict[int, Step] = {}

    @property
    def spent_macs(self) -> int:
        """MACs of every stage and classifier begun, whatever became of them."""
        return sum(self._spent_macs)

    def exits(self) -> tuple[ExitStanding, ...]:
        """Where each image stands, by position."""
        columns = zip(self._exit_indices, self._reasons, self._spent_macs, strict=True)
        return tuple(ExitStanding(*column) for column in columns)

    def begin(self, stage_index: int, images: Iterable[int], *, classify: bool = True) -> Step:
        """Note that images run a stage, and what that costs each of them."""
        step = Step(stage_index, tuple(sorted(images)), classify)
        prices = self.costs.stage_macs if classify else self.costs.trunk_macs
        for image in step.images:
            self._spent_macs[image] += prices[stage_index]
            self._running[image] = step
        return step

    def settle(self, confidences: Mapping[int, float], failed: Collection[int]) -> tuple[int, ...]:
        """Note how the running stages went.

        Returns:
            The images whose stage did not fail, in the order of the steps.

        Raises:
            ValueError: Images that should have reported did not, or others did.
        """
        failed = frozenset(failed)
        self._check_reports(confidences, failed)
        arrived = tuple(image for image in self._running if image not in failed)
        for image in failed:
            self._reasons[image] = LeaveReason.FAILED
        for image, confidence in confidences.items():
            exit_index = self._running[image].stage_index
            self._exit_indices[image] = exit_index
            # A NaN compares with nothing; an image that says nothing is one without confidence.
            self._confidences[image] = 0.0 if math.isnan(confidence) else confidence
            if exit_index == self.costs.num_exits - 1:
                self._reasons[image] = LeaveReason.LAST_EXIT
        self._running = {}
        return arrived

    def leave(self, images: Iterable[int], reason: LeaveReason) -> None:
        """Note why images stop where they stand."""
        for image in images:
            self._reasons[image] = reason

    def confidence(self, image: int) -> float:
        """Confidence of an image at the exit it stands at."""
        return self._confidences[image]

    def in_leaving_order(self, images: Iterable[int]) -> list[int]:
        """Most confident first, then the lower position."""
        return sorted(images, key=lambda image: (-self._confidences[image], image))

    def extensible(self) -> list[tuple[int, int]]:
        """Images that stand at an exit and could take its next stage, each with that exit."""
        last = self.costs.num_exits - 1
        return [
            (image, exit_index)
            for image, exit_index in enumerate(self._exit_indices)
            if exit_index is not None
            and exit_index < last
            and self._reasons[image] is not LeaveReason.FAILED
        ]

    def _check_reports(self, confidences: Mapping[int, float], failed: Collection[int]) -> None:
        expected = {
            image for image, step in self._running.items() if step.classify and image not in failed
        }
        unexpected = {image for image in failed if image not in self._running}
        if confidences.keys() != expected or unexpected:
            wrong = sorted(unexpected.union(expected.symmetric_difference(confidences)))
            raise ValueError(f"the last steps do not agree with what is reported of images {wrong}")
