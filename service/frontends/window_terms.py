"""A window of a batch as plain values, from which another process makes the same policy again.

Policies are pure: fed with the same confidences they ask for the same steps. So the engine process
follows its own, and the front end's follows afterwards what the answers say, for its books.
"""

from collections.abc import Mapping, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict

from model_store.budget import plan_budget
from model_store.policies.base import Step, WindowPolicy
from model_store.policies.choose import PolicyName, start_window
from service.engine.door import WindowRun
from service.engine.request import ExitRecord, ImageOutcome
from service.models import Model


class WindowTerms(BaseModel):
    """What a window is run by: its policy's plan, and its times."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy_name: PolicyName
    num_images: int
    budget_macs: int | None
    every_classifier: bool
    arrived_at: float  # the request
    due_at: float  # the deadline, or the soft one of images without
    deadline_at: float | None  # when the answers must be there
    share_ends_at: float | None  # when no more than its share of a batch's time is left
    margin_s: float  # how long before that it must have its answers

    @classmethod
    def of(cls, run: WindowRun) -> Self:
        """Return those of a window that is to run."""
        plan = run.window.plan
        return cls(
            policy_name=run.policy_name,
            num_images=plan.num_images,
            budget_macs=plan.budget_macs,
            every_classifier=plan.every_classifier,
            arrived_at=run.arrived_at,
            due_at=run.due_at,
            deadline_at=run.deadline_at,
            share_ends_at=run.share_ends_at,
            margin_s=run.margin_s,
        )

    def start(self, model: Model) -> WindowPolicy:
        """Return the window's policy, not begun."""
        costs = model.served.costs
        plan = plan_budget(
            costs, self.num_images, self.budget_macs, every_classifier=self.every_classifier
        )
        return start_window(self.policy_name, plan, costs, model.holdout)


def follow(policy: WindowPolicy, outcomes: Sequence[ImageOutcome]) -> None:
    """Lead a policy that was not begun the way that led to these outcomes.

    Where they end, because of a deadline or a failure, it is left: what it charged stays charged.

    Args:
        policy: Afterwards it has spent what the one that really ran had.
        outcomes: Of its images, in order.
    """
    said = [
        {} if outcome.answer is None else {r.exit_index: r for r in outcome.answer.passed}
        for outcome in outcomes
    ]
    steps = policy.advance({})
    while steps:
        known = _confidences(steps, said)
        if known is None:
            return
        steps = policy.advance(known)


def _confidences(
    steps: Sequence[Step], said: Sequence[Mapping[int, ExitRecord]]
) -> dict[int, float] | None:
    """Return what the steps' classifiers said; None where one said nothing."""
    known: dict[int, float] = {}
    for step in steps:
        if not step.classify:
            continue
        for image in step.images:
            record = said[image].get(step.stage_index)
            if record is None:
                return None
            known[image] = record.confidence
    return known
