"""Does `/batch` over HTTP do what the offline figures say, and does it keep its budgets?

`python -m benchmarks.batch_accuracy --data DATA` sends CIFAR-10's test images to a server that it
starts: once for every exit's accuracy, then under ten budgets from M·C_1 to M·D_K, each beside an
offline replay of the same policy on the same graphs. Exit status 1 if anything is off by more than
the README says.
"""

import argparse
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.offline import confidences_by_exit, key_of, logits_by_exit
from benchmarks.server_process import serving
from model_store.policies.choose import PolicyName
from model_store.reader import Bundle, open_bundle
from model_store.replay import replay_batch
from model_store.thresholds import HoldoutConfidences
from model_store.windows import BatchBudget, interleave
from service.backends.onnx_runtime import OnnxRuntimeBackend
from service.settings import Settings
from training.data import load_splits

_NUM_BUDGETS = 10
_EXIT_TOLERANCE = 0.001  # a tenth of a point
_REPLAY_TOLERANCE = 0.003
_BATCH_SIZE = 100
_LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class TestSet:
    """What is sent, and what is right."""

    pixels: NDArray[np.uint8]  # (images, H, W, 3)
    labels: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one budget went, online and offline."""

    budget_macs: int
    spent_macs: int
    cheapest_macs: int | None  # next stage of an image of the last window; None: all at the end
    accuracy: float
    replayed: float

    @property
    def is_right(self) -> bool:
        """Whether the budget was kept and used, and the replay came true."""
        left = self.budget_macs - self.spent_macs
        is_used = self.cheapest_macs is None or left < self.cheapest_macs
        return left >= 0 and is_used and abs(self.accuracy - self.replayed) <= _REPLAY_TOLERANCE


def main() -> int:
    """Run the comparison and print it as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds CIFAR-10")
    parser.add_argument("--bundle", type=Path, default=Path("model_store/bundles/cifar10-msdnet/1"))
    parser.add_argument("--images", type=int, default=10_000)
    options = parser.parse_args()
    bundle = open_bundle(options.bundle)
    test = _test_set(options.data, options.images)
    backend = OnnxRuntimeBackend({key_of(bundle): bundle}, device="cpu", num_threads=2)
    logits = logits_by_exit(backend, bundle, test.pixels, batch_size=_BATCH_SIZE)
    with serving() as server, httpx.Client(base_url=server.url, timeout=_LIMIT_S) as client:
        are_exits_right = _compare_exits(client, test, logits)
        are_budgets_right = _compare_budgets(client, test, bundle, logits)
    return 0 if are_exits_right and are_budgets_right else 1


def _test_set(root: Path, num_images: int) -> TestSet:
    splits = load_splits(
        "cifar10", root, holdout_images=1, image_size=32, seed=0, device=torch.device("cpu")
    )
    chosen = torch.arange(num_images)
    pixels = splits.test.fetch(chosen).permute(0, 2, 3, 1).contiguous().numpy()
    return TestSet(pixels, splits.test.labels[chosen].numpy())


def _compare_exits(client: httpx.Client, test: TestSet, logits: NDArray[np.float32]) -> bool:
    answers = _send(client, test, detail="exits")["results"]
    online = np.array([[e["prediction"]["index"] for e in a["exits"]] for a in answers])
    served = (online == test.labels[:, None]).mean(axis=0)
    offline = (logits.argmax(axis=2) == test.labels[:, None]).mean(axis=0)
    _say("| exit | accuracy over HTTP | offline |", "|--:|--:|--:|")
    for k, (a, b) in enumerate(zip(served, offline, strict=True)):
        _say(f"| {k} | {100 * a:.2f} % | {100 * b:.2f} % |")
    return bool((np.abs(served - offline) <= _EXIT_TOLERANCE).all())


def _compare_budgets(
    client: httpx.Client, test: TestSet, bundle: Bundle, logits: NDArray[np.float32]
) -> bool:
    confidences = confidences_by_exit(bundle, logits)
    is_right = logits.argmax(axis=2) == test.labels[:, None]
    holdout = HoldoutConfidences(bundle.calibration.confidences())
    images, costs = len(test.labels), bundle.costs
    low, high = images * costs.cumulative_macs[0], images * costs.direct_macs[-1]
    outcomes = []
    _say("", "| policy | budget, MACs an image | spent | accuracy | offline replay |")
    _say("|:--|--:|--:|--:|--:|")
    for policy in PolicyName:
        for step in range(_NUM_BUDGETS):
            budget = low + (high - low) * step // (_NUM_BUDGETS - 1)
            batch = BatchBudget(
                costs,
                holdout,
                num_images=images,
                budget_macs=budget,
                policy_name=policy,
                window_size=Settings().batch_window,
            )
            exits = replay_batch(batch, confidences).exit_indices
            replayed = float(is_right[np.arange(images), exits].mean())
            answer = _send(client, test, budget_macs=budget, policy=policy.value)
            outcomes.append(_outcome(answer, test, bundle, budget=budget, replayed=replayed))
            done = outcomes[-1]
            _say(
                f"| {policy.value} | {budget / images / 1e6:.2f} M "
                f"| {100 * done.spent_macs / budget:.3f} % "
                f"| {100 * done.accuracy:.2f} % | {100 * replayed:.2f} % |"
            )
    return all(outcome.is_right for outcome in outcomes)


def _outcome(
    answer: dict[str, Any], test: TestSet, bundle: Bundle, *, budget: int, replayed: float
) -> Outcome:
    results = answer["results"]
    predicted = np.array([r["prediction"]["index"] for r in results])
    last_window = interleave(len(results), Settings().batch_window)[-1]
    stages = bundle.costs.stage_macs
    deeper = [results[i]["exit"]["index"] + 1 for i in last_window]
    return Outcome(
        budget_macs=budget,
        spent_macs=answer["budget"]["spent_macs"],
        cheapest_macs=min((stages[k] for k in deeper if k < len(stages)), default=None),
        accuracy=float((predicted == test.labels).mean()),
        replayed=replayed,
    )


def _send(client: httpx.Client, test: TestSet, **query: str | int) -> dict[str, Any]:
    body = io.BytesIO()
    np.save(body, test.pixels)
    answer = client.post(
        "/batch",
        params=query,
        content=body.getvalue(),
        headers={"content-type": "application/x-npy"},
    )
    answer.raise_for_status()
    return dict(answer.json())


def _say(*lines: str) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
