"""Python functions that a model may call.

    @tool(approval=True)
    async def book(city: str, nights: int = 1) -> str:
        \"\"\"Book a hotel room.\"\"\"

The schema that the model sees comes from the signature; what the model sends is checked against it before the
function is called. A parameter named `run` is not the model's: it receives the Run, so that a long
synchronous tool can look at `run.cancelled`. Synchronous functions run in a thread.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast, overload

import orjson
import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticSerializationError, to_jsonable_python

from holdfast.protocol.errors import MalformedError
from holdfast.protocol.values import EVENT_BYTES, JSON, VALUE_DEPTH, clean
from holdfast.server.errors import ToolError

if TYPE_CHECKING:
    from holdfast.server.agents.run import Run

__all__ = ["Function", "Tool", "ToolError", "tool"]

Function: TypeAlias = Callable[..., Any]

OUTPUT_BYTES: Final = EVENT_BYTES - 4096
"""The largest result of a tool, encoded; the model is told that a larger one was refused."""

_log = structlog.stdlib.get_logger(__name__)


class Tool:
    """A function that a model may call, under `name`, with a person's approval first where `approval` is set.

    Name and description are the function's own where none are given (its docstring's first paragraph). Raises
    TypeError for a signature that no JSON object can fill: positional-only parameters, `*args`, `**kwargs`,
    or annotations that cannot be resolved.
    """

    def __init__(
        self,
        function: Function,
        name: str | None = None,
        description: str | None = None,
        approval: bool = False,
    ) -> None:
        self.function = function
        self.name: str = name or function.__name__
        self.description = description if description is not None else _first_paragraph(function)
        self.approval = approval
        self._wants_run = "run" in inspect.signature(function).parameters
        self._arguments = _model(function, self.name)
        self.schema: Mapping[str, JSON] = _schema(self._arguments)
        """The JSON schema of the arguments."""

    def check(self, arguments: str) -> Mapping[str, object]:
        """The function's arguments out of a JSON object as text. Raises ToolError, naming the places at
        fault.
        """
        try:
            checked = self._arguments.model_validate_json(arguments.strip() or "{}")
        except ValidationError as error:
            raise ToolError(f"the arguments are not valid: {_explain(error)}") from None
        return {field.alias or name: getattr(checked, name) for name, field in type(checked).model_fields.items()}

    async def call(self, run: Run, checked: Mapping[str, object]) -> JSON:
        """The result of the function, called with what `check` returned.

        Raises ToolError for whatever the function raises, with its own message only where it raised a
        ToolError. Cancellation reaches an async function at its await; a synchronous one is waited for.
        """
        given = {**checked, "run": run} if self._wants_run else checked
        try:
            if inspect.iscoroutinefunction(self.function):
                value: object = await self.function(**given)
            else:
                value = await run.to_thread(_bound(self.function, given))
                if inspect.isawaitable(value):
                    value = await cast("Awaitable[object]", value)
        except ToolError:
            raise
        except Exception as error:
            _log.warning("tool_failed", tool=self.name, session=run.session_id, run=run.run_id, exc_info=True)
            raise ToolError("the tool failed") from error
        return self._output(value)

    def _output(self, value: object) -> JSON:
        try:
            output = clean(to_jsonable_python(value), max_depth=VALUE_DEPTH)
            size = len(orjson.dumps(output))
        except (PydanticSerializationError, MalformedError, ValueError):
            raise ToolError("the tool's result is not a JSON value") from None
        if size > OUTPUT_BYTES:
            raise ToolError(f"the tool's result is too large: {size} bytes, at most {OUTPUT_BYTES}")
        return output


@overload
def tool(function: Function, /) -> Tool: ...
@overload
def tool(
    *, name: str | None = None, description: str | None = None, approval: bool = False
) -> Callable[[Function], Tool]: ...
def tool(
    function: Function | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    approval: bool = False,
) -> Tool | Callable[[Function], Tool]:
    """Makes a Tool of a function: `@tool`, or `@tool(approval=True)`.

    `function`: its parameters, with their types, are what the model has to give; one named `run` receives the Run.
    `name`: what the model calls it by; by default the function's name.
    `description`: what the model is told of it; by default the first paragraph of the function's docstring.
    `approval`: whether a person has to allow each call.
    """
    if function is not None:
        return Tool(function)

    def decorate(function: Function) -> Tool:
        return Tool(function, name, description, approval)

    return decorate


def _bound(function: Function, given: Mapping[str, object]) -> Callable[[], object]:
    return lambda: function(**given)


def _model(function: Function, name: str) -> type[BaseModel]:
    """A pydantic model of the function's parameters. Its fields have names of their own: a parameter may be
    called `schema` or `_x`, which a model's field may not.
    """
    # `Run` is commonly imported for type checking only.
    hints = typing.get_type_hints(function, localns={"Run": object}, include_extras=True)
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(inspect.signature(function).parameters.values()):
        if parameter.name == "run":
            continue
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
            raise TypeError(f"tool {name}: parameter {parameter.name} cannot be filled from a JSON object")
        default: object = ... if parameter.default is parameter.empty else parameter.default
        fields[f"argument_{number}"] = (hints.get(parameter.name, Any), Field(default, alias=parameter.name))
    return create_model(name, __config__=ConfigDict(extra="forbid"), **fields)


def _schema(model: type[BaseModel]) -> Mapping[str, JSON]:
    schema = cast("dict[str, JSON]", model.model_json_schema())
    schema.pop("title", None)
    properties = schema.get("properties")
    if isinstance(properties, dict):
        for entry in properties.values():
            if isinstance(entry, dict):
                entry.pop("title", None)
    return schema


def _first_paragraph(function: Function) -> str:
    return " ".join((inspect.getdoc(function) or "").partition("\n\n")[0].split())


def _explain(error: ValidationError) -> str:
    """Where and what, for the model to try again; the values are left out."""
    faults = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"{'.'.join(str(place) for place in fault['loc']) or '$'}: {fault['msg']}" for fault in faults[:8])
