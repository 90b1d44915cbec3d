"""The images that wait for one stage to better their answers, those worth most at hand.

What an image is worth is the gain it can still expect per second. Images of equal worth lie in one
bucket, so that a decision looks at a few buckets and never at everybody who waits.
"""

from bisect import insort
from typing import Final, TypeAlias

from model_store.gains import GainTable
from service.engine.due_queue import DueQueue
from service.engine.member import Member
from service.engine.stage_prices import ModelPrices

_LEAST_S: Final = 1e-9  # a stage of which nothing is known is free, and would be worth infinity

_Standing: TypeAlias = tuple[int, int]  # exit answered at, bin of its confidence


class Bucket:
    """Images with equal answers, run for the sake of the same exit. Mutable."""

    __slots__ = ("is_ranked", "queue", "standing", "target", "worth")

    def __init__(self, standing: _Standing, target: int) -> None:
        self.standing = standing
        self.target = target
        self.queue = DueQueue()
        self.worth = 0.0  # expected gain per second on the way to the target
        self.is_ranked = False


# One image that could run, and the bucket it was in, which says what for.
Candidate: TypeAlias = tuple[Member, Bucket]

_Ranked: TypeAlias = tuple[float, int, Bucket]  # minus its worth, when it was filled


class StageWorth:
    """Buckets of one stage by worth. Mutable; owned by the scheduler.

    An image runs for the sake of the exit, of those it can reach in time, with the most gain per
    second, Yao et al.'s predicted utility of optional parts (see `model_store.gains`) set against
    their price. Once that exit is out of reach it looks for another.

    Args:
        stage_index: Which stage.
        prices: Of its model.
        gains: Of its model.
    """

    def __init__(self, stage_index: int, prices: ModelPrices, gains: GainTable) -> None:
        self.prices = prices
        self._stage_index = stage_index
        self._gains = gains
        self._version = 0  # of the prices that the buckets' worth is reckoned with
        self._buckets: dict[tuple[_Standing, int], Bucket] = {}
        self._by_reach: dict[tuple[_Standing, int, int], Bucket | None] = {}
        self._num_ranked = 0  # ever; of buckets of equal worth the one filled first comes first
        self._ranked: list[_Ranked] = []  # those with anybody in them, and some just left

    @property
    def num_waiting(self) -> int:
        """How many images wait."""
        return sum(bucket.queue.num_waiting for _, _, bucket in self._ranked)

    @property
    def best_batch(self) -> int:
        """The batch beyond which larger ones do not pay."""
        return self.prices.best_batch[self._stage_index]

    def reach(self, member: Member, now: float) -> int | None:
        """Return the deepest exit that an image alone gets to in time; None where none is left."""
        ways_s = self.prices.alone_s[self._stage_index]
        for exit_index in range(member.last_exit, self.first_exit(member) - 1, -1):
            if now + ways_s[exit_index] <= member.answer_by:
                return exit_index
        return None

    def bucket_of(self, member: Member, reach: int) -> Bucket | None:
        """Return where an image belongs that gets as far as `reach`; None: it gains nothing."""
        standing = (
            member.answered_exit,
            self._gains.bin_of(member.answered_exit, member.confidence),
        )
        key = (standing, self.first_exit(member), reach)
        try:
            return self._by_reach[key]
        except KeyError:
            bucket = self._by_reach[key] = self._bucket(*key)
            return bucket

    def add(self, member: Member, bucket: Bucket, ticket: int) -> None:
        """Let an image wait.

        Args:
            member: Which.
            bucket: From `bucket_of`.
            ticket: See `DueQueue.add`.
        """
        bucket.queue.add(member, member.answer_by, ticket)
        if not bucket.is_ranked:
            bucket.is_ranked = True
            self._num_ranked += 1
            insort(self._ranked, (-bucket.worth, self._num_ranked, bucket))

    def most_gain_rate(self, handling_s: float) -> float:
        """Return expected gain per second that no batch surpasses; 0 where nobody waits.

        As if everybody were classified, and small batches as cheap per image as those of the best
        size. A look at the first few buckets, to spare a look at images.

        Args:
            handling_s: What a batch takes besides its stage.
        """
        self._reprice()
        image_s = max(self.prices.share_s(self._stage_index, 1, 1), _LEAST_S)
        num_left = self.best_batch
        gain, seconds, rate = 0.0, handling_s, 0.0
        for _, _, bucket in self._ranked:
            if num_left == 0 or bucket.worth <= rate:
                break
            size = min(num_left, bucket.queue.num_waiting)
            num_left -= size
            gain += size * image_s * bucket.worth
            seconds += size * image_s
            rate = gain / seconds
        return rate

    def look(self, now: float, limit: int) -> tuple[list[Candidate], list[Member]]:
        """Return who is worth most, in order, at most so many, and whose target is out of reach.

        The latter wait no longer. Added again, with the reach they have now and the ticket they
        had, they may belong among the former.
        """
        self._reprice()
        found: list[Candidate] = []
        stranded: list[Member] = []
        place = 0
        while place < len(self._ranked) and len(found) < limit:
            bucket = self._ranked[place][2]
            self._strand(bucket, now, stranded)
            if not bucket.queue.num_waiting:
                self._unrank(place)
                continue
            found.extend((member, bucket) for member in bucket.queue.first(limit - len(found)))
            place += 1
        return found, stranded

    def first_exit(self, member: Member) -> int:
        """Return where it could next get an answer."""
        if member.classify is not False:
            return self._stage_index
        return min(self._stage_index + 1, member.last_exit)

    def _strand(self, bucket: Bucket, now: float, stranded: list[Member]) -> None:
        way_s = self.prices.alone_s[self._stage_index][bucket.target]
        head = bucket.queue.head()
        while head is not None and now + way_s > head.answer_by:
            stranded.append(bucket.queue.pop())
            head = bucket.queue.head()

    def _bucket(self, standing: _Standing, first: int, reach: int) -> Bucket | None:
        gains = self._gains.row(*standing)
        ways_s = self.prices.per_image_s[self._stage_index]
        worth, target = max(
            (gains[exit_index] / max(ways_s[exit_index], _LEAST_S), -exit_index)
            for exit_index in range(first, reach + 1)
        )
        if worth <= 0.0:
            return None
        key = (standing, -target)
        if key not in self._buckets:
            self._buckets[key] = Bucket(standing, -target)
        bucket = self._buckets[key]
        bucket.worth = worth
        return bucket

    def _reprice(self) -> None:
        if self._version == self.prices.version:
            return
        self._version = self.prices.version
        self._by_reach.clear()
        self.best_batch_s = self.prices.share_s(self._stage_index, self.best_batch, self.best_batch)
        ways_s = self.prices.per_image_s[self._stage_index]
        for bucket in self._buckets.values():
            gain = self._gains.gain(*bucket.standing, bucket.target)
            bucket.worth = gain / max(ways_s[bucket.target], _LEAST_S)
        self._ranked = sorted((-bucket.worth, order, bucket) for _, order, bucket in self._ranked)

    def _unrank(self, place: int) -> None:
        self._ranked[place][2].is_ranked = False
        del self._ranked[place]
