import math

import pytest

from model_store.gains import GainTable
from service.backends.base import ModelKey, StageKey
from service.engine.member import Kind, Member, Outset
from service.engine.scheduler import Dispatch, StageScheduler
from service.engine.stage_batch import StageBatch
from service.engine.stage_costs import StageCosts

KEY = ModelKey("fake", "1")
UNSURE, FAIR, SURE = 0.1, 0.5, 0.9

# By exit answered at and confidence: what each exit gains. FAIR gains a tenth, SURE nothing.
GAINS = GainTable(
    num_exits=4,
    edges=((0.3, 0.7),) * 4,
    rows=(
        ((0.5, 0.6, 0.7, 0.8),),
        ((0.0, 0.1, 0.2, 0.4), (0.0, 0.01, 0.02, 0.04), (0.0, 0.0, -0.1, 0.0)),
        ((0.0, 0.0, 0.1, 0.2), (0.0, 0.0, 0.01, 0.02), (0.0, 0.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0, 0.1), (0.0, 0.0, 0.0, 0.01), (0.0, 0.0, 0.0, 0.0)),
        ((0.0,) * 4,) * 3,
    ),
)


def costs(*, fixed_s=0.0, each_s=1.0, classifier_s=0.0, max_batch=8) -> StageCosts:
    """Every stage takes so long, and so much more for each image and each one classified."""
    stage_costs = StageCosts(max_batch=max_batch)
    for stage_index in range(4):
        for size in stage_costs.buckets:
            stage_costs.profile(
                StageKey(KEY, stage_index),
                size,
                trunk_s=fixed_s + each_s * size,
                classifier_s=classifier_s * size,
            )
    return stage_costs


def scheduler_of(*members, can_join=True, background_share=0.1, **prices) -> StageScheduler:
    scheduler = StageScheduler(
        costs(**prices), {KEY: GAINS}, can_join=can_join, background_share=background_share
    )
    for member in members:
        scheduler.add(member)
    return scheduler


def first_answer(due_at=1000.0, *, stage_index=0, deadline_at=None, **fields) -> Member:
    return member_of(
        Kind.MANDATORY,
        stage_index,
        due_at=due_at,
        answer_by=due_at,
        deadline_at=due_at if deadline_at is None else deadline_at,
        **fields,
    )


def better_answer(confidence=UNSURE, answer_by=1000.0, *, stage_index=1, **fields) -> Member:
    return member_of(
        Kind.OPTIONAL,
        stage_index,
        due_at=answer_by,
        answer_by=answer_by,
        deadline_at=answer_by,
        answered_exit=fields.pop("answered_exit", 0),
        confidence=confidence,
        **fields,
    )


def background(due_at=0.0, **fields) -> Member:
    return member_of(Kind.BACKGROUND, fields.pop("stage_index", 0), due_at=due_at, **fields)


def member_of(
    kind: Kind,
    stage_index,
    *,
    classify=None,
    due_at,
    last_exit=3,
    mandatory_exit=0,
    **fields,
) -> Member:
    outset = Outset(kind, classify, due_at, last_exit, mandatory_exit)
    member = Member(None, 0, StageKey(KEY, stage_index), outset)
    for name, value in fields.items():
        setattr(member, name, value)
    return member


def turn(
    scheduler: StageScheduler,
    now=0.0,
    *,
    spare_s=math.inf,
    idle_lanes=1,
    longest_optional_s=1e3,
    going_rate=0.0,
) -> Dispatch:
    return scheduler.next_batch(
        now,
        spare_s=spare_s,
        idle_lanes=idle_lanes,
        longest_optional_s=longest_optional_s,
        going_rate=going_rate,
    )


def batch_of(scheduler: StageScheduler, now=0.0, **circumstances) -> StageBatch:
    batch = turn(scheduler, now, **circumstances).batch
    assert batch is not None
    return batch


def test_nothing_runs_where_nobody_waits():
    scheduler = scheduler_of()

    dispatch = turn(scheduler)

    assert dispatch.batch is None
    assert scheduler.is_empty
    assert scheduler.next_event_at() is None


