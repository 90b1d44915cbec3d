"""A trained network, opened from the folder of its run: what is evaluated, calibrated, exported."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from model_store.costs import ExitCosts
from training.checkpoint import Checkpoint
from training.models.msdnet.cost import classifier_costs, trunk_costs
from training.models.msdnet.network import MSDNet
from training.models.msdnet.shape import MSDNetShape
from training.recipe import Recipe


class RunMismatch(ValueError):
    """Two things do not belong together: a network, its data, its calibration."""


@dataclass(frozen=True, slots=True)
class TrainedNetwork:
    """The network a run has come to, in evaluation mode, and what it was made from."""

    recipe: Recipe
    network: MSDNet
    class_names: tuple[str, ...]
    data_digest: str
    step: int  # steps behind its weights
    elapsed_s: float  # wall clock behind them

    @classmethod
    def open(cls, run: Path, device: torch.device | str = "cpu") -> Self:
        """Open a run.

        Raises:
            FileNotFoundError: The run has no checkpoint.
            pydantic.ValidationError: Its recipe does not fit the schema any more.
        """
        saved = Checkpoint.read(run, device)
        recipe = Recipe.model_validate(saved.recipe)
        network = MSDNet(recipe.network.shape(saved.num_classes)).to(device)
        network.load_state_dict(saved.weights)
        network.eval()
        names = tuple(saved.class_names)
        return cls(recipe, network, names, saved.data_digest, saved.step, saved.elapsed_s)

    def check_data(self, digest: str) -> None:
        """Refuse data that the network was not trained on: their hold-out may hold its lessons.

        Raises:
            RunMismatch: The digests differ.
        """
        if digest != self.data_digest:
            raise RunMismatch(f"trained on data {self.data_digest}, these are {digest}")

    @property
    def costs(self) -> ExitCosts:
        """Price of every exit, in MACs of one image."""
        return exit_costs(self.network.shape)


def exit_costs(shape: MSDNetShape) -> ExitCosts:
    """Return the price of every exit, in MACs of one image, lazily evaluated."""
    return ExitCosts(
        trunk_macs=tuple(cost.macs for cost in trunk_costs(shape)),
        classifier_macs=tuple(cost.macs for cost in classifier_costs(shape)),
    )
