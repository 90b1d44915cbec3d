"""How large the slot of one image is, whichever of the served models it is for."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from service.models import Model


@dataclass(frozen=True, slots=True)
class SlotForm:
    """How large the parts of a slot are."""

    num_exits: int
    num_classes: int
    num_values: int  # float32 of one image's pixels

    @classmethod
    def of(cls, model: Model) -> Self:
        """Return that of a slot for one model alone."""
        channels, height, width = model.served.input_shape
        return cls(
            model.served.costs.num_exits,
            len(model.bundle.manifest.labels),
            channels * height * width,
        )

    @classmethod
    def for_all(cls, models: Iterable[Model]) -> Self:
        """Return that of a slot which any of some models fits into."""
        forms = [cls.of(model) for model in models]
        return cls(
            max(form.num_exits for form in forms),
            max(form.num_classes for form in forms),
            max(form.num_values for form in forms),
        )
