"""An engine's admission ledger as front ends see it."""

import math

from service.engine.admission import AdmissionLedger
from service.engine.engine import Engine
from service.engine.fitting import lanes_free_at
from service.frontends.board import LedgerView, PublishedBucket


def view_of(engine: Engine, taken: tuple[int, ...]) -> LedgerView:
    """Return the ledger as it is.

    Args:
        engine: Whose.
        taken: By front end, how many of its requests are in it.
    """
    margin_s = engine.margin.learnt_s

    def look(ledger: AdmissionLedger, now: float) -> LedgerView:
        return LedgerView(
            num_in_flight=ledger.num_in_flight,
            num_background=ledger.num_background,
            feature_bytes=max(ledger.feature_bytes, ledger.held_bytes),
            full_depth_us=ledger.full_depth_us,
            margin_s=margin_s,
            stretch=ledger.stretch(now),
            # Those that rest take nothing: for whoever looks from outside they are not there.
            busy_until=tuple(until for until in ledger.busy_until if until != math.inf)
            or tuple(lanes_free_at(ledger.busy_until, now)),
            buckets=tuple(
                PublishedBucket(
                    (bucket.key[0],), bucket.start_by, bucket.owed_us, bucket.before_last_us
                )
                for bucket in ledger.demand.earliest_first()
            ),
            taken=taken,
        )

    return engine.look_at_ledger(look)
