import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message

from service.api.body import Arriving, BodyLimits, BufferLedger, WholeBody, receive_body
from service.api.hangup import ClientGone
from service.api.multipart import FormFiles
from service.errors import (
    BadRequest,
    InvalidParameter,
    Overloaded,
    PayloadTooLarge,
    RequestTimeout,
)
from tests.api.conftest import StartApi

LIMITS = BodyLimits(max_bytes=10, timeout_s=5)


def arriving(*messages: Message, declared: bytes | None = None) -> Arriving:
    """A body whose client sends these messages and then nothing more."""
    waiting = list(messages)

    async def receive() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return waiting.pop(0)

    return Arriving(receive, declared)


def chunk(data: bytes, *, more: bool = False) -> Message:
    return {"type": "http.request", "body": data, "more_body": more}


async def received(
    body: Arriving, limits: BodyLimits = LIMITS, ledger: BufferLedger | None = None
) -> bytes:
    sink = WholeBody()
    with (ledger or BufferLedger(1000)).account() as account:
        await receive_body(body, sink, limits, account)
    return sink.joined()


async def test_a_body_comes_in_pieces():
    body = arriving(chunk(b"ab", more=True), chunk(b"", more=True), chunk(b"cd"))

    assert await received(body) == b"abcd"


async def test_a_body_that_says_it_is_too_large_is_not_read():
    body = arriving(declared=b"11")

    with pytest.raises(PayloadTooLarge, match="11 bytes, the limit is 10 bytes"):
        await received(body)


async def test_a_body_that_turns_out_too_large_is_read_no_further():
    body = arriving(chunk(b"x" * 6, more=True), chunk(b"x" * 6, more=True))

    with pytest.raises(PayloadTooLarge):
        await received(body)


@pytest.mark.parametrize("length", [b"many", b"-1", b"9" * 30, "٣".encode("latin-1", "replace")])
async def test_a_length_that_is_no_number_is_refused(length: bytes):
    body = arriving(declared=length)

    with pytest.raises(BadRequest):
        await received(body)


async def test_a_body_that_does_not_come_in_time_is_not_waited_for():
    body = arriving(chunk(b"x", more=True))

    with pytest.raises(RequestTimeout) as raised:
        await received(body, BodyLimits(max_bytes=10, timeout_s=0.01))

    assert raised.value.limit_s == 0.01


async def test_a_client_that_hangs_up_has_nobody_to_answer():
    with pytest.raises(ClientGone):
        await received(arriving(chunk(b"x", more=True), {"type": "http.disconnect"}))


async def test_bodies_together_take_no_more_memory_than_there_is():
    ledger = BufferLedger(10)

    with ledger.account() as first:
        first.hold(8)
        with pytest.raises(Overloaded):
            await received(arriving(declared=b"3"), ledger=ledger)
        with pytest.raises(Overloaded):
            await received(arriving(chunk(b"xxx")), ledger=ledger)

    assert await received(arriving(chunk(b"x" * 10)), ledger=ledger) == b"x" * 10


@given(st.lists(st.lists(st.integers(0, 40), max_size=4), max_size=6))
def test_whatever_was_held_is_given_back(accounts: list[list[int]]):
    ledger = BufferLedger(60)

    for sizes in accounts:
        try:
            with ledger.account() as account:
                for size in sizes:
                    account.hold(size)
                    assert account.held_bytes >= size
        except Overloaded:
            pass

    with ledger.account() as account:
        account.hold(60)


async def test_a_too_large_body_is_told_its_limit(start_api: StartApi):
    api = await start_api(max_body_mib=1)

    answer = await api.http.post("/classify", content=b"x" * (2**20 + 1))

    assert answer.status_code == 413
    assert (answer.json()["limit"], answer.json()["unit"]) == (2**20, "bytes")
    assert api.classify.commands == []


async def test_a_chunked_body_is_held_to_the_same_limit(start_api: StartApi):
    api = await start_api(max_body_mib=1)

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b"x" * 2**16

    answer = await api.http.post("/classify", content=pieces())

    assert answer.status_code == 413


async def test_a_slow_body_is_refused_and_the_connection_closed(start_api: StartApi):
    api = await start_api(body_timeout_s=0.02)

    async def stalled() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    answer = await api.http.post("/classify", content=stalled())

    assert answer.status_code == 408
    assert answer.json()["type"] == "/problems/request-timeout"
    assert answer.headers["connection"] == "close"


def form_of(*parts: tuple[str, str, bytes], boundary: str = "b") -> bytes:
    pieces = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for name, filename, data in parts
    ]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


def form(
    field: str = "files",
    max_parts: int = 3,
    content_type: str = "multipart/form-data; boundary=b",
) -> FormFiles:
    return FormFiles(content_type, field=field, max_parts=max_parts)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=3), st.integers(1, 40))
def test_a_form_is_the_same_however_it_is_cut(contents: list[bytes], step: int):
    body = form_of(*(("files", f"{k}.png", data) for k, data in enumerate(contents)))
    files = form()

    for start in range(0, len(body), step):
        files.feed(body[start : start + step])

    parts = files.finish()
    assert [part.data for part in parts] == contents
    assert [part.filename for part in parts] == [f"{k}.png" for k in range(len(contents))]


def test_names_of_files_may_be_in_any_script():
    files = form()
    files.feed(form_of(("files", "猫.png", b"x")))

    assert files.finish()[0].filename == "猫.png"


def test_a_part_of_another_name_is_told_the_right_one():
    with pytest.raises(InvalidParameter, match="'image'") as raised:
        form().feed(form_of(("image", "a.png", b"x")))

    assert raised.value.nearest == "files"


def test_a_part_without_a_name_is_refused():
    with pytest.raises(InvalidParameter):
        form().feed(b"--b\r\nContent-Type: image/png\r\n\r\nx\r\n--b--\r\n")


def test_one_image_means_one_part():
    files = form(field="file", max_parts=1)

    with pytest.raises(InvalidParameter, match="more than one"):
        files.feed(form_of(("file", "a", b"x"), ("file", "b", b"x")))


def test_too_many_parts_are_too_much():
    with pytest.raises(PayloadTooLarge, match="3 images"):
        form().feed(form_of(*[("files", "a", b"x")] * 4))


@pytest.mark.parametrize(
    "body",
    [b"", b"--b\r\nbroken", b"nonsense", b"--b--\r\n", form_of(("files", "a", b"x"))[:-12]],
    ids=["empty", "broken header", "no boundary", "no part", "cut off"],
)
def test_what_is_no_whole_form_is_malformed(body: bytes):
    files = form()

    with pytest.raises(BadRequest):
        feed_all(files, body)


def feed_all(files: FormFiles, body: bytes) -> None:
    if body:
        files.feed(body)
    files.finish()


@pytest.mark.parametrize("parameters", ["", "; boundary=", f"; boundary={'x' * 300}"])
def test_a_form_needs_a_usable_boundary(parameters: str):
    with pytest.raises(BadRequest):
        form(content_type=f"multipart/form-data{parameters}")
