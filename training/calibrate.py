"""From a trained network to what its confidences rest on: hold-out logits and temperatures."""

from pathlib import Path
from typing import Final

import torch

from model_store.calibration import Calibration
from training.data import ImageSet
from training.evaluate import Record, Reliability, reliability
from training.inference import run_over
from training.trained import RunMismatch, TrainedNetwork

CALIBRATION_FILE: Final = "calibration.npz"  # in a run's folder
CALIBRATION_RECORD_FILE: Final = "calibration.json"


class CalibratedExit(Record):
    """What a temperature does to images it was not fitted on."""

    before: Reliability  # at temperature 1
    after: Reliability


class CalibrationRecord(Record):
    """Which weights a calibration belongs to, and what came of it."""

    step: int  # steps behind the weights
    data_digest: str
    exits: tuple[CalibratedExit, ...]


def calibrate(
    trained: TrainedNetwork, holdout: ImageSet, *, device: torch.device, seed: int
) -> Calibration:
    """Run the hold-out images through every exit, in full precision, and fit temperatures.

    Args:
        trained: Where `device` says.
        holdout: Images that training never saw; not varied.
        device: Where to run.
        seed: Fixes which images temperatures are fitted on.
    """
    logits = run_over(trained.network, holdout, trained.recipe.data, device=device)
    return Calibration.build(logits, holdout.labels.cpu().numpy(), seed)


def write_calibration(
    run: Path, calibration: Calibration, trained: TrainedNetwork
) -> CalibrationRecord:
    """Write a run's calibration, and beside it which weights it belongs to."""
    record = CalibrationRecord(
        step=trained.step, data_digest=trained.data_digest, exits=judge(calibration)
    )
    calibration.write(run / CALIBRATION_FILE)
    (run / CALIBRATION_RECORD_FILE).write_text(record.model_dump_json(indent=2), encoding="utf-8")
    return record


def read_calibration(run: Path, trained: TrainedNetwork) -> Calibration | None:
    """Return a run's calibration, None where it has none.

    Raises:
        RunMismatch: The network was trained on since it was calibrated.
    """
    path = run / CALIBRATION_RECORD_FILE
    if not path.is_file():
        return None
    record = CalibrationRecord.model_validate_json(path.read_text(encoding="utf-8"))
    if (record.step, record.data_digest) != (trained.step, trained.data_digest):
        raise RunMismatch(
            f"{run} was calibrated after step {record.step}, its network is at step "
            f"{trained.step}: calibrate again"
        )
    return Calibration.read(run / CALIBRATION_FILE)


def judge(calibration: Calibration) -> tuple[CalibratedExit, ...]:
    """Measure each exit before and after, on the images its temperature was not fitted on."""
    certifying = ~calibration.is_fitting
    labels = calibration.labels[certifying]
    logits = calibration.logits[certifying].astype("float32")
    return tuple(
        CalibratedExit(
            before=reliability(logits[:, k], labels, 1.0),
            after=reliability(logits[:, k], labels, float(temperature)),
        )
        for k, temperature in enumerate(calibration.temperatures)
    )
