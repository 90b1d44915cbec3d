"""What each exit of a network costs in multiply-accumulates; all budget arithmetic starts here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Self


@dataclass(frozen=True, slots=True)
class ExitCosts:
    """Prices of one image at the exits of one network, exact integers, exit index from 0.

    Raises:
        ValueError: There is no exit, the two tuples differ in length, a trunk costs nothing, or a
            classifier costs less than nothing.
    """

    trunk_macs: tuple[int, ...]  # each stage alone, without its classifier
    classifier_macs: tuple[int, ...]  # the classifier at the end of each stage

    stage_macs: tuple[int, ...] = field(init=False)  # trunk and classifier of each stage
    cumulative_macs: tuple[int, ...] = field(init=False)  # C_k: every classifier up to exit k runs
    direct_macs: tuple[int, ...] = field(init=False)  # D_k: of the classifiers only the k-th runs

    def __post_init__(self) -> None:
        if not self.trunk_macs or len(self.trunk_macs) != len(self.classifier_macs):
            raise ValueError(
                f"{len(self.trunk_macs)} trunks and {len(self.classifier_macs)} classifiers: "
                "each exit needs one of both"
            )
        if min(self.trunk_macs) <= 0 or min(self.classifier_macs) < 0:
            raise ValueError(
                f"trunks must cost MACs and classifiers not less than none: "
                f"{self.trunk_macs}, {self.classifier_macs}"
            )
        pairs = list(zip(self.trunk_macs, self.classifier_macs, strict=True))
        stages = tuple(trunk + classifier for trunk, classifier in pairs)
        trunks_so_far = accumulate(self.trunk_macs)
        direct = tuple(
            trunks + classifier
            for trunks, classifier in zip(trunks_so_far, self.classifier_macs, strict=True)
        )
        object.__setattr__(self, "stage_macs", stages)
        object.__setattr__(self, "cumulative_macs", tuple(accumulate(stages)))
        object.__setattr__(self, "direct_macs", direct)

    @classmethod
    def from_cumulative(cls, cumulative_macs: Sequence[int]) -> Self:
        """Price a network of which only C_k is known: its classifiers count as free, D_k = C_k.

        Args:
            cumulative_macs: C_1 < … < C_K, positive.

        Raises:
            ValueError: They do not rise, or the first is not positive.
        """
        trunks = [later - earlier for earlier, later in pairwise([0, *cumulative_macs])]
        return cls(tuple(trunks), (0,) * len(trunks))

    @property
    def num_exits(self) -> int:
        """K, at least 1."""
        return len(self.trunk_macs)

    def full_depth_macs(self, *, every_classifier: bool) -> int:
        """Price of the last exit: C_K where every classifier on the way runs, else D_K."""
        return self.cumulative_macs[-1] if every_classifier else self.direct_macs[-1]
