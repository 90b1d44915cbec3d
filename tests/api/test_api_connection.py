"""Requests over real connections: the short way for whole ones, the long way for all others."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.commands import DeadlineReport
from service.errors import DeadlineMissed, Overloaded
from tests.api.conftest import Listen, Run, classified_of

BODY = b"\x89PNG not really"


def request_of(
    *headers: str, target: str = "/classify", version: str = "1.1", body: bytes = BODY
) -> bytes:
    lines = (f"POST {target} HTTP/{version}", "Host: test", *headers)
    return ("\r\n".join([*lines, f"Content-Length: {len(body)}"]) + "\r\n\r\n").encode() + body


class Wire:
    """A client's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the next answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.splitlines()
        headers = dict(line.split(": ", 1) for line in lines if line)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(status.split()[1]), headers, body

    async def is_closed(self) -> bool:
        return await self.reader.read() == b""


@pytest.fixture
async def run(listen: Listen) -> Run:
    """A server whose images are decoded at once."""
    served = await listen()
    served.api.classify.decodes_at_once = True
    return served


@pytest.fixture
async def wire(run: Run) -> AsyncIterator[Wire]:
    """A connection to it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", run.http.base_url.port)
    yield Wire(reader, writer)
    writer.close()


async def test_one_connection_takes_many_whole_requests(run: Run, wire: Wire):
    for target in ("/classify", "/v1/classify?top_k=1", "/classify?deadline_ms=30"):
        wire.send(request_of("X-Request-ID: abc", target=target))
        status, headers, _ = await wire.answer()

        assert (status, headers["content-type"]) == (200, "application/json")
        assert headers["x-request-id"] == "abc"
        assert "date" in headers
    assert [command.deadline_s for command in run.api.classify.commands] == [None, None, 0.03]
    assert run.api.counted("anytime_requests_total", route="/classify", outcome="ok") == 3
    assert run.api.counted("anytime_requests_in_flight") == 0


async def test_an_answer_is_the_same_whichever_way_its_request_went(run: Run, wire: Wire):
    wire.send(request_of())
    _, _, short = await wire.answer()
    whole = request_of()
    wire.send(whole[:-4])
    await run.announced()
    wire.send(whole[-4:])
    _, _, long = await wire.answer()
    run.api.classify.decodes_at_once = False
    wire.send(request_of())
    _, _, later = await wire.answer()

    assert short == long == later
    assert [command.upload.data for command in run.api.classify.commands] == [BODY] * 3


async def test_requests_sent_ahead_are_answered_in_order(run: Run, wire: Wire):
    run.api.classify.may_answer = asyncio.Event()
    wire.send(request_of("X-Request-ID: 1") + request_of("X-Request-ID: 2"))
    await run.api.classify.is_waiting.wait()

    run.api.classify.may_answer.set()
    assert run.api.classify.begun is not None
    run.api.classify.begun.arrive()

    assert [(await wire.answer())[1]["x-request-id"] for _ in range(2)] == ["1", "2"]


async def test_a_client_that_hangs_up_has_its_image_abandoned(run: Run, wire: Wire):
    run.api.classify.may_answer = asyncio.Event()
    wire.send(request_of())
    await run.api.classify.is_waiting.wait()

    wire.writer.close()
    await wire.writer.wait_closed()
    run.server.stop()
    await run.serving

    assert run.api.classify.begun is not None
    assert run.api.classify.begun.was_abandoned
    assert run.api.counted("anytime_requests_total", route="/classify", outcome="hung-up") == 1
    assert run.api.counted("anytime_requests_in_flight") == 0


@pytest.mark.parametrize(
    "asks",
    [request_of("Connection: close"), request_of(version="1.0")],
    ids=["asked to", "old protocol"],
)
async def test_a_connection_that_is_to_be_closed_is(run: Run, wire: Wire, asks: bytes):
    del run
    wire.send(asks)

    status, headers, _ = await wire.answer()

    assert (status, headers["connection"]) == (200, "close")
    assert await wire.is_closed()


async def test_what_is_in_flight_is_finished_before_the_connection_closes(run: Run, wire: Wire):
    run.api.classify.may_answer = asyncio.Event()
    wire.send(request_of())
    await run.api.classify.is_waiting.wait()

    run.server.stop()
    await run.closed()
    assert run.api.classify.begun is not None
    run.api.classify.begun.arrive()
    status, headers, _ = await wire.answer()

    assert (status, headers["connection"]) == (200, "close")


@pytest.mark.parametrize(
    ("error", "status"), [(Overloaded(retry_after_s=0.2), 503), (RuntimeError("secret"), 500)]
)
async def test_a_request_refused_at_once_is_told_why(
    run: Run, wire: Wire, error: Exception, status: int
):
    run.api.classify.error = error

    wire.send(request_of(target="/classify?deadline_ms=30"))
    told, headers, body = await wire.answer()

    assert (told, headers["content-type"]) == (status, "application/problem+json")
    assert b"secret" not in body
    assert ("retry-after" in headers) == (status == 503)
    assert run.api.counted("anytime_requests_in_flight") == 0


@pytest.mark.parametrize(
    ("error", "status"), [(DeadlineMissed(elapsed_s=0.03), 504), (RuntimeError("secret"), 500)]
)
async def test_a_request_that_got_no_answer_is_told_why(
    run: Run, wire: Wire, error: Exception, status: int
):
    run.api.classify.may_answer = asyncio.Event()
    wire.send(request_of(target="/classify?deadline_ms=30"))
    await run.api.classify.is_waiting.wait()

    assert run.api.classify.begun is not None
    run.api.classify.begun.arrive(error)

    assert (await wire.answer())[0] == status
    assert run.api.counted("anytime_requests_in_flight") == 0


async def test_a_refusal_that_was_told_holds_on_to_nothing(run: Run, wire: Wire):
    refusal = run.api.classify.error = Overloaded(retry_after_s=0.2)

    wire.send(request_of())
    await wire.answer()

    assert refusal.__traceback__ is None


async def test_the_service_hears_when_an_answer_has_left(run: Run, wire: Wire):
    run.api.classify.result = classified_of(deadline=DeadlineReport(0.03, 0.01))

    wire.send(request_of(target="/classify?deadline_ms=30"))
    await wire.answer()

    assert run.api.classify.deliveries == [run.api.classify.result]


async def test_bodies_in_chunks_and_bodies_announced_are_taken_too(run: Run, wire: Wire):
    chunked = (
        b"POST /classify HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n\x89PNG"[
            :-4
        ]
        + b"\x89PNG\r\n3\r\n no\r\n0\r\n\r\n"
    )
    wire.send(chunked)
    assert (await wire.answer())[0] == 200
    head, _, body = request_of("Expect: 100-continue").partition(b"\r\n\r\n")
    wire.send(head + b"\r\n\r\n")
    assert (await wire.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
    wire.send(body)

    assert (await wire.answer())[0] == 200
    assert [command.upload.data for command in run.api.classify.commands] == [b"\x89PNG no", BODY]


async def test_what_is_no_http_is_refused_and_the_server_lives_on(run: Run, wire: Wire):
    wire.send(b"POST /classify HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")

    assert (await wire.answer())[0] == 400
    assert await wire.is_closed()
    assert (await run.http.post("/classify", content=BODY)).status_code == 200


async def test_other_methods_and_forms_of_the_path_go_to_the_framework(run: Run, wire: Wire):
    wire.send(b"GET /classify HTTP/1.1\r\nHost: test\r\n\r\n")
    assert (await wire.answer())[0] == 405
    wire.send(request_of(target="/classif%79"))
    assert (await wire.answer())[0] == 200
    wire.send(request_of(target="/classify/"))
    assert (await wire.answer())[0] == 404
