"""Which refusal a deadline gets: one that no server keeps, or one this server is too busy for."""

from service.decode import Decoder
from service.engine.door import Prospects
from service.errors import DeadlineInfeasible, Overloaded
from service.stopwatch import Stopwatch


def refuse_late(
    watch: Stopwatch, *, deadline_s: float, work_s: float, engine: Prospects, decoder: Decoder
) -> DeadlineInfeasible | Overloaded:
    """Return the refusal of a request whose first exit would come after its deadline.

    A caller who is told that no server could will not come again; so where others were being
    served meanwhile, only what the request itself took counts towards that.

    Args:
        watch: Of the request, so far.
        deadline_s: From its arrival.
        work_s: What an idle engine needs for its first exit.
        engine: Where it would run.
        decoder: Where it was decoded.
    """
    if not (engine.num_in_flight or decoder.waiting or watch.held_up_s):
        return DeadlineInfeasible(minimum_s=watch.before_queueing_s + work_s)
    idle_s = watch.own_s + work_s
    if idle_s > deadline_s:
        return DeadlineInfeasible(minimum_s=idle_s)
    return Overloaded(retry_after_s=max(engine.retry_after_s(), decoder.retry_after_s()))
