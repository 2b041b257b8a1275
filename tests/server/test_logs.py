"""What stands in the log's lines, and what never may."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from holdfast.server.logs import LogFormat, configure_logging


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Whatever a test sets up, the next one finds logging as this one did."""
    root, ours = logging.getLogger(), logging.getLogger("holdfast")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    yield
    root.handlers = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])
    structlog.reset_defaults()


def _fail(token: str) -> None:
    prompt = [token, "what the user wrote"]
    raise ValueError(f"{len(prompt)} things went wrong")


@pytest.mark.parametrize("format", ["console", "json"])
@pytest.mark.parametrize("standard", [False, True])
def test_a_traceback_shows_no_local_variables(format: LogFormat, standard: bool) -> None:
    """An error's place and text are logged, and never the tokens and the content that its frames held."""
    out = io.StringIO()
    configure_logging("info", format, stream=out)
    secret = "-".join(("sesame", "open"))
    try:
        _fail(secret)
    except ValueError:
        if standard:
            logging.getLogger("holdfast.test").exception("it failed")
        else:
            structlog.stdlib.get_logger("holdfast.test").exception("it failed")
    written = out.getvalue()
    assert "_fail" in written
    assert "2 things went wrong" in written
    assert secret not in written
    assert written.count("\n") == 1 or format == "console"


def test_one_object_per_line() -> None:
    """Without a terminal every line is JSON, with the names of what it is about, the standard library's too."""
    out = io.StringIO()
    configure_logging("info", stream=out)
    structlog.stdlib.get_logger("holdfast.test").info("begun", session="s", text="two\nlines")
    logging.getLogger("elsewhere").warning("worrying")
    logging.getLogger("elsewhere").info("chatter")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("begun", "info"), ("worrying", "warning")]
    assert (lines[0]["session"], lines[0]["text"]) == ("s", "two\nlines")
