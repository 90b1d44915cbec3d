"""The service with a `ReplayedBackend`.

`python -m benchmarks.serving.replayed_server FILE` replays the logits of `LabelledImages` in FILE;
settings come from the environment.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.serving.images import LabelledImages
from benchmarks.serving.replayed_backend import ReplayedBackend
from benchmarks.wrapped_lanes import wrapped
from model_store.reader import Bundle
from service.api.server import DrainingServer
from service.app import build_backend, create_app
from service.backends.base import ModelKey, StageBackend
from service.engine.clock import MonotonicClock
from service.settings import Settings


def main(file: Path) -> int:
    """Serve until told to leave."""
    logits = LabelledImages.read(file).logits
    settings = Settings()

    def build(bundles: Mapping[ModelKey, Bundle], chosen: Settings) -> StageBackend:
        real = build_backend(bundles, chosen)
        return wrapped(ReplayedBackend(real, logits), real)

    DrainingServer(create_app(settings, build=build), settings, MonotonicClock()).run()
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
