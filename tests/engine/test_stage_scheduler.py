from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.engine.scheduler import QueuedMember, StageScheduler


@pytest.fixture
def make_scheduler(make_costs):
    def make(*members, can_join=True, **costs):
        scheduler = StageScheduler(make_costs(**costs), can_join=can_join)
        for member in members:
            scheduler.add(member)
        return scheduler

    return make


def cohorts(members: Sequence[QueuedMember]) -> list[int]:
    return [member.cohort_id for member in members]


def test_nothing_runs_where_nobody_waits(make_scheduler):
    scheduler = make_scheduler()

    dispatch = scheduler.next_batch(0.0)

    assert (dispatch.batch, dispatch.expired) == (None, ())
    assert scheduler.is_empty


def test_batch_comes_from_the_stage_of_the_most_urgent_image(make_scheduler, make_member):
    relaxed = make_member(1, stage_index=0, due_at=9.0)
    urgent = make_member(2, stage_index=2, due_at=1.0)
    scheduler = make_scheduler(relaxed, urgent)

    batch = scheduler.next_batch(0.0).batch

    assert batch.stage.stage_index == 2
    assert batch.members == (urgent,)
    assert scheduler.depth(relaxed.stage) == 1


def test_deeper_stage_runs_first_when_two_are_due_at_once(make_scheduler, make_member):
    scheduler = make_scheduler(make_member(1, stage_index=0), make_member(2, stage_index=1))

    assert scheduler.next_batch(0.0).batch.stage.stage_index == 1


def test_batch_is_filled_by_earliest_due_up_to_the_largest(make_scheduler, make_member):
    members = [make_member(number, due_at=10.0 - number) for number in range(6)]
    scheduler = make_scheduler(*members, max_batch=4)

    batch = scheduler.next_batch(0.0).batch

    assert cohorts(batch.members) == [5, 4, 3, 2]


def test_batch_is_no_larger_than_its_earliest_deadline_allows(make_scheduler, make_member):
    members = [make_member(number, finish_by=3.0 if number == 1 else None) for number in range(4)]
    scheduler = make_scheduler(*members, trunk_s=0.0, per_image_s=1.0)

    batch = scheduler.next_batch(0.0).batch

    assert cohorts(batch.members) == [0, 1, 2]


def test_classifiers_count_in_what_a_batch_takes(make_scheduler, make_member):
    members = [make_member(number, finish_by=3.0, classify=True) for number in range(4)]
    scheduler = make_scheduler(*members, trunk_s=0.0, per_image_s=1.0, classifier_s=0.5)

    assert len(scheduler.next_batch(0.0).batch.members) == 2


def test_image_that_is_late_even_alone_makes_no_batch_smaller(make_scheduler, make_member):
    members = [make_member(number, finish_by=0.5) for number in range(4)]
    scheduler = make_scheduler(*members)

    assert len(scheduler.next_batch(0.0).batch.members) == 4


def test_image_with_an_answer_expires_when_its_stage_no_longer_fits(make_scheduler, make_member):
    late = make_member(1, finish_by=0.5, has_answer=True, due_at=1.0)
    owed = make_member(2, finish_by=0.5, due_at=2.0)
    scheduler = make_scheduler(late, owed)

    dispatch = scheduler.next_batch(0.0)

    assert dispatch.expired == (late,)
    assert dispatch.batch.members == (owed,)
    assert scheduler.is_empty


def test_whole_batch_may_expire(make_scheduler, make_member):
    late = make_member(1, finish_by=0.5, has_answer=True)
    scheduler = make_scheduler(late)

    dispatch = scheduler.next_batch(0.0)

    assert dispatch.expired == (late,)
    assert dispatch.batch is None


