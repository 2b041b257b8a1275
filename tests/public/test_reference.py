"""The page of public names, and what their docstrings say."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from holdfast.client import Run, Session, connect
from holdfast.server import Run as AgentRun
from holdfast.server import Server
from holdfast.server.agents.openai import openai_agent
from holdfast.server.agents.tools import tool
from tests.public.surface import PUBLIC, exported

PAGE: Final = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")


def test_the_page_lists_the_public_names() -> None:
    """Each public package has its section, and the names there are those of `__all__`, once each."""
    _, *sections = re.split(r"^## ", PAGE, flags=re.M)
    listed: dict[str, list[str]] = {}
    for section in sections:
        package = re.match(r"`(holdfast[\w.]*)`", section)
        if package is not None:
            listed[package[1]] = sorted(re.findall(r"`(\w+)`", section.partition("\n")[2]))
    assert listed == {package: sorted(exported(package)) for package in PUBLIC}


EXPLAINED: Final[list[Callable[..., Any]]] = [
    connect,
    Session.send,
    Session.cancel,
    Session.cancel_all,
    Session.steer,
    Session.withdraw,
    Session.answer,
    Session.history,
    Session.events,
    Run.cancel,
    Run.steer,
    Server.add_agent,
    Server.running,
    Server.serve,
    AgentRun.ask,
    openai_agent,
    tool,
]
"""What users call most."""


@pytest.mark.parametrize("function", EXPLAINED, ids=lambda function: function.__qualname__)
def test_each_parameter_is_explained(function: Callable[..., Any]) -> None:
    """The docstring of what users call names every parameter."""
    text = inspect.getdoc(function) or ""
    silent = (
        {"self", "kind", "fields"} if function is AgentRun.ask else {"self"}
    )  # it goes by kind, and each has fields
    unexplained = [name for name in inspect.signature(function).parameters if f"`{name}`" not in text]
    assert set(unexplained) <= silent
