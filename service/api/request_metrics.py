"""What the API counts of requests, from the event loop alone."""

from typing import Final

from prometheus_client import CollectorRegistry

from service.commands import DeadlineReport
from service.tallies import CounterTally, GaugeTally, HistogramTally, expose_tallies

_LATENCY_BUCKETS_S: Final = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075),
    *(0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0),
)
_SLACK_BUCKETS_S: Final = (
    *(-1.0, -0.1, -0.05, -0.02, -0.01, -0.005, -0.002, -0.001, 0.0),
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0),
)
_IMAGES_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_LAG_BUCKETS_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)


class RequestMetrics:
    """Counts what the API sees of requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._in_flight = GaugeTally("anytime_requests_in_flight", "Requests being handled.")
        self._request_s = HistogramTally(
            "anytime_request_seconds",
            "Time from arrival to the end of the response.",
            ["route", "outcome"],
            bounds=_LATENCY_BUCKETS_S,
        )
        self._requests = CounterTally(
            "anytime_requests", "Requests that are over.", ["route", "outcome"]
        )
        self._problems = CounterTally(
            "anytime_problems", "Requests, and images of batches, told a problem.", ["slug"]
        )
        self._slack_s = HistogramTally(
            "anytime_deadline_slack_seconds",
            "Time left to the deadline when an answer was ready; negative where it was late.",
            ["route"],
            bounds=_SLACK_BUCKETS_S,
        )
        self._misses = CounterTally(
            "anytime_deadline_misses", "Deadlines not kept, and why.", ["cause"]
        )
        self._decode_s = HistogramTally(
            "anytime_decode_seconds",
            "Time from a body to its pixels.",
            ["route"],
            bounds=_LATENCY_BUCKETS_S,
        )
        self._batch_images = HistogramTally(
            "anytime_batch_images", "Images of a batch.", bounds=_IMAGES_BUCKETS
        )
        self._lag_s = HistogramTally(
            "anytime_event_loop_lag_seconds",
            "How late the event loop got round to what was due.",
            bounds=_LAG_BUCKETS_S,
        )
        expose_tallies(
            registry,
            *(self._in_flight, self._request_s, self._requests, self._problems, self._slack_s),
            *(self._misses, self._decode_s, self._batch_images, self._lag_s),
        )

    def request_began(self) -> None:
        """Count a request in."""
        self._in_flight.value += 1

    def request_ended(self, *, route: str, outcome: str, elapsed_s: float) -> None:
        """Count a request out."""
        self._in_flight.value -= 1
        self._requests.add(1, route, outcome)
        self._request_s.observe(elapsed_s, route, outcome)

    def problem_told(self, slug: str) -> None:
        """Count a problem, of a request or of one image."""
        self._problems.add(1, slug)

    def deadline_missed(self, cause: str) -> None:
        """Count a request with a deadline that was not answered by it."""
        self._misses.add(1, cause)

    def answered(self, route: str, *, decode_s: float, deadline: DeadlineReport | None) -> None:
        """Note how an answer came about."""
        self._decode_s.observe(decode_s, route)
        if deadline is None:
            return
        self._slack_s.observe(deadline.remaining_s, route)
        if deadline.remaining_s < 0:
            self.deadline_missed("late")

    def batch_taken(self, num_images: int) -> None:
        """Note how large a batch was."""
        self._batch_images.observe(num_images)

    def loop_lagged(self, lag_s: float) -> None:
        """Note a sample of the event loop's lag."""
        self._lag_s.observe(lag_s)
