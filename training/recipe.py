"""The typed form of `recipes/*.toml`: everything that fixes how a model is trained."""

import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from training.models.msdnet.shape import MSDNetShape, Stem

Share = Annotated[float, Field(ge=0, le=1)]


class RecipeModel(BaseModel):
    """Frozen, and nothing unnoticed: a misspelt key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(RecipeModel):
    """An MSDNet's size; `training.models.msdnet.shape` says what the numbers mean."""

    stem: Stem
    image_size: PositiveInt
    seed_units: PositiveInt
    growth_units: PositiveInt
    width_factors: tuple[PositiveInt, ...]
    bottleneck_factors: tuple[PositiveInt, ...]
    exit_layers: tuple[PositiveInt, ...]
    classifier_channels: PositiveInt | None = None
    reduction: Share = 0.5

    def shape(self, num_classes: int) -> MSDNetShape:
        """Return the shape for a number of classes, which the data decide."""
        return MSDNetShape(num_classes=num_classes, **dict(self))


class Data(RecipeModel):
    """What is learnt from, and how it is varied."""

    dataset: Literal["cifar10", "cifar100", "folder"]
    holdout_images: PositiveInt = 5000  # of the training images, kept for calibration
    padding: Annotated[int, Field(ge=0)] = 4  # pixels on each side before the random crop
    mean: tuple[float, float, float]  # per channel, of pixels in [0, 1]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class Muon(RecipeModel):
    """Orthogonalised momentum for convolutions; see `training.muon`."""

    rate: PositiveFloat = 0.12
    momentum: Share = 0.6
    decay: Annotated[float, Field(ge=0)] = 5e-4  # decoupled: weights shrink by rate · decay a step


class SGD(RecipeModel):
    """Nesterov momentum: for all parameters, or for those that Muon leaves."""

    rate: PositiveFloat
    momentum: Share = 0.9
    decay: Annotated[float, Field(ge=0)] = 5e-4  # L2, on weights only


class BudgetWeights(RecipeModel):
    """Exits weigh what a budget makes them likely to answer; see `training.exit_weights`."""

    macs_per_image: PositiveInt  # of equation (2) and (3): B / M


class StepSchedule(RecipeModel):
    """The paper's: the rate falls tenfold at given shares of the training."""

    kind: Literal["steps"]
    drops_at: tuple[Share, ...] = (0.5, 0.75)
    factor: PositiveFloat = 0.1


class CosineSchedule(RecipeModel):
    """Linear warm-up, then half a cosine down to nothing."""

    kind: Literal["cosine"]
    warm_up: Share = 0.15  # share of the training


class Recipe(RecipeModel):
    """One trained model, whole."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    network: Network
    data: Data
    sgd: SGD
    muon: Muon | None = None
    schedule: Annotated[StepSchedule | CosineSchedule, Field(discriminator="kind")]
    batch_size: PositiveInt = 128  # over all processes together
    epochs: PositiveInt | None = None  # exactly one of these two
    minutes: PositiveFloat | None = None  # of wall clock, resumed runs added up
    # None: 1 for every exit, as in the paper.
    exit_weights: tuple[float, ...] | BudgetWeights | None = None
    label_smoothing: Share = 0.0
    ema_decay: Share | None = None  # None: the last weights are kept
    bf16: bool = True
    compiled: bool = True
    seed: int = 0

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.epochs is None) == (self.minutes is None):
            raise ValueError("a recipe says either epochs or minutes")
        weights, exits = self.exit_weights, self.network.exit_layers
        if isinstance(weights, tuple) and len(weights) != len(exits):
            raise ValueError(f"{len(weights)} exit weights for {len(exits)} exits")
        return self


def load_recipe(name_or_path: str) -> Recipe:
    """Return a bundled recipe by its name, or any by its path.

    Raises:
        FileNotFoundError: There is no such recipe; the message names those there are.
        pydantic.ValidationError: The file does not fit the schema.
    """
    path = Path(name_or_path)
    if path.suffix == ".toml" and path.is_file():
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    bundled = {p.name.removesuffix(".toml"): p for p in _bundled_recipes()}
    if name_or_path not in bundled:
        raise FileNotFoundError(f"no recipe {name_or_path!r}; there are {sorted(bundled)}")
    return Recipe.model_validate(tomllib.loads(bundled[name_or_path].read_text(encoding="utf-8")))


def _bundled_recipes() -> list[Path]:
    folder = files("training") / "recipes"
    return [Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".toml")]
