"""The script of the backend that tests are written with."""

import threading

import numpy as np
import pytest

from model_store.confidence import max_softmax
from service.backends.base import FeatureRows, ModelKey, StageKey, StageOutput
from service.backends.fake import FailAt, FakeBackend, FakeModel, Gate, StageCall, numbered_images
from service.errors import BackendFailed

KEY = ModelKey("toy", "1")


def run(backend: FakeBackend, stage_index: int, *numbers: int) -> StageOutput:
    """Run one stage on images, all stages before it silently."""
    features = backend.put(KEY, numbered_images(numbers))
    rows = tuple(range(len(numbers)))
    for earlier in range(stage_index):
        stage = StageKey(KEY, earlier)
        parts = [FeatureRows(features, rows)]
        features = backend.submit(stage, parts, classify=()).result().features
    parts = [FeatureRows(features, rows)]
    return backend.submit(StageKey(KEY, stage_index), parts, classify=rows).result()


@pytest.mark.parametrize("confidence", [0.1, 0.5, 0.75, 0.999])
@pytest.mark.parametrize("stage_index", [0, 1])
def test_an_image_is_as_sure_as_the_script_says(confidence: float, stage_index: int):
    script = FakeModel((0.2, 0.3), confidences_by_image={4: (confidence, confidence)})
    backend = FakeBackend({KEY: script})

    output = run(backend, stage_index, 4, 5)

    scripted = (confidence, script.confidences[stage_index])
    assert max_softmax(output.logits, 1.0) == pytest.approx(scripted, abs=1e-6)


def test_an_image_is_its_number_modulo_the_classes_unless_the_script_says_otherwise():
    backend = FakeBackend({KEY: FakeModel((0.9,), label_by_image={13: 7})})

    output = run(backend, 0, 12, 13)

    assert output.logits.argmax(axis=1).tolist() == [2, 7]


def test_logits_can_be_no_numbers():
    backend = FakeBackend({KEY: FakeModel((float("nan"),))})

    output = run(backend, 0, 1)

    assert np.isnan(output.logits).any()


def test_another_way_of_numbering_images_can_be_given():
    script = FakeModel((0.9,), number_of=lambda image: int(image.sum()))
    backend = FakeBackend({KEY: script})
    inputs = np.full((1, 3, 1, 1), 2, dtype=np.float32)

    backend.submit(
        StageKey(KEY, 0), [FeatureRows(backend.put(KEY, inputs), (0,))], classify=()
    ).result()

    assert backend.calls[0].images == (6,)


def test_calls_are_recorded_with_their_images_and_classified_rows():
    backend = FakeBackend({KEY: FakeModel((0.5, 0.9))})
    left, right = (backend.put(KEY, numbered_images(n)) for n in ([3, 4], [5]))
    parts = [FeatureRows(left, (1,)), FeatureRows(right, (0,))]

    backend.submit(StageKey(KEY, 0), parts, classify=(1,)).result()

    assert list(backend.calls) == [
        StageCall(StageKey(KEY, 0), images=(4, 5), classify=(1,), num_parts=2, call_index=0)
    ]


@pytest.mark.parametrize(("images", "fails"), [(None, True), ({7}, True), ({8}, False)])
def test_a_stage_fails_where_the_script_says_so(images: set[int] | None, fails: bool):
    hook = FailAt(1, None if images is None else frozenset(images))
    backend = FakeBackend({KEY: FakeModel((0.5, 0.9))}, hooks=[hook])

    run(backend, 0, 7)

    if fails:
        with pytest.raises(BackendFailed, match="stage 1 fails, as scripted"):
            run(backend, 1, 7)
    else:
        run(backend, 1, 7)


def test_hooks_take_the_place_of_the_computation():
    seen: list[tuple[int, tuple[int, ...]]] = []
    backend = FakeBackend(
        {KEY: FakeModel((0.5,))}, hooks=[lambda call: seen.append((call.call_index, call.images))]
    )

    run(backend, 0, 1, 2)
    run(backend, 0, 3)

    assert seen == [(0, (1, 2)), (1, (3,))]


def test_a_gate_holds_its_stage_until_it_is_opened():
    gate = Gate(1)
    backend = FakeBackend({KEY: FakeModel((0.5, 0.9))}, hooks=[gate])
    lane = threading.Thread(target=run, args=(backend, 1, 0))

    lane.start()
    is_held = gate.entered.wait(5) and lane.is_alive()
    gate.opened.set()
    lane.join(5)

    assert is_held
    assert not lane.is_alive()


def test_a_forgotten_gate_fails_the_stage():
    backend = FakeBackend({KEY: FakeModel((0.5,))}, hooks=[Gate(0, limit_s=0.001)])

    with pytest.raises(BackendFailed, match="stayed shut"):
        run(backend, 0, 1)


def test_one_that_cannot_join_refuses_several_parts():
    backend = FakeBackend({KEY: FakeModel((0.5,))}, can_join=False)
    part = FeatureRows(backend.put(KEY, numbered_images([1])), (0,))

    ticket = backend.submit(StageKey(KEY, 0), [part, part], classify=())

    with pytest.raises(BackendFailed, match="2 parts"):
        ticket.result()


def test_closing_is_noted():
    backend = FakeBackend({KEY: FakeModel((0.5,))})

    backend.close()

    assert backend.is_closed
