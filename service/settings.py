"""Every knob of the server; the only module that reads the environment.

A setting is the environment variable ``ANYTIME_`` and the field's name in capitals. What each is
for, its unit and its default are also in ``docs/settings.md``; a test keeps the two together.
"""

import difflib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

import model_store

ENVIRONMENT_PREFIX: Final = "ANYTIME_"
_MIB: Final = 2**20
_TEST_PREFIX: Final = "ANYTIME_TEST_"  # read by the test suite, not by the server


def split_roots(value: object) -> object:
    """Split ``a:b`` into roots; a colon before ``//`` belongs to a URL and splits nothing.

    Raises:
        ValueError: A root is a URL, which nothing here can open, or there is no root.
    """
    if not isinstance(value, str):
        return value
    roots = tuple(root for root in re.split(r":(?!//)", value) if root)
    remote = [root for root in roots if "://" in root]
    if remote:
        raise ValueError(f"remote roots cannot be served: {', '.join(remote)}")
    if not roots:
        raise ValueError("no root named")
    return roots


ModelRoots = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(split_roots)]


class Settings(BaseSettings):
    """How one server process is set up; read once, at the start."""

    model_config = SettingsConfigDict(
        env_prefix=ENVIRONMENT_PREFIX,
        env_ignore_empty=True,  # compose files pass on variables that are not set as empty
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
    )

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(
        8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one."
    )
    model_store: ModelRoots = Field(
        (Path(model_store.__file__).parent / "bundles",),
        min_length=1,
        description="Roots of bundles, separated by colons; later ones win.",
    )
    default_model: str | None = Field(
        None,
        min_length=1,
        description="`name` or `name@version` for requests that name none; unset: the only one.",
    )
    device: str = Field(
        "cpu",
        pattern=r"^(cpu|auto|cuda(:\d+)?)$",
        description="`cpu`, `cuda`, `cuda:1`, or `auto`, which takes what is there and says so.",
    )
    frontends: PositiveInt = Field(
        1,
        le=64,
        description="HTTP processes that share one engine process; 1: everything in one process.",
    )
    lanes: PositiveInt | None = Field(
        None, description="Batches that run side by side; unset: measured at the start."
    )
    threads: PositiveInt | None = Field(
        None, description="Threads that one batch is spread over; unset: measured at the start."
    )
    lane_processes: bool = Field(
        default=True,
        description="Run stages in processes of their own, a lane each; ONNX graphs on CPUs alone.",
    )
    lane_nice: NonNegativeInt = Field(
        20,
        le=20,
        description="By how much lanes stand back for the event loop, as `nice` counts; 20: they "
        "run only while nothing else wants the core.",
    )
    max_batch: PositiveInt = Field(
        32, le=1024, description="Most images that run one stage together."
    )
    batch_window: PositiveInt = Field(
        256,
        le=4096,
        description="Images of a batch that are decided together; larger batches run in windows.",
    )
    soft_deadline_ms: PositiveFloat = Field(
        2000, description="When a request without a deadline counts as due."
    )
    batch_soft_deadline_ms: PositiveFloat = Field(
        60_000, description="The same for a batch without a deadline."
    )
    background_share: NonNegativeFloat = Field(
        0.1,
        le=0.5,
        description="Part of the lanes' time for overdue work that has no deadline.",
    )
    wedged_s: PositiveFloat = Field(
        5, description="A stage that runs for so long, and 10 times its usual, ends the process."
    )
    max_in_flight: PositiveInt = Field(
        1024, description="Images admitted and not yet settled; beyond it requests are refused."
    )
    max_feature_mib: PositiveInt = Field(
        1024,
        description="Memory, in MiB, that features between stages may take, charged at admission.",
    )
    max_body_mib: PositiveInt = Field(16, description="Largest body of `/classify`, in MiB.")
    max_batch_body_mib: PositiveInt = Field(256, description="Largest body of `/batch`, in MiB.")
    max_buffered_mib: PositiveInt = Field(
        1024, description="Memory, in MiB, that all bodies being handled may take together."
    )
    max_megapixels: PositiveFloat = Field(25, description="Largest image, in megapixels.")
    max_batch_images: PositiveInt = Field(10_000, description="Most images in one batch.")
    body_timeout_s: PositiveFloat = Field(
        30, description="Seconds from the first byte within which a whole body must arrive."
    )
    drain_s: NonNegativeFloat = Field(
        0,
        description="Seconds of taking requests, unready, after SIGTERM, so that balancers notice.",
    )
    shutdown_timeout_s: PositiveFloat = Field(
        60, description="Seconds that requests in flight get to finish once the listener is closed."
    )
    allow_torchscript: bool = Field(
        default=False, description="Open bundles with TorchScript graphs, which are code."
    )
    trust_request_start: bool = Field(
        default=False, description="Believe `X-Request-Start: t=<unix µs>` of a proxy in front."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line that is written."
    )
    switch_interval_ms: PositiveFloat = Field(
        1, le=100, description="How long one Python thread may keep the others waiting."
    )

    @property
    def max_body_bytes(self) -> int:
        """Largest body of `/classify`."""
        return self.max_body_mib * _MIB

    @property
    def max_batch_body_bytes(self) -> int:
        """Largest body of `/batch`."""
        return self.max_batch_body_mib * _MIB

    @property
    def max_buffered_bytes(self) -> int:
        """Most memory that bodies may take together, never less than one body of the largest."""
        largest = max(self.max_body_mib, self.max_batch_body_mib)
        return max(self.max_buffered_mib, largest) * _MIB

    @property
    def max_pixels(self) -> int:
        """Most pixels of one image."""
        return int(self.max_megapixels * 1e6)


def name_unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Say which variables look like settings and are none, so that a typo does not pass unseen.

    Returns:
        One phrase for each, with the nearest setting there is.
    """
    known = [f"{ENVIRONMENT_PREFIX}{name.upper()}" for name in Settings.model_fields]
    unknown = sorted(
        name
        for name in environment
        if name.startswith(ENVIRONMENT_PREFIX)
        and not name.startswith(_TEST_PREFIX)
        and name not in known
    )
    return tuple(
        f"{name} (nearest: {difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]})"
        for name in unknown
    )


def read_environment() -> Mapping[str, str]:
    """Return the process's environment, for `name_unknown_variables`."""
    return os.environ
