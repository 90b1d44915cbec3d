"""What every peer runs: bodies → pixels → one static graph → labels.

Runs in the peers' environments, beside NumPy, Pillow and ONNX Runtime; neither pydantic nor onnx
is there. Decoding is as cheap as our own server's, so that none is slow for our code's sake.
"""

import io
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image

from model_store.preprocessing import fit, normalise, upright_rgb

SPEC_VARIABLE: Final = "PEER_SPEC"

_ARRAY_MAGIC: Final = b"\x93NUMPY\x01"
_HEADER_AT: Final = 10
_HEADER: Final = re.compile(
    rb"""\{'descr': '[|<]u1', 'fortran_order': False, 'shape': \((\d+), (\d+), 3\), \} *\n"""
)


@dataclass(frozen=True, slots=True)
class PeerSpec:
    """All a peer's server is told, in one environment variable."""

    graph: str  # file
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    height: int
    width: int
    port: int
    workers: int  # processes that run the graph
    threads: int  # of ONNX Runtime in each
    may_spin: bool  # whether those threads wait for work busily
    max_batch_size: int
    batch_wait_ms: float  # how long a batch that is not full waits for more
    timeout_ms: float | None  # after which a request is given up; None: never
    queue_size: int  # requests waiting, where the peer has a limit
    front_ends: int  # HTTP processes, where the peer has a choice
    ready_folder: str  # every worker leaves a file here when it is warm

    @classmethod
    def from_environment(cls) -> Self:
        """Return what the harness handed over."""
        return cls(**json.loads(os.environ[SPEC_VARIABLE]))

    def environment(self) -> dict[str, str]:
        """Return how it is handed over."""
        return {SPEC_VARIABLE: json.dumps(asdict(self))}


class StaticModel:
    """One session of the graph, warm at every batch size it will see."""

    def __init__(self, spec: PeerSpec) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = spec.threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "1" if spec.may_spin else "0"
        )
        self._session = onnxruntime.InferenceSession(
            spec.graph, options, providers=["CPUExecutionProvider"]
        )
        self._spec = spec
        self._input = self._session.get_inputs()[0].name
        blank = np.zeros((spec.height, spec.width, 3), np.uint8)
        for size in range(1, spec.max_batch_size + 1):
            self.labels([blank] * size)
        self.decode(_png(blank))  # Pillow loads its readers at the first picture
        (Path(spec.ready_folder) / str(os.getpid())).touch()

    def labels(self, images: Sequence[NDArray[np.uint8]]) -> list[int]:
        """Return the class of each image, all of the network's size."""
        inputs = normalise(np.stack(images), mean=self._spec.mean, std=self._spec.std)
        (logits,) = self._session.run(None, {self._input: inputs})
        return [int(label) for label in logits.argmax(axis=1)]

    def decode(self, body: bytes) -> NDArray[np.uint8]:
        """Return the pixels of a `.npy` or picture body at the network's size.

        Raises:
            ValueError: It is neither.
            OSError: Pillow cannot read it.
        """
        pixels = _view(body) if body.startswith(_ARRAY_MAGIC) else None
        if pixels is not None and pixels.shape[:2] == (self._spec.height, self._spec.width):
            return pixels
        image = Image.open(io.BytesIO(body)) if pixels is None else Image.fromarray(pixels)
        return fit(upright_rgb(image), height=self._spec.height, width=self._spec.width)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def _view(body: bytes) -> NDArray[np.uint8]:
    length = int.from_bytes(body[_HEADER_AT - 2 : _HEADER_AT], "little")
    header = _HEADER.fullmatch(body, _HEADER_AT, _HEADER_AT + length)
    if header is None:
        raise ValueError("the array is not uint8 of shape (height, width, 3)")
    height, width = int(header[1]), int(header[2])
    pixels = np.frombuffer(body, np.uint8, offset=_HEADER_AT + length)
    return pixels.reshape(height, width, 3)
