"""The service as it is, but for a list of what its lanes ran.

`python -m benchmarks.overheads.recorded_server FILE` takes its settings from the environment like
`anytime`.
"""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks.overheads.call_log import CallLog
from benchmarks.overheads.recording_backend import RecordingBackend
from benchmarks.wrapped_lanes import wrapped
from model_store.reader import Bundle
from service.api.server import DrainingServer
from service.app import build_backend, create_app
from service.backends.base import ModelKey, StageBackend
from service.engine.clock import MonotonicClock
from service.settings import Settings


def main() -> int:
    """Serve until told to leave."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", type=Path)
    log = CallLog(parser.parse_args().calls)

    def build(bundles: Mapping[ModelKey, Bundle], settings: Settings) -> StageBackend:
        backend = build_backend(bundles, settings)
        recording = RecordingBackend(backend, log, num_threads=settings.threads or 1)
        return wrapped(recording, backend)

    settings = Settings()
    server = DrainingServer(create_app(settings, build=build), settings, MonotonicClock())
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(main())
