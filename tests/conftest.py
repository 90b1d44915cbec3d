"""Leaves out tests that need real images where there are none, and says so."""

import os
from pathlib import Path

import pytest

_DATA_VARIABLE = "ANYTIME_TEST_DATA"
_NUM_LEFT_OUT = pytest.StashKey[int]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    folder = os.environ.get(_DATA_VARIABLE)
    if folder and Path(folder).is_dir():
        return
    left_out = [item for item in items if item.get_closest_marker("images")]
    items[:] = [item for item in items if item not in set(left_out)]
    config.stash[_NUM_LEFT_OUT] = len(left_out)
    config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    left_out = terminalreporter.config.stash.get(_NUM_LEFT_OUT, 0)
    if left_out:
        terminalreporter.write_line(
            f"{left_out} TESTS WITH REAL IMAGES LEFT OUT: {_DATA_VARIABLE} names no folder",
            yellow=True,
            bold=True,
        )


@pytest.fixture(scope="session")
def image_folder() -> Path:
    """The folder of real images; only for tests marked `images`."""
    return Path(os.environ[_DATA_VARIABLE])
