"""What must be true at the end, held against what was measured: kept, missed or not measured."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.serving.anytime import NAME as OURS
from benchmarks.serving.plan import DOUBLE, SUSTAINABLE
from benchmarks.serving.results import Measured, Place, Results
from benchmarks.serving.summary import paired_difference
from benchmarks.serving.trace import ArrivalProcess

LIGHT: Final = 0.5  # ρ
LIGHT_ATTAINMENT: Final = 0.999
LIGHT_ACCURACY: Final = 0.99  # of the full network's
HEAVY_ATTAINMENT: Final = 0.99
OVER_IDEAL: Final = 1.7
PEER_TOLERANCE: Final = 0.005
ABOVE_PEERS_FROM: Final = 1.2  # ρ
STATIC_RANGE: Final = (0.8, 2.0)  # ρ
GAIN_SHARE: Final = 0.6
GAIN_RANGE: Final = (1.0, 2.0)  # ρ
BOUND_SHARES: Final = (0.95, 0.90)  # up to ρ = 1, above
LATENESS_P999_MS: Final = 5.0
BURST_RHO: Final = 3.0


@dataclass(frozen=True, slots=True)
class Bar:
    """One claim."""

    claim: str
    is_kept: bool | None  # None: not measured
    found: str


def ideal_full_depth(rho: float, full_accuracy: float) -> float:
    """Return what a server that runs only full depth, without any loss, is right and in time."""
    return min(1.0, 1.0 / rho) * full_accuracy


def check_bars(results: Results) -> list[Bar]:
    """Return every claim that this benchmark can judge."""
    return [bar for check in _CHECKS for bar in check(results)]


def heavy_rho(results: Results) -> float:
    """Return the load up to which bars hold: twice full depth, or 0.8 λ₀ where that is less."""
    rates = results.yardstick
    return min(DOUBLE, round(SUSTAINABLE * rates.lambda_0 / rates.reference_hz, 2))


def _light(results: Results) -> Iterator[Bar]:
    ours = results.at(Place(OURS, None, LIGHT))
    attained = None if ours is None else ours.summary.attainment
    yield _bar(f"rho = {LIGHT:g}: at least 99.9 % in time", attained, LIGHT_ATTAINMENT)
    share = None if ours is None else ours.summary.accuracy / results.accuracies[-1]
    claim = f"rho = {LIGHT:g}: at least 0.99 of the full network's accuracy"
    yield _bar(claim, share, LIGHT_ACCURACY)


def _heavy(results: Results) -> Iterator[Bar]:
    rho = heavy_rho(results)
    ours = results.at(Place(OURS, None, rho))
    attained = None if ours is None else ours.summary.attainment
    yield _bar(f"rho = {rho:g}: at least 99 % in time", attained, HEAVY_ATTAINMENT)
    if rho == DOUBLE:
        ideal = ideal_full_depth(rho, results.accuracies[-1])
        ratio = None if ours is None else ours.summary.accuracy / ideal
        claim = f"rho = {rho:g}: accuracy under deadline at least 1.7 x an ideal full-depth server"
        yield _bar(claim, ratio, OVER_IDEAL)


def _peers(results: Results) -> Iterator[Bar]:
    for peer in results.servers[1:]:
        above = [
            (rho, d) for rho in results.rhos if (d := _over_peer(results, peer, rho)) is not None
        ]
        worst = min(above, key=lambda pair: pair[1], default=None)
        yield _least(f"never more than 0.5 point below {peer}", worst, -PEER_TOLERANCE)
        heavy = [pair for pair in above if pair[0] >= ABOVE_PEERS_FROM]
        worst = min(heavy, key=lambda pair: pair[1], default=None)
        yield _least(f"above {peer} from rho = {ABOVE_PEERS_FROM:g} on", worst, 0.0)


def _over_peer(results: Results, peer: str, rho: float) -> float | None:
    ours, theirs = results.at(Place(OURS, None, rho)), results.at(Place(peer, None, rho))
    if ours is None or theirs is None:
        return None
    return ours.summary.accuracy - theirs.summary.accuracy


def _statics(results: Results) -> Iterator[Bar]:
    low, high = STATIC_RANGE
    for rho in (r for r in results.rhos if low <= r <= high):
        best, ours = results.best_static(OURS, rho), results.at(Place(OURS, None, rho))
        claim = f"rho = {rho:g}: above our best static exit, same trace"
        if best is None or ours is None:
            yield Bar(claim, None, "not measured")
            continue
        k, static = best
        difference, error = paired_difference([ours.first], [static.first])
        found = f"{100 * difference:+.2f} ± {100 * error:.2f} points over exit {k}"
        yield Bar(claim, difference > 0, found)


def _gain(results: Results) -> Iterator[Bar]:
    low, high = GAIN_RANGE
    for rho in (r for r in results.rhos if low <= r <= high):
        accuracy, bound = _accuracy(results, rho), _bound(results, rho)
        exit_0 = _mean([b.exit_0_for_all for b in results.bounds_at(rho)])
        share = None
        if accuracy is not None and bound is not None and exit_0 is not None and bound > exit_0:
            share = (accuracy - exit_0) / (bound - exit_0)
        yield _bar(
            f"rho = {rho:g}: at least 60 % of the gain over exit 0 for all", share, GAIN_SHARE
        )


def _bounds(results: Results) -> Iterator[Bar]:
    for rho in (r for r in results.rhos if r <= heavy_rho(results)):
        accuracy, bound = _accuracy(results, rho), _bound(results, rho)
        needed = BOUND_SHARES[0] if rho <= 1 else BOUND_SHARES[1]
        share = None if accuracy is None or bound is None else accuracy / bound
        claim = f"rho = {rho:g}: at least {100 * needed:.0f} % of the clairvoyant bound"
        yield _bar(claim, share, needed)


def _bursts(results: Results) -> Iterator[Bar]:
    place = Place(OURS, None, BURST_RHO, process=ArrivalProcess.BURSTY)
    ours = results.at(place)
    claim = f"rho = {BURST_RHO:g}, bursty: p99.9 of lateness among the answered at most 5 ms"
    late = None if ours is None else ours.summary.lateness_ms
    if late is None or late.p999 is None or late.most is None:
        yield Bar(claim, None, "not measured")
        return
    found = f"{late.p999:.2f} ms, most {late.most:.2f} ms"
    yield Bar(claim, late.p999 <= LATENESS_P999_MS, found)


def _accuracy(results: Results, rho: float) -> float | None:
    ours: Measured | None = results.at(Place(OURS, None, rho))
    return None if ours is None else ours.summary.accuracy


def _bound(results: Results, rho: float) -> float | None:
    return _mean([b.bound for b in results.bounds_at(rho)])


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _bar(claim: str, found: float | None, needed: float) -> Bar:
    if found is None:
        return Bar(claim, None, "not measured")
    return Bar(claim, found >= needed, f"{found:.4f}")


def _least(claim: str, worst: tuple[float, float] | None, needed: float) -> Bar:
    if worst is None:
        return Bar(claim, None, "not measured")
    rho, difference = worst
    is_kept = difference >= needed if needed else difference > 0
    return Bar(claim, is_kept, f"{100 * difference:+.2f} points at rho = {rho:g}")


_CHECKS: Final[tuple[Callable[[Results], Iterator[Bar]], ...]] = (
    _light,
    _heavy,
    _peers,
    _statics,
    _gain,
    _bounds,
    _bursts,
)