def test_first_answers_run_earliest_due_first_whatever_their_stage():
    relaxed, urgent = first_answer(9.0), first_answer(5.0, stage_index=2, mandatory_exit=2)
    scheduler = scheduler_of(relaxed, urgent)

    assert batch_of(scheduler).members == [urgent]
    assert scheduler.depth(relaxed.stage) == 1
    assert batch_of(scheduler).members == [relaxed]


def test_of_first_answers_due_at_once_the_deeper_stage_runs():
    scheduler = scheduler_of(first_answer(), first_answer(stage_index=1, mandatory_exit=1))

    assert batch_of(scheduler).stage.stage_index == 1


def test_batch_ends_where_larger_ones_do_not_pay():
    members = [first_answer() for _ in range(6)]

    # Time per image stays the same from 1 on, or falls up to 4 and beyond.
    assert len(batch_of(scheduler_of(*members)).members) == 1
    assert len(batch_of(scheduler_of(*members, fixed_s=5.0, max_batch=4)).members) == 4


def test_batch_is_no_larger_than_its_earliest_deadline_allows():
    urgent, relaxed = first_answer(8.0), [first_answer() for _ in range(7)]
    scheduler = scheduler_of(*relaxed, urgent, fixed_s=5.0)

    batch = batch_of(scheduler)

    assert batch.members[0] is urgent
    assert (len(batch.members), batch.expected_s) == (3, 8.0)


def test_batch_leaves_time_for_the_stages_before_the_first_answer():
    members = [first_answer(14.0, mandatory_exit=1) for _ in range(8)]

    # The second stage takes 6 s alone, so the first must have ended after 8.
    assert len(batch_of(scheduler_of(*members, fixed_s=5.0)).members) == 3


def test_who_is_late_even_alone_makes_no_batch_smaller_while_his_deadline_can_be_kept():
    late = first_answer(5.0, deadline_at=6.5)
    scheduler = scheduler_of(late, first_answer(20.0), fixed_s=5.0)

    dispatch = turn(scheduler)

    assert dispatch.hopeless == []
    assert dispatch.batch is not None
    assert dispatch.batch.members == [late]


def test_who_misses_even_his_deadline_is_not_run():
    hopeless, another = first_answer(5.0), first_answer(9.0)
    scheduler = scheduler_of(hopeless, another, fixed_s=5.0)

    dispatch = turn(scheduler)

    assert dispatch.hopeless == [hopeless]
    assert dispatch.batch is not None
    assert dispatch.batch.members == [another]
    assert scheduler.is_empty


def test_idle_lanes_share_what_waits():
    scheduler = scheduler_of(*(first_answer() for _ in range(5)), fixed_s=5.0)

    sizes = [len(batch_of(scheduler, idle_lanes=lanes).members) for lanes in (2, 1)]

    assert sizes == [3, 2]


def test_features_that_cannot_be_joined_run_with_those_of_their_source():
    members = [first_answer(source=source) for source in (1, 2, 1, 2)]
    scheduler = scheduler_of(*members, can_join=False, fixed_s=5.0)

    assert batch_of(scheduler).members == members[::2]
    assert batch_of(scheduler).members == members[1::2]


def test_better_answers_run_in_the_order_of_what_they_gain():
    fair, unsure, sure = (better_answer(confidence) for confidence in (FAIR, UNSURE, SURE))
    scheduler = scheduler_of(fair, sure, unsure)

    turns = [turn(scheduler, idle_lanes=2) for _ in range(3)]

    assert [one.batch.members for one in turns if one.batch] == [[unsure], [fair], [sure]]


def test_a_shorter_way_to_the_same_gain_comes_first():
    far = better_answer(UNSURE)
    near = better_answer(UNSURE, stage_index=3, answered_exit=0)

    assert batch_of(scheduler_of(far, near)).members == [near]


def test_batch_is_filled_up_while_that_gains_faster():
    unsure = [better_answer(UNSURE) for _ in range(2)]
    fair = [better_answer(FAIR) for _ in range(2)]

    # Two gain 2 in 32 s, and all four 2.2 in 34 s: company that gains a tenth pays for its time
    # unless each image takes about as long as the first.
    assert len(batch_of(scheduler_of(*fair, *unsure, fixed_s=30.0)).members) == 4
    assert batch_of(scheduler_of(*fair, *unsure, fixed_s=0.3)).members == unsure


