"""Python functions as tools."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import pytest
from pydantic import Field

from holdfast.server.agents.tools import OUTPUT_BYTES, Tool, tool
from holdfast.server.errors import ToolError
from tests.support.fake_run import FakeRun

if TYPE_CHECKING:
    from holdfast.server.agents.run import Run


@dataclass
class Place:
    """A dataclass as a parameter and as a result."""

    city: str
    nights: int = 1


@tool(approval=True)
async def book(
    place: Place,
    board: Literal["none", "half"] = "none",
    schema: Annotated[int, Field(ge=0, description="a name that a model's field may not have")] = 0,
) -> Place:
    """Book a room
    somewhere.

    What follows is for programmers.
    """
    assert isinstance(place, Place)
    return place


async def called(chosen: Tool, arguments: str) -> Any:
    """The result of a call as a model makes it."""
    run = cast("Run", FakeRun([]))
    return await chosen.call(run, chosen.check(arguments))


def test_schema_comes_from_the_signature() -> None:
    """Names, types, defaults and descriptions of the parameters are in the schema, and nothing else is
    allowed.
    """
    assert (book.name, book.description, book.approval) == ("book", "Book a room somewhere.", True)
    properties = cast("dict[str, Any]", book.schema["properties"])
    assert list(properties) == ["place", "board", "schema"]
    assert properties["board"] == {"default": "none", "enum": ["none", "half"], "type": "string"}
    assert properties["schema"]["description"] == "a name that a model's field may not have"
    assert book.schema["required"] == ["place"]
    assert book.schema["additionalProperties"] is False


async def test_arguments_become_the_annotated_types() -> None:
    """The function receives its own types, and what it returns becomes JSON."""
    assert await called(book, '{"place":{"city":"Lisbon"}}') == {"city": "Lisbon", "nights": 1}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"place":{"nights":2}}', "place.city: Field required"),
        ('{"place":{"city":"L"},"board":"full"}', "board: Input should be 'none' or 'half'"),
        ('{"place":{"city":"L"},"more":1}', "more: Extra inputs are not permitted"),
        ('{"place":{"city":"Secr', "$: Invalid JSON"),
        ("[]", "$: "),
    ],
)
def test_wrong_arguments_name_the_place(arguments: str, said: str) -> None:
    """What does not fit the signature is refused with the place at fault, without the values."""
    with pytest.raises(ToolError, match="the arguments are not valid") as refused:
        book.check(arguments)
    assert said in str(refused.value)
    assert "Secr" not in str(refused.value)


async def test_synchronous_functions_run_in_a_thread() -> None:
    """A function that blocks does not block the loop, and sees the run it works for."""
    on_loop = threading.current_thread()
    seen: list[object] = []

    @tool
    def slow(run: Run, times: int = 2) -> int:
        seen.extend([run, threading.current_thread()])
        return times

    run = cast("Run", FakeRun([]))
    assert await slow.call(run, slow.check("")) == 2
    assert seen[0] is run
    assert seen[1] is not on_loop
    assert list(cast("dict[str, Any]", slow.schema["properties"])) == ["times"]


async def test_functions_that_return_an_awaitable_are_awaited() -> None:
    """A callable that is not a coroutine function, but returns a coroutine, gives that one's result."""

    async def inner() -> str:
        await asyncio.sleep(0)
        return "done"

    assert await called(Tool(lambda: inner(), name="wrapped"), "{}") == "done"


async def test_exceptions_of_tools_are_hidden() -> None:
    """Only the message of a ToolError reaches the model; any other failure has a fixed one."""

    async def fails() -> None:
        raise RuntimeError("password=1234")

    async def explains() -> None:
        raise ToolError("there is no such city")

    with pytest.raises(ToolError, match=r"^the tool failed$"):
        await called(Tool(fails), "")
    with pytest.raises(ToolError, match=r"^there is no such city$"):
        await called(Tool(explains), "")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (object(), "not a JSON value"),
        (float("nan"), "not a JSON value"),
        (2**60, "not a JSON value"),
        ("x" * OUTPUT_BYTES, "too large"),
    ],
)
async def test_results_that_cannot_be_stored_are_errors_of_the_tool(value: object, said: str) -> None:
    """A result that the log would refuse fails the call and not the run."""
    with pytest.raises(ToolError, match=said):
        await called(Tool(lambda: value, name="odd"), "")


def _positional(value: int, /) -> None: ...
def _many(*values: int) -> None: ...
def _named(**values: int) -> None: ...


@pytest.mark.parametrize("function", [_positional, _many, _named])
def test_signatures_that_no_object_can_fill_are_refused(function: Callable[..., None]) -> None:
    """A tool that could never be called is refused where it is made."""
    with pytest.raises(TypeError, match="cannot be filled from a JSON object"):
        Tool(function)
