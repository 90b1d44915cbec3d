import asyncio

import pytest
from starlette.types import Message, Scope

from service.api.application import Application
from service.api.hangup import ClientGone, cancelled_on_hangup
from tests.api.conftest import Api


class Client:
    """The sending side of one request, by hand."""

    def __init__(self, *messages: Message) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        for message in messages:
            self.messages.put_nowait(message)
        self.sent: list[Message] = []

    async def send(self, message: Message) -> None:
        self.sent.append(message)

    def hang_up(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})

    def posting(self, app: Application, path: str) -> asyncio.Task[None]:
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "query_string": b"",
            "headers": [],
            "app": app,
        }
        return asyncio.create_task(app(scope, self.messages.get, self.send))


BODY = {"type": "http.request", "body": b"x", "more_body": False}


async def test_a_client_that_hangs_up_frees_its_place(api: Api):
    api.classify.may_answer = asyncio.Event()
    client = Client(BODY)
    request = client.posting(api.app, "/classify")
    await api.classify.is_waiting.wait()

    client.hang_up()
    await request

    assert api.classify.was_cancelled
    assert client.sent == []
    assert api.counted("anytime_requests_total", route="/classify", outcome="hung-up") == 1
    assert api.counted("anytime_requests_in_flight") == 0


async def test_a_client_that_hangs_up_while_sending_is_not_an_error(
    api: Api, caplog: pytest.LogCaptureFixture
):
    client = Client({"type": "http.request", "body": b"x", "more_body": True})
    client.hang_up()

    await client.posting(api.app, "/classify")

    assert client.sent == []
    assert not [record for record in caplog.records if record.levelname in {"ERROR", "WARNING"}]


async def test_a_batch_ends_with_its_client_too(api: Api):
    api.batch.may_answer = asyncio.Event()
    client = Client(BODY | {"body": b"\x93NUMPY"})
    request = client.posting(api.app, "/batch")
    await api.batch.is_waiting.wait()

    client.hang_up()
    await request

    assert api.batch.was_cancelled


async def test_whatever_else_a_client_sends_meanwhile_is_passed_over():
    client = Client(BODY, BODY)
    taken = asyncio.Event()

    async def receive() -> Message:
        if client.messages.empty():
            taken.set()
        return await client.messages.get()

    async with cancelled_on_hangup(receive):
        await taken.wait()


async def test_a_cancellation_from_elsewhere_stays_one():
    entered = asyncio.Event()

    async def work() -> None:
        async with cancelled_on_hangup(Client().messages.get):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_hang_up_leaves_no_cancellation_behind():
    client = Client()
    client.hang_up()

    with pytest.raises(ClientGone):
        async with cancelled_on_hangup(client.messages.get):
            await asyncio.Event().wait()

    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