def test_who_has_too_little_time_for_a_full_batch_is_left_out_of_it():
    # All run for exit 3, two more stages of 6 s away; a batch of four takes 9 s, of two 7 s.
    hurried, *others = (better_answer(UNSURE, time) for time in (20.0, 1e3, 1e3, 1e3, 1e3))
    scheduler = scheduler_of(hurried, *others, fixed_s=5.0, max_batch=4)

    assert batch_of(scheduler).members == others


def test_company_for_whom_a_full_batch_is_too_slow_makes_it_smaller():
    hurried = [better_answer(UNSURE, 20.0) for _ in range(3)]
    scheduler = scheduler_of(better_answer(UNSURE), *hurried, fixed_s=5.0, max_batch=4)

    assert batch_of(scheduler).members == hurried[:2]


def test_better_answers_take_no_longer_than_they_may_but_one_always_runs():
    members = [better_answer() for _ in range(8)]

    assert len(batch_of(scheduler_of(*members, fixed_s=5.0), longest_optional_s=7.0).members) == 2
    assert len(batch_of(scheduler_of(*members, fixed_s=5.0), longest_optional_s=1.0).members) == 1
    assert len(batch_of(scheduler_of(*members, fixed_s=5.0), spare_s=7.5).members) == 2


def test_a_target_out_of_reach_is_given_up_for_a_nearer_one():
    member = better_answer(UNSURE, 10.0)
    scheduler = scheduler_of(member, first_answer(5.0))
    turn(scheduler, spare_s=0.0)

    # Exit 3 is 3 s away and gains most per second; after 8 s exit 2 alone can be reached.
    batch = batch_of(scheduler, now=8.0)

    assert batch.members == [member]
    assert scheduler.next_event_at() is None


def test_better_answers_that_never_fitted_end_by_their_deadline():
    member = better_answer(answer_by=0.5)

    dispatch = turn(scheduler_of(member))

    assert (dispatch.batch, dispatch.expired) == (None, [member])


def test_better_answers_that_fitted_until_others_ran_are_crowded_out():
    member = better_answer(FAIR, answer_by=5.0)
    scheduler = scheduler_of(member, better_answer(UNSURE))
    turn(scheduler)

    expires_at = math.nextafter(4.0, math.inf)
    assert scheduler.next_event_at() == expires_at
    dispatch = scheduler.take_expired(expires_at)

    assert (dispatch.crowded_out, dispatch.expired) == ([member], [])
    assert scheduler.is_empty


def test_better_answers_are_crowded_out_when_stages_become_too_slow_for_them():
    stage_costs = costs()
    scheduler = StageScheduler(stage_costs, {KEY: GAINS}, can_join=True)
    members = [better_answer(UNSURE, 50.0) for _ in range(2)]
    for member in members:
        scheduler.add(member)
    turn(scheduler)

    for stage_index in range(4):
        stage_costs.profile(StageKey(KEY, stage_index), 1, trunk_s=100.0, classifier_s=0.0)
    dispatch = turn(scheduler, now=2.0)

    assert (dispatch.batch, dispatch.crowded_out) == (None, members[1:])
    assert scheduler.is_empty


def test_who_is_not_expected_to_gain_runs_when_nobody_else_waits():
    sure, rest = better_answer(SURE, 10.0), background(due_at=100.0)
    scheduler = scheduler_of(sure, rest)

    assert [batch_of(scheduler).members for _ in range(2)] == [[rest], [sure]]


def test_who_is_not_expected_to_gain_expires_like_others():
    sure = better_answer(SURE, 10.0)
    scheduler = scheduler_of(sure, *(better_answer() for _ in range(3)))
    turn(scheduler, idle_lanes=2)

    assert turn(scheduler, now=9.5).crowded_out == [sure]


