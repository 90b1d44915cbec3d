"""What the clients of a soak do: real requests, odd ones, broken ones, in a random order."""

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

import numpy as np
from PIL import Image

_SIDE: Final = 32
_MAX_BATCH: Final = 48
_REFUSALS: Final = frozenset({503, 504})
_IMPOSSIBLE: Final = 422
_FULL_MACS: Final = 52_000_000  # about the price of full depth


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and which statuses are right answers to it."""

    name: str
    method: str
    path: str
    body: bytes = b""
    content_type: str = "application/octet-stream"
    query: Mapping[str, str] = field(default_factory=dict)
    expected: frozenset[int] = frozenset({200})


def draw(random: Random) -> Ask:
    """Return the next request of a client."""
    kinds, weights = zip(*_KINDS, strict=True)
    kind: Callable[[Random], Ask] = random.choices(kinds, weights)[0]
    return kind(random)


def _classify(random: Random) -> Ask:
    deadline_ms = f"{random.choice((5, 10, 20, 30, 50, 100, 500)):g}"
    # A server that is short of time says so; 422 where not even an idle one could.
    expected = frozenset({200, _IMPOSSIBLE}) | _REFUSALS
    body, content_type = _image(random)
    query = {"deadline_ms": deadline_ms}
    return Ask("classify", "POST", "/classify", body, content_type, query, expected)


def _classify_limited(random: Random) -> Ask:
    query = random.choice(
        (
            {},
            {"min_confidence": "0.8"},
            {"max_exit": "2", "detail": "exits"},
            {"budget_macs": str(random.randint(_FULL_MACS // 3, _FULL_MACS))},
            {"min_exit": "1", "deadline_ms": "200"},
        )
    )
    body, content_type = _image(random)
    expected = frozenset({200}) | _REFUSALS
    return Ask("classify, limits", "POST", "/classify", body, content_type, query, expected)


def _batch(random: Random) -> Ask:
    number = random.randint(2, _MAX_BATCH)
    query: dict[str, str] = random.choice(
        (
            {},
            {"budget_macs": str(number * random.randint(_FULL_MACS // 3, _FULL_MACS))},
            {"budget_macs": str(number * _FULL_MACS // 2), "policy": "topk"},
            {"deadline_ms": str(random.choice((50, 200, 1000)))},
        )
    )
    expected = frozenset({200, _IMPOSSIBLE}) | _REFUSALS
    body = _npy(_pixels(random, number))
    return Ask("batch", "POST", "/batch", body, "application/x-npy", query, expected)


def _batch_with_bad_images(random: Random) -> Ask:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for i in range(random.randint(2, 8)):
            good, _ = _image(random)
            archive.writestr(f"{i}.png", good if random.random() < _HALF else random.randbytes(500))
    expected = frozenset({200, _IMPOSSIBLE}) | _REFUSALS
    return Ask(
        "batch, bad images",
        *("POST", "/batch"),
        body=file.getvalue(),
        content_type="application/zip",
        expected=expected,
    )


def _broken(random: Random) -> Ask:
    body, content_type = random.choice(
        (
            (random.randbytes(random.randint(0, 5000)), "image/png"),
            (_image(random)[0][: random.randint(1, 60)], "image/png"),
            (b"\x93NUMPY" + random.randbytes(200), "application/x-npy"),
            (b'{"image": 1}', "application/json"),
        )
    )
    expected = frozenset({400, 415, _IMPOSSIBLE}) | _REFUSALS
    return Ask("broken image", "POST", "/classify", body, content_type, expected=expected)


def _wrong_query(random: Random) -> Ask:
    query = random.choice(
        ({"deadline": "30"}, {"min_exit": "3", "max_exit": "1"}, {"deadline_ms": "soon"})
    )
    body, content_type = _image(random)
    expected = frozenset({_IMPOSSIBLE})
    return Ask("wrong query", "POST", "/classify", body, content_type, query, expected)


def _reading(random: Random) -> Ask:
    path = random.choice(("/metrics", "/models", "/health/ready", "/plan?images=100"))
    return Ask("reading", "GET", path)


_HALF: Final = 0.5
_KINDS: Final[tuple[tuple[Callable[[Random], Ask], float], ...]] = (
    (_classify, 0.55),
    (_classify_limited, 0.2),
    (_batch, 0.08),
    (_batch_with_bad_images, 0.03),
    (_broken, 0.08),
    (_wrong_query, 0.03),
    (_reading, 0.03),
)


def _image(random: Random) -> tuple[bytes, str]:
    pixels = _pixels(random, 1)[0]
    kind = random.choice(("npy", "png", "jpeg"))
    if kind == "npy":
        return _npy(pixels), "application/x-npy"
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue(), f"image/{kind}"


def _pixels(random: Random, number: int) -> np.ndarray:
    generator = np.random.default_rng(random.getrandbits(32))
    return generator.integers(0, 256, (number, _SIDE, _SIDE, 3), dtype=np.uint8)


def _npy(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, pixels)
    return file.getvalue()
