"""How a cohort's end is told: to its caller, and to who counts."""

from collections import Counter

from service.engine.cohort import InFlightCohort, Settlement
from service.engine.image import Ending
from service.engine.observer import Observer, WasteCause
from service.engine.request import ExitReason
from service.engine.stage_costs import StageCosts


def settlement_of(cohort: InFlightCohort, ending: Ending, now: float) -> Settlement:
    """Return what a caller is told if his cohort ends like this, now."""
    elapsed_s = now - cohort.arrived_at
    num_exits = len(cohort.model.stages)
    for image in cohort.images:
        image.count_time(now)
    return Settlement(
        cohort,
        ending,
        tuple(
            image.outcome(ending, elapsed_s=elapsed_s, num_exits=num_exits)
            for image in cohort.images
        ),
    )


def give_reasons(cohort: InFlightCohort, stage_costs: StageCosts) -> None:
    """Tell apart whose own deadline ends it and who waited too long for the sake of others."""
    for image in cohort.images:
        if image.reason is None and image.answered_exit >= 0 and image.run is None:
            alone_s = stage_costs.expected_s(image.stage, 1, 1)
            fitted = image.ready_at + alone_s <= image.answer_by
            image.reason = ExitReason.LOAD if fitted else ExitReason.DEADLINE


def report(settlement: Settlement, observer: Observer) -> None:
    """Tell how a cohort ended, and what of its work is in no answer."""
    cohort, ending = settlement.cohort, settlement.ending
    if ending is Ending.LEFT:
        observer.abandoned(cohort.model.served.key, len(cohort.images))
    else:
        observer.settled(cohort.model.served.key, settlement.outcomes)
    wasted: Counter[WasteCause] | None = None
    for image in cohort.images:
        macs = image.wasted_macs(ending)
        if macs:
            wasted = Counter() if wasted is None else wasted
            wasted[image.waste_cause(ending)] += macs
    for cause, macs in wasted.items() if wasted else ():
        observer.wasted(macs, cause)
