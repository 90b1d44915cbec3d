"""What the API asks of the service and what it gets back, in seconds, integers and domain nouns.

Wire forms (milliseconds, JSON, query strings) are in `service.api`; these are what remains of a
request once its parameters have been understood, and of an answer before it is written down.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from model_store.budget import Regime
from model_store.costs import ExitCosts
from model_store.policies.choose import PolicyName
from service.backends.base import ModelKey
from service.engine.request import Answer
from service.errors import ServiceError
from service.uploads import BatchUpload, Upload

# Named tuples where elsewhere there are dataclasses: one of each is made for every image, and they
# are made in a third of the time.


class ClassifyCommand(NamedTuple):
    """One image to classify, and the limits it is classified within."""

    arrived_at: float  # monotonic, already put back by what the event loop and a proxy held it up
    received_s: float  # from `arrived_at` until the whole body was here
    upload: Upload
    model: str | None  # "name" or "name@version"; None: the default model
    deadline_s: float | None  # from `arrived_at`
    budget_macs: int | None
    min_confidence: float | None
    min_exit: int
    max_exit: int | None  # None: the last
    top_k: int  # not yet clamped to the number of classes
    detail: bool  # every exit passed is reported, so every classifier on the way runs
    held_up_s: float = 0.0  # of `received_s`, before the application was called


@dataclass(frozen=True, slots=True)
class ClassifyAnnounced:
    """What is known of a request for one image while the image is still on its way."""

    arrived_at: float  # monotonic, as a command's
    held_up_s: float
    model: str | None
    deadline_s: float | None  # from `arrived_at`
    min_exit: int


@dataclass(frozen=True, slots=True)
class BatchCommand:
    """Images to classify under one budget, and one deadline."""

    arrived_at: float
    received_s: float
    upload: BatchUpload
    model: str | None
    deadline_s: float | None  # for the whole batch, from `arrived_at`
    budget_macs: int | None  # for all images together
    policy: PolicyName
    top_k: int
    detail: bool
    held_up_s: float = 0.0  # of `received_s`, before the application was called


@dataclass(frozen=True, slots=True)
class PlanCommand:
    """A budget to be explained without spending it."""

    images: int  # M >= 1
    budget_macs: int | None  # for all images together
    policy: PolicyName
    model: str | None


class Timing(NamedTuple):
    """Where the time between arrival and the answer went; the parts add up to the total."""

    total_s: float
    receive_s: float
    decode_s: float
    queue_s: float  # whatever is none of the others
    compute_s: float  # wall time of the stage batches it was in


class DeadlineReport(NamedTuple):
    """How an asked-for deadline turned out, judged just before the answer is written down."""

    requested_s: float
    remaining_s: float  # negative once past it


class Classified(NamedTuple):
    """The answer for one image, with all that explains it."""

    model: ModelKey
    labels: tuple[str, ...]
    answer: Answer
    temperatures: tuple[float, ...]  # by exit
    costs: ExitCosts
    spent_macs: int  # every stage and classifier begun for it
    deadline: DeadlineReport | None  # None: none was asked
    timing: Timing
    answer_by: float | None = None  # the deadline, an instant, less its margin


@dataclass(frozen=True, slots=True)
class BatchImage:
    """What became of one image of a batch: an answer or an error, never both."""

    index: int  # position among the images sent
    filename: str | None
    answer: Answer | None
    error: ServiceError | None
    spent_macs: int


class BoundBy(StrEnum):
    """What made the effective budget of a batch."""

    BUDGET = "budget"
    DEADLINE = "deadline"
    NONE = "none"  # nothing binds


@dataclass(frozen=True, slots=True)
class BudgetOutlook:
    """What a budget is to buy, by equation (3)."""

    policy: PolicyName | None  # None: neither budget nor deadline bounds it
    regime: Regime
    bound_by: BoundBy
    requested_macs: int | None
    planned_macs: int
    q: float | None  # None where unconstrained, as `ratio`
    ratio: float | None
    exit_shares: tuple[float, ...]
    thresholds: tuple[float | None, ...]  # None: nobody leaves there; the last is 0
    windows: int


@dataclass(frozen=True, slots=True)
class BudgetReport(BudgetOutlook):
    """What a budget was to buy, and what was bought."""

    spent_macs: int
    exit_counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class BatchDone:
    """The answers for a batch, with all that explains them."""

    model: ModelKey
    labels: tuple[str, ...]
    temperatures: tuple[float, ...]
    costs: ExitCosts
    budget: BudgetReport
    deadline: DeadlineReport | None
    skipped: int  # archive members that are no images: directories, hidden files, __MACOSX
    images: tuple[BatchImage, ...]  # by index
    timing: Timing


@dataclass(frozen=True, slots=True)
class PlanDone:
    """What a budget would buy, judged on the hold-out set."""

    model: ModelKey
    images: int
    budget: BudgetOutlook
    expected_accuracy: float
    expected_macs: float  # of all images together
    minimum_macs: int  # M · C_1
    maximum_macs: int  # M · D_K


@dataclass(frozen=True, slots=True)
class ModelVersions:
    """One served name, and which of its versions answers when none is named."""

    name: str
    versions: tuple[str, ...]
    default_version: str


@dataclass(frozen=True, slots=True)
class ExitInfo:
    """What one exit costs and is worth."""

    index: int
    cumulative_macs: int  # C_k
    direct_macs: int  # D_k
    holdout_accuracy: float
    latency_s_by_batch_size: Mapping[int, float]  # straight to this exit, no earlier classifier


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One served model, as its callers need to know it."""

    key: ModelKey
    siblings: ModelVersions  # all versions of the same name, this one included
    labels: tuple[str, ...]
    height: int
    width: int
    channels: int
    backend: str
    device: str
    exits: tuple[ExitInfo, ...]
