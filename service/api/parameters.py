"""The query parameters of every route: names, units, limits and defaults, as clients read them."""

from typing import Annotated, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from model_store.policies.choose import PolicyName
from service.api.query import decimal, digits

_MOST_MACS: Final = 2**63 - 1  # more is a mistake, and no float of it is exact enough to plan with

Integer = Annotated[int, Field(ge=0), BeforeValidator(digits)]
Macs = Annotated[int, Field(ge=0, le=_MOST_MACS), BeforeValidator(digits)]
Count = Annotated[int, Field(ge=1, le=10**9), BeforeValidator(digits)]
Number = Annotated[float, Field(ge=0, allow_inf_nan=False), BeforeValidator(decimal)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(decimal)]
Policy = Annotated[
    PolicyName,
    # Inline, so that the schema stands by itself wherever the parameter is described.
    WithJsonSchema({"type": "string", "enum": [policy.value for policy in PolicyName]}),
]
Detail: TypeAlias = Literal["exits"]

_DEADLINE = "Milliseconds from the arrival of the request within which it is to be answered."
_FLOPS = "The same in FLOPs: 1 MAC = 2 FLOPs, halved rounding down. Never both."
_MODEL = "`name` (its default version) or `name@version`; absent: the default model."
_TOP_K = "Classes returned for each image, clamped to the number of classes; 0 omits the list."


class QueryModel(BaseModel):
    """Parameters of one route."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class BudgetedQuery(QueryModel):
    """A budget, in whichever unit it is given."""

    budget_macs: Macs | None = Field(None, description="Most multiply-accumulates to spend.")
    budget_flops: Macs | None = Field(None, description=_FLOPS)

    @model_validator(mode="after")
    def _refuse_two_units(self) -> Self:
        if self.budget_macs is not None and self.budget_flops is not None:
            raise ValueError("budget_flops contradicts budget_macs: give one of them")
        return self

    @property
    def macs(self) -> int | None:
        """The budget in MACs; None where there is none."""
        return self.budget_macs if self.budget_flops is None else self.budget_flops // 2


class ModelQuery(QueryModel):
    """Which version of a model."""

    version: str | None = Field(
        None, min_length=1, max_length=64, description="Version; absent: the default version."
    )


class NoQuery(QueryModel):
    """No parameter at all."""


class ClassifyQuery(BudgetedQuery):
    """Limits on one image."""

    budget_macs: Macs | None = Field(
        None,
        description="Hard cap for this image, in multiply-accumulates. Alone it buys the deepest "
        "exit with `direct_macs` within it; with `deadline_ms`, `min_confidence` or `detail`, "
        "`cumulative_macs` is the price judged.",
    )
    deadline_ms: Number | None = Field(
        None, description=f"{_DEADLINE} The deepest exit that fits answers."
    )
    min_confidence: Fraction | None = Field(
        None, description="Stop at the first exit at least this confident, in [0, 1]."
    )
    min_exit: Integer = Field(
        0, description="Never answer from an earlier exit; they count from 0."
    )
    max_exit: Integer | None = Field(
        None, description="Never go to a later exit; absent: the last."
    )
    top_k: Integer = Field(5, description=_TOP_K)
    detail: Detail | None = Field(
        None,
        description="`exits`: adds the answer of every exit passed, whose classifiers all run.",
    )
    model: str | None = Field(None, min_length=1, max_length=200, description=_MODEL)

    @model_validator(mode="after")
    def _refuse_empty_range(self) -> Self:
        if self.max_exit is not None and self.min_exit > self.max_exit:
            raise ValueError("min_exit contradicts max_exit: it is beyond it")
        return self


class BatchQuery(BudgetedQuery):
    """Limits on many images together."""

    budget_macs: Macs | None = Field(
        None,
        description="Hard cap for all images of the batch together, in multiply-accumulates; "
        "absent: full depth.",
    )
    policy: Policy = Field(
        PolicyName.GEOMETRIC, description="How the budget is shared out among the images."
    )
    deadline_ms: Number | None = Field(
        None, description=f"{_DEADLINE} The effective budget is the smaller of both."
    )
    top_k: Integer = Field(1, description=_TOP_K)
    detail: Detail | None = Field(
        None, description="`exits`: adds the answers of every exit that each image passed."
    )
    model: str | None = Field(None, min_length=1, max_length=200, description=_MODEL)


class PlanQuery(BudgetedQuery):
    """A budget, and the images it is for."""

    images: Count = Field(description="Number of images, M.")
    budget_macs: Macs | None = Field(
        None, description="For all images together, in multiply-accumulates; absent: full depth."
    )
    policy: Policy = Field(
        PolicyName.GEOMETRIC, description="How the budget is shared out among the images."
    )
    model: str | None = Field(None, min_length=1, max_length=200, description=_MODEL)
