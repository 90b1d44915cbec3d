import argparse
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from service.cli import EXIT_FAILED, build_parser, main, read_settings
from service.settings import read_environment

pytestmark = pytest.mark.usefixtures("own_logging")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch):
    for name in read_environment():
        if name.startswith("ANYTIME_"):
            monkeypatch.delenv(name)


@pytest.fixture
def own_switch_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def options(*arguments: str) -> argparse.Namespace:
    return build_parser().parse_args(arguments)


def test_the_command_line_outranks_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ANYTIME_PORT", "9000")
    monkeypatch.setenv("ANYTIME_HOST", "10.0.0.1")

    settings = read_settings(options("--port", "9001"))

    assert (settings.host, settings.port) == ("10.0.0.1", 9001)


def test_what_the_command_line_says_is_held_to_the_same_limits():
    with pytest.raises(ValidationError, match="port"):
        read_settings(options("--port", "70000"))


def test_help_is_given(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["--help"])

    assert left.value.code == 0
    assert "--port" in capsys.readouterr().out


def test_a_setting_that_cannot_be_meant_stops_the_start(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("ANYTIME_MAX_BATCH", "none")

    with pytest.raises(SystemExit) as left:
        main([])

    assert left.value.code == 2
    assert "max_batch" in capsys.readouterr().err


@pytest.mark.usefixtures("own_switch_interval")
def test_nothing_to_serve_is_said_in_one_line_and_no_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("ANYTIME_MODEL_STORE", str(tmp_path))
    monkeypatch.setenv("ANYTIME_MAX_BODI_MIB", "3")
    monkeypatch.setenv("ANYTIME_SWITCH_INTERVAL_MS", "2")

    status = main([])

    assert status == EXIT_FAILED
    unknown, refused = map(json.loads, capsys.readouterr().err.splitlines())
    assert "ANYTIME_MAX_BODY_MIB" in unknown["message"]
    assert refused["level"] == "critical"
    assert refused["message"].startswith("cannot start: ")
    assert sys.getswitchinterval() == pytest.approx(0.002)
    assert logging.getLogger().level == logging.INFO
