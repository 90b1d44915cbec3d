"""What every backend must refuse, and how it says so."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from service.backends.base import FeatureHandle, FeatureRows, ModelKey, StageKey
from service.errors import BackendFailed


@dataclass(frozen=True, slots=True)
class ForeignHandle:
    """Features that no backend left."""

    num_rows: int = 1
    feature_bytes: int = 0


def whole(handle: FeatureHandle) -> FeatureRows:
    return FeatureRows(handle, tuple(range(handle.num_rows)))


@pytest.mark.parametrize("stage_index", [-1, 3])
def test_an_unknown_stage_is_a_failed_ticket(subject, stage_index: int):
    features = subject.put(subject.images(1))

    ticket = subject.backend.submit(
        StageKey(subject.key, stage_index), [whole(features)], classify=()
    )

    with pytest.raises(BackendFailed, match="stages 0 to 2"):
        ticket.result()


@pytest.mark.parametrize("key", [ModelKey("toy", "2"), ModelKey("other", "1")])
def test_an_unknown_model_is_refused(subject, key: ModelKey):
    features = subject.put(subject.images(1))

    ticket = subject.backend.submit(StageKey(key, 0), [whole(features)], classify=())

    with pytest.raises(BackendFailed, match=f"no model {key.name}@{key.version}"):
        ticket.result()
    with pytest.raises(BackendFailed, match=f"no model {key.name}@{key.version}"):
        subject.backend.put(key, subject.images(1))


def test_features_of_another_border_are_refused(subject):
    features = subject.put(subject.images(1))

    with pytest.raises(BackendFailed, match="features are for stage 0"):
        subject.run(1, [whole(features)])


def test_a_foreign_handle_is_refused(subject):
    with pytest.raises(BackendFailed, match="ForeignHandle was not left by this backend"):
        subject.run(0, [whole(ForeignHandle())])


@pytest.mark.parametrize(
    ("rows", "classify", "message"),
    [
        ((), (), "no rows"),
        ((0, 2), (), "rows 0 to 2 asked for, there are 2"),
        ((-1,), (), "rows -1 to -1 asked for, there are 2"),
        ((0, 1), (2,), "rows 2 to 2 asked for, there are 2"),
        ((0, 1), (-1, 0), "rows -1 to 0 asked for, there are 2"),
    ],
)
def test_rows_that_are_not_there_are_refused(
    subject, rows: tuple[int, ...], classify: tuple[int, ...], message: str
):
    features = subject.put(subject.images(2))

    with pytest.raises(BackendFailed, match=message):
        subject.run(0, [FeatureRows(features, rows)], classify)


@pytest.mark.parametrize(
    "inputs",
    [
        np.zeros((1, 3, 4, 5), np.float32),
        np.zeros((3, 4, 4), np.float32),
        np.zeros((0, 3, 4, 4), np.float32),
        np.zeros((1, 3, 4, 4), np.float64),
    ],
    ids=["another size", "no batch axis", "no image", "another type"],
)
def test_inputs_that_no_stage_reads_are_refused(subject, inputs: NDArray[np.float32]):
    with pytest.raises(BackendFailed, match="stage 0 reads float32"):
        subject.put(inputs)


def test_a_closed_backend_serves_nothing(subject):
    features = subject.put(subject.images(1))

    subject.backend.close()

    with pytest.raises(BackendFailed, match="no model"):
        subject.run(0, [whole(features)])
    with pytest.raises(BackendFailed, match="no model"):
        subject.put(subject.images(1))
