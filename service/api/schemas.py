"""Answers as they are on the wire, for the OpenAPI schema and for tests.

Answers are written by `answers` and `batch_answers` without these models, whose validation would
cost more than some networks' first stage; tests hold the two together.
"""

from pydantic import BaseModel, ConfigDict, Field


class WireModel(BaseModel):
    """Part of an answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelName(WireModel):
    """Which version of which model answered."""

    name: str
    version: str


class Prediction(WireModel):
    """One class and how sure the model is of it."""

    index: int = Field(ge=0)
    label: str
    confidence: float = Field(ge=0, le=1, description="Calibrated softmax probability.")


class ExitTaken(WireModel):
    """Where the answer came from."""

    index: int = Field(ge=0, description="Counts from 0.")
    count: int = Field(ge=1, description="Number of exits of the model.")
    reason: str = Field(
        description="`confident`, `deadline`, `budget`, `max_exit`, `rank`, `failed`, `last_exit`; "
        "more may be added."
    )


class Cost(WireModel):
    """What was executed for the image."""

    macs: int = Field(ge=0, description="Multiply-accumulates of every stage and classifier begun.")
    flops: int = Field(ge=0, description="2 · macs.")
    share_of_full: float = Field(ge=0, description="macs ÷ cumulative MACs of the last exit.")


class Deadline(WireModel):
    """How the deadline turned out, just before the answer was written down."""

    requested_ms: float = Field(ge=0)
    met: bool
    remaining_ms: float = Field(description="Negative once past it.")


class TimingMs(WireModel):
    """Where the time from arrival to answer went, in milliseconds."""

    total: float = Field(ge=0)
    receive: float = Field(ge=0)
    decode: float = Field(ge=0)
    queue: float = Field(ge=0, description="Whatever is none of the others.")
    compute: float = Field(ge=0, description="Wall time of the stage batches it was in.")


class PassedExit(WireModel):
    """What one exit on the way said."""

    index: int = Field(ge=0)
    prediction: Prediction
    macs: int = Field(ge=0, description="cumulative_macs of this exit.")


class ClassifyResponse(WireModel):
    """The answer for one image."""

    model: ModelName
    prediction: Prediction
    top_k: list[Prediction] | None = Field(
        None, description="Most likely first; absent if top_k=0."
    )
    exit: ExitTaken
    cost: Cost
    deadline: Deadline | None = Field(description="null when none was asked.")
    timing_ms: TimingMs
    exits: list[PassedExit] | None = Field(None, description="With `detail=exits`.")


class PlannedBudget(WireModel):
    """What a budget is to buy, by equation (3)."""

    policy: str = Field(description="`geometric`, `topk`, or `none` where nothing bounds it.")
    regime: str = Field(description="`constrained`, `generous` or `unconstrained`.")
    bound_by: str = Field(description="`budget`, `deadline` or `none`.")
    requested_macs: int | None
    planned_macs: int
    requested_flops: int | None
    planned_flops: int
    q: float | None = Field(description="1 − ratio; null where unconstrained.")
    ratio: float | None = Field(ge=0, description="r of q_k ∝ r^(k−1); null where unconstrained.")
    exit_shares: list[float]
    thresholds: list[float | None] = Field(description="By exit; null: nobody leaves there.")
    windows: int = Field(ge=1)


class Budget(PlannedBudget):
    """What a budget was to buy, and what it bought."""

    spent_macs: int
    spent_flops: int
    exit_counts: list[int]


class ImageProblem(WireModel):
    """Why one image of a batch has no answer."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str
    title: str
    status: int
    detail: str


class BatchResult(WireModel):
    """What became of one image: an answer or an error."""

    index: int = Field(ge=0, description="Position among the images sent.")
    filename: str | None = Field(None, description="Absent where images have no names.")
    prediction: Prediction | None = None
    top_k: list[Prediction] | None = None
    exit: ExitTaken | None = None
    cost: Cost
    exits: list[PassedExit] | None = Field(None, description="With `detail=exits`.")
    error: ImageProblem | None = None


class BatchResponse(WireModel):
    """The answers for a batch."""

    model: ModelName
    budget: Budget
    deadline: Deadline | None
    skipped: int = Field(ge=0, description="Archive members that are no images.")
    results: list[BatchResult]
    timing_ms: TimingMs


class PlanResponse(PlannedBudget):
    """What a budget would buy."""

    model: ModelName
    images: int = Field(ge=1)
    expected_accuracy: float = Field(ge=0, le=1, description="Cross-fitted on the hold-out set.")
    expected_macs: float = Field(ge=0, description="Of all images together.")
    minimum_macs: int = Field(ge=0, description="images · cumulative MACs of exit 0.")
    maximum_macs: int = Field(ge=0, description="images · direct MACs of the last exit.")


class ServedName(WireModel):
    """A name, and which of its versions answers when none is named."""

    name: str
    versions: list[str]
    default_version: str


class ModelsResponse(WireModel):
    """All that is served."""

    models: list[ServedName]


class ImageInput(WireModel):
    """The size images are scaled and cropped to."""

    height: int
    width: int
    channels: int


class ExitDescription(WireModel):
    """What one exit costs and is worth."""

    index: int
    cumulative_macs: int = Field(description="With every classifier on the way.")
    direct_macs: int = Field(description="With its own classifier alone.")
    holdout_accuracy: float = Field(ge=0, le=1)
    latency_ms: dict[str, float] = Field(description="By batch size, straight to this exit.")


class ModelResponse(ServedName):
    """One served model."""

    version: str
    labels: list[str]
    input: ImageInput
    backend: str
    device: str
    exits: list[ExitDescription]


class LiveResponse(WireModel):
    """The process answers."""

    live: bool


class ReadyResponse(WireModel):
    """Whether requests should be sent here."""

    ready: bool
    live: bool
    models: list[str] = Field(description="`name@version` of all that is served.")


class ProblemResponse(WireModel):
    """RFC 9457 problem; members beyond these depend on its type."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(description="`/problems/<slug>`", examples=["/problems/invalid-parameter"])
    title: str
    status: int
    detail: str
