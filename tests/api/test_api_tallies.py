"""What is counted by hand is exposed as the client library would."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.samples import Sample

from service.tallies import CounterTally, GaugeTally, HistogramTally, expose_tallies

BOUNDS = (-1.0, 0.0, 0.5, 10.0)
SECONDS = st.lists(st.sampled_from([-2.0, -1.0, -0.5, 0.0, 0.25, 0.5, 7.0, 10.0, 11.0]), max_size=9)


def samples_of(registry: CollectorRegistry) -> list[Sample]:
    """Return everything exposed, but for when each series began, which nobody asked for."""
    found = [sample for family in registry.collect() for sample in family.samples]
    return sorted(
        (sample for sample in found if not sample.name.endswith("_created")),
        key=lambda sample: (sample.name, sorted(sample.labels.items())),
    )


@pytest.mark.parametrize("bounds", [BOUNDS, BOUNDS[2:]], ids=["below zero", "above zero"])
@given(values=SECONDS)
def test_a_histogram_is_exposed_as_the_library_would(
    bounds: tuple[float, ...], values: list[float]
):
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = HistogramTally("a_seconds", "A.", ["route"], bounds=bounds)
    library = Histogram("a_seconds", "A.", ["route"], buckets=bounds, registry=theirs)
    expose_tallies(ours, tally)

    for value in values:
        tally.observe(value, "/a")
        library.labels("/a").observe(value)

    assert samples_of(ours) == samples_of(theirs)


def test_a_counter_is_exposed_as_the_library_would():
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally, bare = CounterTally("a", "A.", ["route"]), CounterTally("b", "B.")
    library = Counter("a", "A.", ["route"], registry=theirs)
    Counter("b", "B.", registry=theirs)
    expose_tallies(ours, tally, bare)

    for route in ("/a", "/b", "/a"):
        tally.add(2, route)
        library.labels(route).inc(2)

    assert samples_of(ours) == samples_of(theirs)


def test_what_has_no_labels_is_there_from_the_start():
    registry = CollectorRegistry()
    gauge = GaugeTally("now", "Now.")
    expose_tallies(registry, gauge, HistogramTally("a_seconds", "A.", bounds=BOUNDS))
    gauge.value += 3

    assert registry.get_sample_value("now") == 3
    assert registry.get_sample_value("a_seconds_count") == 0
