import io
import json
import logging
import sys
import warnings
from typing import Any

import pytest

from service.log import JsonFormatter, configure_logging


def line_of(formatter: logging.Formatter, **fields: object) -> dict[str, Any]:
    record = logging.makeLogRecord(
        {"name": "a.b", "levelname": "INFO", "msg": "%d things", "args": (3,), **fields}
    )
    written = formatter.format(record)
    assert "\n" not in written
    line: dict[str, Any] = json.loads(written)
    return line


def test_a_record_is_one_json_object_on_one_line():
    line = line_of(JsonFormatter(lambda: None), created=0.0, msg="%d\nthings ")

    assert line == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "info",
        "logger": "a.b",
        "message": "3\nthings",
    }


def test_a_line_names_the_request_it_is_about():
    assert line_of(JsonFormatter(lambda: "abc"))["request_id"] == "abc"


def test_extra_fields_become_members():
    line = line_of(JsonFormatter(lambda: None), status=200, color_message="x", odd={1, 2}.__class__)

    assert line["status"] == 200
    assert line["odd"] == "<class 'set'>"
    assert "color_message" not in line


def test_a_traceback_stays_on_the_line():
    with pytest.raises(ZeroDivisionError) as raised:
        _ = 1 / 0
    error = raised.value

    line = line_of(JsonFormatter(lambda: None), exc_info=(type(error), error, error.__traceback__))

    assert "ZeroDivisionError" in line["traceback"]


@pytest.mark.usefixtures("own_logging")
def test_everything_comes_out_the_same_way_also_what_libraries_say():
    sink = io.StringIO()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(sys.stdout))

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        configure_logging("info", request_id=lambda: "abc", stream=sink)
        logging.getLogger("uvicorn.error").info("Started %d", 1)
        logging.getLogger("service").debug("unheard")
        warnings.warn("careful", UserWarning, stacklevel=1)

    lines = [json.loads(line) for line in sink.getvalue().splitlines()]
    assert [line["logger"] for line in lines] == ["uvicorn.error", "py.warnings"]
    assert lines[0]["message"] == "Started 1"
    assert {line["request_id"] for line in lines} == {"abc"}
