"""Where a request's time went, from its arrival to the instant before its answer is written."""

from collections.abc import Iterator
from contextlib import contextmanager

from service.commands import DeadlineReport, Timing
from service.engine.clock import Clock


class Stopwatch:
    """Times one request. Mutable; owned by the coroutine that serves it.

    Args:
        clock: The one that `arrived_at` was read from.
        arrived_at: When the request came, which may be before this process noticed.
        received_s: From then until its whole body was there.
        held_up_s: How much of that it waited for this server to take it up.
    """

    __slots__ = (
        "_arrived_at",
        "_clock",
        "_decoded_s",
        "_decoder_s",
        "_received_s",
        "held_up_s",
    )

    def __init__(
        self, clock: Clock, arrived_at: float, received_s: float, held_up_s: float = 0.0
    ) -> None:
        self.held_up_s = held_up_s
        self._clock = clock
        self._arrived_at = arrived_at
        self._received_s = received_s
        self._decoded_s = 0.0
        self._decoder_s = 0.0

    @contextmanager
    def decoding(self) -> Iterator[None]:
        """Count what happens inside as decoding, waiting for a decoder included."""
        began_at = self._clock.now()
        yield
        self.decoded_since(began_at)

    def decoded_since(self, began_at: float) -> None:
        """Count the time from an instant until now as decoding."""
        self._decoded_s += self._clock.now() - began_at

    def decoder_worked(self, seconds: float) -> None:
        """Count what decoding took of a processor; threads of the decoder call it in turns."""
        self._decoder_s += seconds

    @property
    def own_s(self) -> float:
        """Seconds that receiving and decoding would have taken with nobody else there."""
        return max(0.0, self._received_s - self.held_up_s) + self._decoder_s

    @property
    def before_queueing_s(self) -> float:
        """Seconds that receiving and decoding took."""
        return self._received_s + self._decoded_s

    def timing(self, *, compute_s: float) -> Timing:
        """Return the parts of the time until now; what is none of them was spent waiting.

        Args:
            compute_s: Wall time of the stage batches it was in; cut to what is left, since a stage
                still running at a deadline is not waited for.
        """
        total_s = self._clock.now() - self._arrived_at
        rest_s = max(0.0, total_s - self.before_queueing_s)
        compute_s = min(compute_s, rest_s)
        return Timing(
            total_s=total_s,
            receive_s=self._received_s,
            decode_s=self._decoded_s,
            queue_s=rest_s - compute_s,
            compute_s=compute_s,
        )


def deadline_report(deadline_s: float | None, total_s: float) -> DeadlineReport | None:
    """Return how a deadline turned out; None where none was asked for."""
    if deadline_s is None:
        return None
    return DeadlineReport(requested_s=deadline_s, remaining_s=deadline_s - total_s)