def test_who_is_not_expected_to_gain_has_his_answer_at_once_where_all_lanes_go_to_others():
    sure, decided_elsewhere = better_answer(SURE), better_answer(SURE, classify=True)
    scheduler = scheduler_of(sure, decided_elsewhere, *(better_answer() for _ in range(3)))

    assert turn(scheduler).crowded_out == [sure]
    assert decided_elsewhere.place is not None


def test_single_requests_that_gain_less_than_the_going_rate_keep_the_answer_they_have():
    unsure, fair = better_answer(UNSURE), better_answer(FAIR)
    scheduler = scheduler_of(unsure, fair)

    # By the quickest way UNSURE gains more than a tenth a second, FAIR a tenth of that.
    dispatch = turn(scheduler, going_rate=0.05)

    assert dispatch.batch is not None
    assert dispatch.batch.members == [unsure]
    assert (dispatch.crowded_out, dispatch.expired) == ([fair], [])
    assert scheduler.is_empty


def test_images_decided_together_run_whatever_the_going_rate():
    fair = better_answer(FAIR, classify=True)

    assert batch_of(scheduler_of(fair), going_rate=1e3).members == [fair]


def test_first_answers_and_work_without_a_deadline_run_whatever_the_going_rate():
    first, later = first_answer(), background()
    scheduler = scheduler_of(first, later)

    assert batch_of(scheduler, going_rate=1e3).members == [first]
    assert batch_of(scheduler, going_rate=1e3).members == [later]


def test_who_gains_too_little_at_one_time_may_run_at_another():
    scheduler = scheduler_of(better_answer(FAIR))
    turn(scheduler, going_rate=0.05)

    later = better_answer(FAIR)
    scheduler.add(later)

    assert batch_of(scheduler).members == [later]


def test_better_answers_of_one_source_run_together_where_nothing_can_be_joined():
    mine = [better_answer(confidence, source=1) for confidence in (UNSURE, FAIR)]
    others = [better_answer(FAIR, source=2) for _ in range(2)]
    scheduler = scheduler_of(mine[0], *others, mine[1], can_join=False, fixed_s=10.0)

    assert batch_of(scheduler).members == mine


def test_order_follows_when_stages_come_to_cost_something_else():
    stage_costs = costs()
    scheduler = StageScheduler(stage_costs, {KEY: GAINS}, can_join=True)
    deep = better_answer(UNSURE, stage_index=3)
    shallow = better_answer(UNSURE, stage_index=2, answered_exit=1)
    for member in (deep, better_answer(UNSURE, stage_index=3), shallow):
        scheduler.add(member)
    turn(scheduler)

    for size in stage_costs.buckets:
        stage_costs.profile(StageKey(KEY, 3), size, trunk_s=100.0 * size, classifier_s=0.0)

    assert batch_of(scheduler, now=2.0).members == [shallow]


def test_first_answers_come_before_better_ones():
    first, better = first_answer(), better_answer()
    scheduler = scheduler_of(better, first)

    assert batch_of(scheduler).members == [first]
    assert batch_of(scheduler).members == [better]


@pytest.mark.parametrize(
    ("spare_s", "goes_first"),
    [pytest.param(100.0, True, id="spare"), pytest.param(20.5, False, id="nothing to spare")],
)
def test_better_answers_that_would_be_lost_go_first_where_there_is_time(spare_s, goes_first):
    first, better = first_answer(), better_answer(UNSURE, 3.5)
    scheduler = scheduler_of(first, better)

    # Half of the shortest deadline, twice the longest batch, is kept for who is yet to come.
    batch = batch_of(scheduler, spare_s=spare_s, longest_optional_s=10.0)

    assert batch.members == ([better] if goes_first else [first])


@pytest.mark.parametrize(
    ("num_waiting", "spare_s", "waits"),
    [
        pytest.param(1, 100.0, True, id="few"),
        pytest.param(8, 100.0, False, id="enough"),
        pytest.param(1, 20.5, False, id="few with nothing to spare"),
    ],
)
def test_few_first_answers_wait_for_company_while_better_ones_run(num_waiting, spare_s, waits):
    first = [first_answer() for _ in range(num_waiting)]
    scheduler = scheduler_of(*first, better_answer(), fixed_s=1.0)

    batch = batch_of(scheduler, spare_s=spare_s, longest_optional_s=10.0)

    assert (batch.kind is Kind.OPTIONAL) == waits


