"""What every request for an answer passes through before the service is asked."""

from dataclasses import dataclass

from service.api.health import Health
from service.api.intake import Intake
from service.api.request_metrics import RequestMetrics
from service.engine.clock import Clock


@dataclass(frozen=True, slots=True)
class Reception:
    """Lets requests in, receives what they bring, and notes how they fared."""

    health: Health
    intake: Intake
    clock: Clock  # monotonic, that of arrivals
    metrics: RequestMetrics
