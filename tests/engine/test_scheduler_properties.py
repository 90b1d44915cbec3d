"""What must hold of the scheduler whatever comes, in whatever order."""

import math
from collections.abc import Iterable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from model_store.gains import GainTable
from service.backends.base import ModelKey, StageKey
from service.engine.member import Kind, Member, Outset
from service.engine.scheduler import StageScheduler
from service.engine.stage_batch import StageBatch
from service.engine.stage_costs import StageCosts

MODELS = (ModelKey("one", "1"), ModelKey("two", "1"))
NUM_EXITS = 3
MAX_BATCH = 4
GAINS = GainTable(
    num_exits=NUM_EXITS,
    edges=((0.5,),) * NUM_EXITS,
    rows=(
        ((0.5, 0.6, 0.7),),
        ((0.0, 0.2, 0.3), (0.0, -0.1, 0.0)),
        ((0.0, 0.0, 0.2), (0.0, 0.0, 0.01)),
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
    ),
)


def stage_costs() -> StageCosts:
    costs = StageCosts(max_batch=MAX_BATCH)
    for model_index, model in enumerate(MODELS):
        for stage_index in range(NUM_EXITS):
            for size in costs.buckets:
                trunk_s = 0.5 + (1 + model_index) * 0.25 * size
                costs.profile(
                    StageKey(model, stage_index), size, trunk_s=trunk_s, classifier_s=0.1 * size
                )
    return costs


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, removes and takes at random, and keeps book of who waits."""

    can_join = True

    def __init__(self) -> None:
        super().__init__()
        self.costs = stage_costs()
        self.scheduler = StageScheduler(
            self.costs, dict.fromkeys(MODELS, GAINS), can_join=self.can_join
        )
        self.now = 0.0
        self.waiting: dict[int, Member] = {}

    @rule(
        kind=st.sampled_from(Kind),
        model=st.sampled_from(MODELS),
        stage_index=st.integers(0, NUM_EXITS - 1),
        patience_s=st.floats(0.0, 20.0),
        margin_s=st.floats(0.0, 0.5),
        confidence=st.floats(0.0, 1.0),
        classify=st.sampled_from([None, True, False]),
        source=st.integers(1, 2),
    )
    def somebody_comes(
        self, kind, model, stage_index, patience_s, margin_s, confidence, classify, source
    ):
        if kind is Kind.OPTIONAL:
            stage_index = max(1, stage_index)
        due_at = self.now + patience_s
        mandatory_exit = stage_index if kind is Kind.MANDATORY else 0
        outset = Outset(kind, classify, due_at, NUM_EXITS - 1, mandatory_exit)
        member = Member(None, 0, StageKey(model, stage_index), outset)
        member.source = source
        if kind is not Kind.BACKGROUND:
            member.answer_by, member.deadline_at = due_at, due_at + margin_s
        if kind is Kind.OPTIONAL:
            member.answered_exit, member.confidence = stage_index - 1, confidence
        self.scheduler.add(member)
        self.waiting[id(member)] = member

    @precondition(lambda self: self.waiting)
    @rule(who=st.integers(0))
    def somebody_hangs_up(self, who):
        member = list(self.waiting.values())[who % len(self.waiting)]
        del self.waiting[id(member)]
        self.scheduler.remove(member)

    @rule(seconds=st.floats(0.0, 5.0))
    def time_passes(self, seconds):
        self.now += seconds

    @rule()
    def nobody_asks_until_somebody_expires(self):
        expires_at = self.scheduler.next_event_at()
        if expires_at is not None and expires_at >= self.now:
            self.now = expires_at
            dispatch = self.scheduler.take_expired(self.now)
            self.let_go(dispatch.expired + dispatch.crowded_out + dispatch.hopeless)
            assert dispatch.crowded_out

    @rule(
        spare_s=st.sampled_from([0.0, 1.0, 5.0, math.inf]),
        idle_lanes=st.integers(1, 3),
        longest_s=st.sampled_from([0.5, 1.2, 5.0, math.inf]),
    )
    def a_lane_asks(self, spare_s, idle_lanes, longest_s):
        dispatch = self.scheduler.next_batch(
            self.now, spare_s=spare_s, idle_lanes=idle_lanes, longest_optional_s=longest_s
        )
        self.let_go(dispatch.expired + dispatch.crowded_out)
        self.let_go(dispatch.hopeless)
        assert all(one.kind is Kind.OPTIONAL for one in dispatch.expired + dispatch.crowded_out)
        assert all(self.is_hopeless(one) for one in dispatch.hopeless)
        assert (dispatch.batch is None) == (not self.waiting)
        if dispatch.batch is not None:
            self.check(dispatch.batch, min(spare_s, longest_s))
            self.let_go(dispatch.batch.members)

    def let_go(self, members: Iterable[Member]) -> None:
        for member in members:
            assert self.waiting.pop(id(member)) is member  # it waited, and leaves but once

    def check(self, batch: StageBatch, limit_s: float) -> None:
        size = len(batch.members)
        assert {(one.stage, one.kind) for one in batch.members} == {(batch.stage, batch.kind)}
        assert 1 <= size <= self.costs.best_batch(batch.stage)
        assert len(batch.classify) == size
        assert batch.expected_s == self.costs.expected_s(batch.stage, size, sum(batch.classify))
        if not self.can_join:
            assert len({one.source for one in batch.members}) == 1
        if batch.kind is Kind.MANDATORY:
            self.check_first_answers(batch)
        elif size > 1:
            assert batch.expected_s <= limit_s

    def check_first_answers(self, batch: StageBatch) -> None:
        due_first = min(one.due_at for one in self.waiting.values() if one.kind is Kind.MANDATORY)
        assert batch.members[0].due_at == due_first
        for member in batch.members if len(batch.members) > 1 else ():
            alone_s = self.costs.expected_s(batch.stage, 1, 1)
            if self.now + alone_s <= member.answer_by:
                # Sums in another order: the last bits may differ.
                assert self.now + batch.expected_s <= member.answer_by + 1e-9

    def is_hopeless(self, member: Member) -> bool:
        return self.now + self.costs.expected_s(member.stage, 1, 1) > member.deadline_at - 1e-9

    @invariant()
    def whoever_waits_is_counted(self):
        assert self.scheduler.is_empty == (not self.waiting)
        for model in MODELS:
            for stage_index in range(NUM_EXITS):
                stage = StageKey(model, stage_index)
                num_waiting = sum(one.stage == stage for one in self.waiting.values())
                assert self.scheduler.depth(stage) == num_waiting


class SeparateSourcesMachine(SchedulerMachine):
    """The same with features that cannot be joined."""

    can_join = False


SchedulerMachine.TestCase.settings = settings(max_examples=60, deadline=None)
SeparateSourcesMachine.TestCase.settings = settings(max_examples=30, deadline=None)
TestAnySchedule = SchedulerMachine.TestCase
TestAnyScheduleOfSeparateSources = SeparateSourcesMachine.TestCase
