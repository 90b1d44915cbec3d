"""What every backend must do, whatever it runs on."""

import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from service.backends.base import (
    FeatureHandle,
    FeatureRows,
)

if TYPE_CHECKING:
    pass

MAX_BATCH = 9


def whole(handle: FeatureHandle) -> FeatureRows:
    return FeatureRows(handle, tuple(range(handle.num_rows)))


@pytest.mark.parametrize("batch_size", range(1, MAX_BATCH + 1))
def test_every_exit_answers_as_the_network_does(subject, batch_size: int):
    inputs = subject.images(batch_size)

    found = subject.answers(inputs)

    for logits, expected in zip(found, subject.expected(inputs), strict=True):
        assert logits.dtype == np.float32
        assert logits.shape == (batch_size, subject.num_classes)
        assert_allclose(logits, expected, rtol=0, atol=subject.tolerance)


def test_an_image_has_the_same_logits_alone_and_in_company(subject):
    inputs = subject.images(MAX_BATCH)

    together = subject.answers(inputs)

    for row in range(MAX_BATCH):
        for exit_index, alone in enumerate(subject.answers(inputs[row : row + 1])):
            assert_allclose(alone[0], together[exit_index][row], rtol=0, atol=subject.tolerance)


@pytest.mark.parametrize("rows", [(3,), (4, 0, 2), (1, 2, 3), (0, 2, 4), (4, 3, 2, 1, 0)])
def test_rows_go_on_in_the_order_asked_for(subject, rows: tuple[int, ...]):
    inputs = subject.images(5)
    features = subject.put(inputs)
    features = subject.run(0, [whole(features)]).features

    output = subject.run(1, [FeatureRows(features, rows)], range(len(rows)))

    expected = subject.expected(inputs)[1][list(rows)]
    assert output.features.num_rows == len(rows)
    assert_allclose(output.logits, expected, rtol=0, atol=subject.tolerance)


def test_parts_are_joined_in_the_order_given(subject):
    inputs = subject.images(6)
    handles = [subject.put(part) for part in (inputs[:3], inputs[3:])]
    left, right = (subject.run(0, [whole(handle)]).features for handle in handles)
    parts = [FeatureRows(right, (2, 0)), whole(left), FeatureRows(right, (1,))]

    output = subject.run(1, parts, range(6))

    expected = subject.expected(inputs)[1][[5, 3, 0, 1, 2, 4]]
    assert_allclose(output.logits, expected, rtol=0, atol=subject.tolerance)


def test_a_part_without_rows_adds_none(subject):
    inputs = subject.images(2)
    features = subject.put(inputs)

    output = subject.run(0, [FeatureRows(features, ()), whole(features)], (0, 1))

    assert_allclose(output.logits, subject.expected(inputs)[0], rtol=0, atol=subject.tolerance)


def test_pixels_of_several_requests_are_joined_at_the_first_stage(subject):
    inputs = subject.images(4)
    parts = [whole(subject.put(inputs[row : row + 1])) for row in range(4)]

    output = subject.run(0, parts, range(4))

    assert_allclose(output.logits, subject.expected(inputs)[0], rtol=0, atol=subject.tolerance)


@pytest.mark.parametrize("classify", [(0,), (4, 1), (1, 2, 3), (4, 3, 2, 1, 0)])
@pytest.mark.parametrize("stage_index", [0, 1, 2])
def test_only_the_rows_asked_for_are_classified(
    subject, stage_index: int, classify: tuple[int, ...]
):
    inputs = subject.images(5)
    features = subject.put(inputs)
    for earlier in range(stage_index):
        features = subject.run(earlier, [whole(features)]).features

    output = subject.run(stage_index, [whole(features)], classify)

    expected = subject.expected(inputs)[stage_index][list(classify)]
    assert output.features.num_rows == 5
    assert_allclose(output.logits, expected, rtol=0, atol=subject.tolerance)


def test_a_trunk_runs_without_its_classifier(subject):
    features = subject.put(subject.images(3))

    output = subject.run(0, [whole(features)])

    assert output.logits.shape == (0, subject.num_classes)
    assert output.logits.dtype == np.float32
    assert output.features.num_rows == 3


def test_features_can_be_read_again(subject):
    inputs = subject.images(3)
    features = subject.run(0, [whole(subject.put(inputs))]).features

    first = subject.run(1, [whole(features)], range(3))
    again = subject.run(1, [FeatureRows(features, (2, 1))], range(2))

    assert_allclose(again.logits, first.logits[[2, 1]], rtol=0, atol=subject.tolerance)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_images_regrouped_at_every_border_answer_as_if_alone(subject, data: st.DataObject):
    inputs = subject.images(6)
    expected = subject.expected(inputs)
    where = [(subject.put(inputs[i : i + 1]), 0) for i in range(6)]
    waiting = list(range(6))

    for stage_index in range(subject.num_stages):
        waiting = data.draw(st.permutations(waiting))
        waiting = waiting[: data.draw(st.integers(1, len(waiting)))]
        parts = [FeatureRows(where[image][0], (where[image][1],)) for image in waiting]
        output = subject.run(stage_index, parts, range(len(waiting)))

        assert_allclose(
            output.logits, expected[stage_index][waiting], rtol=0, atol=subject.tolerance
        )
        for row, image in enumerate(waiting):
            where[image] = (output.features, row)


@pytest.mark.parametrize("is_read_only", [True, False])
def test_inputs_are_taken_however_they_lie_in_memory_and_left_as_they_are(
    subject, is_read_only: bool
):
    inputs = np.asfortranarray(subject.images(3))
    inputs.flags.writeable = not is_read_only
    before = inputs.copy()

    output = subject.run(0, [whole(subject.put(inputs))], range(3))

    np.testing.assert_array_equal(inputs, before)
    assert_allclose(
        output.logits, subject.expected(np.ascontiguousarray(before))[0], rtol=0, atol=1e-5
    )


def test_features_are_freed_with_their_last_reference(subject):
    pixels = subject.put(subject.images(2))
    output = subject.run(0, [whole(pixels)], (0, 1))
    references = [weakref.ref(pixels), weakref.ref(output.features)]

    del pixels, output
    gc.collect()

    assert [reference() for reference in references] == [None, None]


def test_two_threads_may_submit_at_once(subject):
    batches = [subject.images(1 + i % 5) for i in range(20)]

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda inputs: subject.answers(inputs), batches))

    for inputs, logits in zip(batches, found, strict=True):
        for exit_index, expected in enumerate(subject.expected(inputs)):
            assert_allclose(logits[exit_index], expected, rtol=0, atol=subject.tolerance)


def test_it_says_what_it_is(subject):
    described = (subject.backend.name, subject.backend.device, subject.backend.can_join)

    assert described in {
        ("fake", "cpu", True),
        ("onnxruntime", "cpu", True),
        ("torchscript", "cpu", True),
    }