def test_image_with_an_answer_stands_back_when_others_would_miss_theirs(
    make_scheduler, make_member
):
    answered = make_member(1, stage_index=1, due_at=1.0, finish_by=5.0, has_answer=True)
    owed = make_member(2, due_at=2.0, finish_by=2.0)
    scheduler = make_scheduler(answered, owed)

    assert scheduler.next_batch(0.0, spare_s=0.5).batch.members == (owed,)
    assert scheduler.next_batch(0.0, spare_s=0.5).batch.members == (answered,)


def test_image_with_an_answer_runs_first_while_there_is_time(make_scheduler, make_member):
    answered = make_member(1, stage_index=1, due_at=1.0, finish_by=5.0, has_answer=True)
    owed = make_member(2, due_at=2.0, finish_by=2.0)
    scheduler = make_scheduler(answered, owed)

    assert scheduler.next_batch(0.0, spare_s=1.0).batch.members == (answered,)


def test_image_without_a_deadline_never_stands_back(make_scheduler, make_member):
    overdue = make_member(1, stage_index=1, due_at=1.0, has_answer=True)
    owed = make_member(2, due_at=2.0, finish_by=2.0)
    scheduler = make_scheduler(overdue, owed)

    assert scheduler.next_batch(0.0, spare_s=0.0).batch.members == (overdue,)


def test_only_one_handle_runs_where_features_cannot_be_joined(make_scheduler, make_member):
    members = [make_member(number, source=number % 2) for number in range(4)]
    scheduler = make_scheduler(*members, can_join=False)

    assert cohorts(scheduler.next_batch(0.0).batch.members) == [0, 2]
    assert cohorts(scheduler.next_batch(0.0).batch.members) == [1, 3]


def test_dropped_cohort_waits_nowhere(make_scheduler, make_member):
    dropped = make_member(1, stage_index=1)
    kept = make_member(2)
    scheduler = make_scheduler(dropped, kept)

    touched = scheduler.drop({1})

    assert touched == {dropped.stage}
    assert scheduler.next_batch(0.0).batch.members == (kept,)
    assert scheduler.is_empty


waiting = st.lists(
    st.fixed_dictionaries(
        {
            "stage_index": st.integers(0, 3),
            "due_at": st.floats(0.0, 10.0),
            "finish_by": st.one_of(st.none(), st.floats(0.0, 10.0)),
            "has_answer": st.booleans(),
            "classify": st.booleans(),
        }
    ),
    max_size=30,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(waiting=waiting, max_batch=st.integers(1, 8))
def test_everybody_leaves_the_queue_once_and_no_batch_mixes_stages(
    make_scheduler, make_member, waiting, max_batch
):
    members = [make_member(number, **facts) for number, facts in enumerate(waiting)]
    scheduler = make_scheduler(*members, max_batch=max_batch, per_image_s=0.5)

    left, now = [], 0.0
    while not scheduler.is_empty:
        dispatch = scheduler.next_batch(now)
        left.extend(dispatch.expired)
        if dispatch.batch is not None:
            left.extend(dispatch.batch.members)
            now += 0.5
            assert {member.stage for member in dispatch.batch.members} == {dispatch.batch.stage}
            assert 1 <= len(dispatch.batch.members) <= max_batch

    assert sorted(cohorts(left)) == list(range(len(members)))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(waiting=waiting)
def test_head_of_every_batch_is_the_earliest_due_of_all(make_scheduler, make_member, waiting):
    members = [
        make_member(number, stage_index=facts["stage_index"], due_at=facts["due_at"])
        for number, facts in enumerate(waiting)
    ]
    scheduler = make_scheduler(*members)

    left = set()
    while (batch := scheduler.next_batch(0.0).batch) is not None:
        remaining = [member for member in members if member.cohort_id not in left]
        assert batch.members[0].due_at == min(member.due_at for member in remaining)
        same_stage = [member.due_at for member in remaining if member.stage == batch.stage]
        assert [member.due_at for member in batch.members] == sorted(same_stage)[:4]
        left.update(cohorts(batch.members))
