"""Features in flight: who still needs a batch's output, and how many bytes that keeps alive."""

from service.backends.base import FeatureHandle


class FeatureMeter:
    """Counts the bytes that features hold. Mutable; guarded by the engine's lock."""

    __slots__ = ("held_bytes",)

    def __init__(self) -> None:
        self.held_bytes = 0


class HeldFeatures:
    """What one batch left, shared by the images in it. Mutable; guarded by the engine's lock.

    An image that waits keeps the rows of all the others alive, so the whole handle is counted until
    the last of them has let go.

    Args:
        handle: The backend's.
        num_users: Images that refer to it.
        meter: Where the bytes are counted.
    """

    __slots__ = ("_meter", "_num_bytes", "_num_users", "handle")

    def __init__(self, handle: FeatureHandle, *, num_users: int, meter: FeatureMeter) -> None:
        self.handle: FeatureHandle | None = handle
        self._num_bytes = handle.feature_bytes
        self._num_users = num_users
        self._meter = meter
        meter.held_bytes += self._num_bytes

    def let_go(self) -> None:
        """One image needs it no more."""
        self._num_users -= 1
        if not self._num_users:
            self.handle = None
            self._meter.held_bytes -= self._num_bytes
