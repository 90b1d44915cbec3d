"""One whole request while it is served without a task."""

from collections.abc import Callable
from typing import TypeAlias

from service.api.body import BufferAccount
from service.api.exchange import Reply
from service.api.failures import HUNG_UP
from service.api.services import BegunClassify
from service.api.whole_request import WholeRequest

Ended: TypeAlias = Callable[[WholeRequest], None]


class Visit:
    """Ends once, answered or hung up on; owned by the callbacks that serve it.

    Args:
        request: All of it.
        account: Pays for its body; given back at the end.
        ended: Called then.
    """

    __slots__ = ("_begun", "_ended", "account", "request")

    def __init__(self, request: WholeRequest, account: BufferAccount, ended: Ended) -> None:
        self.request = request
        self.account = account
        self._ended = ended
        self._begun: BegunClassify | None = None

    def wait_for(self, begun: BegunClassify) -> None:
        """Have the work abandoned should the client hang up."""
        self._begun = begun
        self.request.on_hang_up = self._hang_up

    def end(self, reply: Reply) -> None:
        """Answer, and be over."""
        self.request.on_hang_up = None
        self.request.write(reply)
        self._close()

    def _hang_up(self) -> None:
        self.request.context.outcome = HUNG_UP
        if self._begun is not None:
            self._begun.abandon()
        self._close()

    def _close(self) -> None:
        self.account.release()
        self._ended(self.request)