def test_work_without_a_deadline_waits_for_all_others_until_it_is_due():
    rest = background(due_at=100.0)
    scheduler = scheduler_of(rest, first_answer(), better_answer())

    kinds = [batch_of(scheduler).kind for _ in range(3)]

    assert kinds == [Kind.MANDATORY, Kind.OPTIONAL, Kind.BACKGROUND]


def test_overdue_work_gets_its_share_and_no_more():
    scheduler = scheduler_of(*(background() for _ in range(300)), background_share=0.1)
    shares = dict.fromkeys(Kind, 0.0)

    for now in range(1, 201):
        scheduler.add(first_answer(float(now + 1000)))
        batch = batch_of(scheduler, float(now))
        shares[batch.kind] += batch.expected_s

    assert shares[Kind.BACKGROUND] == pytest.approx(20.0, abs=1.0)  # batches are whole


def test_work_that_is_not_overdue_is_owed_nothing():
    scheduler = scheduler_of(*(background(due_at=500.0) for _ in range(10)))

    for now in range(1, 101):
        scheduler.add(first_answer(float(now + 1000)))

        assert batch_of(scheduler, float(now)).kind is Kind.MANDATORY


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_that_leaves_nothing_to_others_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        scheduler_of(background_share=share)


def test_who_was_removed_never_runs_and_removing_twice_does_nothing():
    members = [first_answer(), better_answer(), better_answer(SURE), background()]
    scheduler = scheduler_of(*members)

    for member in (*members[:2], *members[:2]):
        scheduler.remove(member)
    turn(scheduler)
    turn(scheduler)

    assert scheduler.is_empty
    assert [member.is_gone for member in members] == [True, True, False, False]
    assert turn(scheduler).batch is None


def test_removed_images_are_forgotten_though_nobody_asks_for_them():
    scheduler = scheduler_of(*(better_answer() for _ in range(3)))
    many = [better_answer(FAIR) for _ in range(1000)]
    for member in many:
        scheduler.add(member)
    turn(scheduler)

    for member in many:
        scheduler.remove(member)

    assert scheduler.depth(StageKey(KEY, 1)) == 2
    assert [batch_of(scheduler).members[0].confidence for _ in range(2)] == [UNSURE, UNSURE]
    assert scheduler.is_empty


def test_first_answers_are_classified_at_their_exit_alone():
    members = [first_answer(mandatory_exit=exit_index) for exit_index in (0, 1)]

    batch = batch_of(scheduler_of(*members, fixed_s=5.0))

    assert batch.classify == [True, False]


def test_what_the_policy_decided_stands():
    members = [better_answer(classify=classify) for classify in (True, False)]

    batch = batch_of(scheduler_of(*members, fixed_s=5.0))

    assert dict(zip(members, batch.classify, strict=True)) == {members[0]: True, members[1]: False}


def test_on_an_idle_machine_the_last_exit_alone_is_classified():
    classified = [
        batch_of(scheduler_of(better_answer(stage_index=stage_index))).classify
        for stage_index in (1, 2, 3)
    ]

    assert classified == [[False], [False], [True]]


def test_an_answer_that_may_well_be_the_last_is_classified():
    # Two more stages take 2 s and twice that may pass; after this one 3.5 s are left.
    assert batch_of(scheduler_of(better_answer(answer_by=5.5))).classify == [True]


def test_while_others_wait_the_exit_it_runs_for_is_classified():
    # Per second exit 3 gains an UNSURE image most, unless it may go no further than exit 1.
    to_the_end, to_exit_2 = better_answer(), better_answer(stage_index=2, last_exit=2)

    assert batch_of(scheduler_of(to_the_end, better_answer(FAIR))).classify == [False]
    assert batch_of(scheduler_of(to_exit_2, better_answer(FAIR))).classify == [True]


def test_work_without_a_deadline_is_classified_at_its_last_exit():
    rest = [background(stage_index=stage_index, last_exit=2) for stage_index in (1, 2)]

    assert [batch_of(scheduler_of(member)).classify for member in rest] == [[False], [True]]
