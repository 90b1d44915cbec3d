"""What a bundle remembers of its making: recipe, data, versions and what was measured."""

import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Final

from pydantic import JsonValue

from model_store.manifest import Provenance
from training.evaluate import Evaluation
from training.trained import TrainedNetwork

_PACKAGES: Final = ("numpy", "onnx", "onnxscript", "torch")  # that weights and graphs depend on


def provenance_of(trained: TrainedNetwork, evaluation: Evaluation | None) -> Provenance:
    """Return where a run's weights come from.

    Args:
        trained: The run.
        evaluation: Of the same weights, if they were evaluated.
    """
    return Provenance(
        recipe=trained.recipe.model_dump(mode="json"),
        data_digest=trained.data_digest,
        seed=trained.recipe.seed,
        versions={"python": platform.python_version(), **{p: version(p) for p in _PACKAGES}},
        results={
            "training_steps": trained.step,
            "training_minutes": round(trained.elapsed_s / 60, 1),
            **({} if evaluation is None else _measured(evaluation)),
        },
        created_at=datetime.now(UTC),
        note=None if evaluation is None else evaluation.note,
    )


def _measured(evaluation: Evaluation) -> dict[str, JsonValue]:
    """Return the exits' measures by name, each a list by exit: shares in [0, 1], NLL in nats."""
    believed = [e.raw if e.calibrated is None else e.calibrated for e in evaluation.exits]
    return {
        "test_images": evaluation.num_images,
        "test_accuracy": [e.accuracy for e in evaluation.exits],
        "test_nll": [b.nll for b in believed],
        "test_ece": [b.ece for b in believed],
    }
