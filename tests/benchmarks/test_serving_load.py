import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from benchmarks.serving.bodies import Form, Requests, build_requests, encode
from benchmarks.serving.closed_loop import ClosedLoad, ClosedLoop
from benchmarks.serving.open_loop import OpenLoop, OpenLoopLimits
from benchmarks.serving.recording import Recording
from benchmarks.serving.replies import read_reply
from benchmarks.serving.server import Endpoint
from benchmarks.serving.timer import AlarmTimer
from benchmarks.serving.trace import Trace

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"
PIXELS = np.arange(2 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 32, 32, 3)


Request = tuple[bytes, bytes]  # head and body
Answer = Callable[[int], bytes | None]


class TinyServer:
    """Answers every request as a script says, by a thread for each connection.

    Attributes:
        answer: Bytes for the n-th request of a connection; None closes it, silence for b"".
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[Request] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection: socket.socket) -> None:
        with connection:
            for number in range(1000):
                request = read_request(connection)
                if request is None:
                    return
                answer = self.answer(number)
                self.requests.append(request)
                if answer is None:
                    return
                connection.sendall(answer)


def read_request(connection: socket.socket) -> Request | None:
    held = b""
    while b"\r\n\r\n" not in held:
        try:
            received = connection.recv(65536)
        except ConnectionResetError:
            return None
        if not received:
            return None
        held += received
    head, _, body = held.partition(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    while len(body) < length:
        body += connection.recv(65536)
    return head, body


@pytest.fixture
def tiny_server():
    servers: list[TinyServer] = []

    def start(answer: Answer) -> TinyServer:
        servers.append(TinyServer(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.listener.close()


def requests_to(server: TinyServer) -> Requests:
    return build_requests(Endpoint(server.port, "/classify"), PIXELS, (0, 1), form=Form.NPY)


def open_loop(server: TinyServer, scheduled_s: list[float], **limits: Any) -> Recording:
    trace = Trace(np.array(scheduled_s), np.arange(len(scheduled_s)) % 2)
    by_image = requests_to(server).by_image
    each = [by_image[i] for i in trace.image_indices.tolist()]
    limits = {"ready_connections": 2, "patience_s": 0.2, **limits}
    return OpenLoop(server.port, trace, each, OpenLoopLimits(**limits)).run()


def test_requests_are_sent_when_they_are_due_and_answers_kept(tiny_server):
    server = tiny_server(lambda _: HEAD + b"\r\nok")

    recording = open_loop(server, [0.0, 0.01, 0.05])

    assert recording.statuses.tolist() == [200, 200, 200]
    assert recording.bodies == [b"ok"] * 3
    assert (recording.sent_at >= recording.scheduled_at).all()
    assert (recording.last_byte_at > recording.sent_at).all()
    assert np.diff(recording.scheduled_at) == pytest.approx([0.01, 0.04])


def test_silence_delays_nobody_and_ends_with_patience(tiny_server):
    server = tiny_server(lambda _: b"")

    recording = open_loop(server, [0.0] * 5)

    assert len(server.requests) == 5
    assert recording.statuses.tolist() == [0] * 5
    assert np.isnan(recording.last_byte_at).all()


def test_beyond_the_connections_allowed_an_arrival_is_not_sent(tiny_server):
    server = tiny_server(lambda _: b"")

    recording = open_loop(server, [0.0, 0.0, 0.0], max_connections=2)

    assert np.isnan(recording.sent_at).tolist() == [False, False, True]


def test_a_connection_closed_while_idle_is_replaced_and_the_request_sent_again(tiny_server):
    server = tiny_server(lambda number: HEAD + b"\r\nok" if number == 0 else None)

    recording = open_loop(server, [0.0, 0.05, 0.1], ready_connections=1)

    assert recording.statuses.tolist() == [200, 200, 200]


def test_a_refusal_that_closes_the_connection_is_an_answer(tiny_server):
    refused = b"HTTP/1.1 503 No\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
    server = tiny_server(lambda _: refused)

    recording = open_loop(server, [0.0, 0.01], ready_connections=1)

    assert recording.statuses.tolist() == [503, 503]


def test_clients_of_a_closed_loop_send_on_when_they_are_answered(tiny_server):
    server = tiny_server(lambda _: HEAD + b"\r\nok")
    requests = list(requests_to(server).by_image.values())

    recording = ClosedLoop(server.port, requests, [0, 1], ClosedLoad(3, 0.2, warm_up_s=0.05)).run()

    assert len(recording.statuses) > 3
    assert set(recording.statuses.tolist()) == {200}
    assert set(recording.image_indices.tolist()) == {0, 1}


@pytest.mark.parametrize(
    ("received", "body"),
    [
        (HEAD + b"\r\nok", b"ok"),
        (b"HTTP/1.1 204 Nothing\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    ],
    ids=["length", "none", "chunked"],
)
def test_an_answer_is_whole_with_its_last_byte_and_not_before(received, body):
    whole = read_reply(received)

    assert whole is not None
    assert whole.body == body
    assert read_reply(received[:-1]) is None or body == b""


@pytest.mark.parametrize("form", [Form.NPY, Form.PNG, Form.JPEG], ids=lambda f: f.value)
def test_a_request_says_what_its_body_is(form, tiny_server):
    server = tiny_server(lambda _: HEAD + b"\r\nok")
    endpoint = Endpoint(server.port, "/classify?deadline_ms=30", {"X-Budget": "7"})

    request = build_requests(endpoint, PIXELS, [1, 1], form=form).by_image[1]

    head, _, body = request.partition(b"\r\n\r\n")
    assert body == encode(PIXELS[1], form)
    assert f"Content-Length: {len(body)}".encode() in head
    assert b"X-Budget: 7" in head


def test_an_alarm_never_comes_early():
    timer = AlarmTimer()
    due_at = time.monotonic() + 0.01

    poll = select.poll()
    timer.set(due_at)
    poll.register(timer.fileno, select.POLLIN)
    poll.poll(1000)

    assert time.monotonic() >= due_at
    timer.close()
