"""What a client sends: `hello`, the commands, and the pong for a heartbeat; checked where it comes in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeAlias, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from holdfast.protocol.errors import CommandError
from holdfast.protocol.events import Boundary, IfEnded, Part, Position
from holdfast.protocol.values import ID_PATTERN, JSON, MAX_INTEGER, VALUE_DEPTH, nests_deeper

CommandType = Literal["send", "cancel", "steer", "withdraw", "answer", "history", "auth", "ping"]
WhenBusy = Literal["queue", "interrupt", "alongside", "reject", "steer"]
IfUnknown = Literal["ignore", "prevent"]

Id = Annotated[str, Field(pattern=ID_PATTERN)]
Seq = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Milliseconds = Annotated[int, Field(ge=0, le=MAX_INTEGER)]


def _shallow(value: JSON) -> JSON:
    if nests_deeper(value, VALUE_DEPTH):
        raise ValueError(f"nests at most {VALUE_DEPTH} deep")
    return value


# The application's own: it travels on to readers inside of events and snapshots, and is as deep as these have room.
FreeValue = Annotated[JsonValue, AfterValidator(_shallow)]
FreeObject = Annotated[dict[str, JsonValue], AfterValidator(_shallow)]


class _Model(BaseModel):
    # Unknown fields are refused: a field ignored would be a promise broken.
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True, strict=True)


class SeenPosition(_Model):
    """A position that was on screen."""

    epoch: Annotated[str, Field(min_length=1, max_length=128)]
    seq: Seq

    def position(self) -> Position:
        """The plain value, as events carry it."""
        return {"epoch": self.epoch, "seq": self.seq}


class TextPart(_Model):
    """Text written by the user."""

    kind: Literal["text"]
    text: str


class FilePart(_Model):
    """A file that the user refers to."""

    kind: Literal["file"]
    url: Annotated[str, Field(min_length=1)]
    media_type: Annotated[str, Field(min_length=1, max_length=256)]
    name: str | None = None


UserPart = Annotated[TextPart | FilePart, Field(discriminator="kind")]


class _Command(_Model):
    id: Id
    trace: Annotated[str, Field(pattern=r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")] | None = None


class _Content(_Command):
    text: str | None = None
    parts: Annotated[list[UserPart], Field(min_length=1, max_length=64)] | None = None

    @model_validator(mode="after")
    def _one_of_text_and_parts(self) -> Self:
        if (self.text is None) == (self.parts is None):
            raise ValueError("give exactly one of text and parts")
        return self

    def content(self) -> list[Part]:
        """The parts as events carry them; `text` is one text part."""
        if self.parts is None:
            return [{"kind": "text", "text": self.text}]
        return [part.model_dump(by_alias=True, exclude_none=True) for part in self.parts]


class WhenAbandoned(_Model):
    """Ends a run that nobody has watched for `cancel_after_ms`."""

    cancel_after_ms: Milliseconds


class Send(_Content):
    """A user's message, and the run that answers it."""

    type: Literal["send"] = "send"
    run_id: Id | None = None
    message_id: Id | None = None
    agent: Id | None = None
    when_busy: WhenBusy = "queue"
    seen: SeenPosition | None = None
    when_abandoned: WhenAbandoned | None = None
    deadline_ms: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None
    metadata: FreeObject | None = None

    @model_validator(mode="after")
    def _seen_only_with_interrupt(self) -> Self:
        if self.seen is not None and self.when_busy != "interrupt":
            raise ValueError("seen goes with whenBusy interrupt")
        return self

    @property
    def run(self) -> str:
        """The id of the run: the command's own where none was given."""
        return self.run_id or self.id


class Cancel(_Command):
    """Stops one run by its id, or all that were there at a position."""

    type: Literal["cancel"] = "cancel"
    run_id: Id | None = None
    seen: SeenPosition | None = None
    if_unknown: IfUnknown = "ignore"
    scope: Literal["session"] | None = None
    up_to: SeenPosition | None = None

    @model_validator(mode="after")
    def _run_or_scope(self) -> Self:
        if (self.run_id is None) == (self.scope is None):
            raise ValueError("give exactly one of runId and scope")
        if (self.scope is None) != (self.up_to is None):
            raise ValueError("scope and upTo go together")
        if self.scope is not None and self.if_unknown != "ignore":
            raise ValueError("ifUnknown goes with runId")
        return self


class Steer(_Content):
    """A message for a run that is going on."""

    type: Literal["steer"] = "steer"
    run_id: Id | None = None
    boundary: Boundary = "now"
    if_ended: IfEnded = "return"
    seen: SeenPosition | None = None

    @model_validator(mode="after")
    def _seen_only_with_now(self) -> Self:
        if self.seen is not None and self.boundary != "now":
            raise ValueError("seen goes with boundary now")
        return self


class Withdraw(_Command):
    """Takes back a steer that was not applied yet."""

    type: Literal["withdraw"] = "withdraw"
    steer_id: Id


class Answer(_Command):
    """Answers a request of a run."""

    type: Literal["answer"] = "answer"
    run_id: Id
    request_id: Id
    value: FreeValue


class History(_Command):
    """Asks for older messages: the `limit` last ones before `before`."""

    type: Literal["history"] = "history"
    before: Seq | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 50


class Auth(_Command):
    """Refreshes the token of this connection; the principal stays the same."""

    type: Literal["auth"] = "auth"
    token: str


class Ping(_Command):
    """Asks for the head; its reply is `pong`."""

    type: Literal["ping"] = "ping"


Command: TypeAlias = Send | Cancel | Steer | Withdraw | Answer | History | Auth | Ping

_ModelT = TypeVar("_ModelT", bound=BaseModel)
_PART_KINDS = frozenset({"text", "file"})
_COMMANDS: dict[str, type[Command]] = {
    "send": Send,
    "cancel": Cancel,
    "steer": Steer,
    "withdraw": Withdraw,
    "answer": Answer,
    "history": History,
    "auth": Auth,
    "ping": Ping,
}


class Cursor(BaseModel):
    """Where a client stands: a position, and the time of the event there (absent for seq 0)."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    epoch: Annotated[str, Field(min_length=1, max_length=128)]
    seq: Seq
    at: Milliseconds | None = None


class Hello(BaseModel):
    """The first message of a connection. Unknown fields in it are ignored."""

    model_config = ConfigDict(alias_generator=to_camel, extra="ignore", frozen=True, strict=True)

    type: Literal["hello"] = "hello"
    token: str | None = None
    device: Id | None = None
    client: Annotated[str, Field(max_length=128)] | None = None
    features: list[str] = Field(default_factory=list)
    cursor: Cursor | None = None
    messages: Annotated[int, Field(ge=0, le=200)] = 50


def parse_command(message: Mapping[str, Any]) -> Command:
    """The command in a decoded message.

    Raises CommandError `unknown_type`, or `invalid` with the path of the first field at fault.
    """
    kind = message.get("type")
    model = _COMMANDS.get(kind) if isinstance(kind, str) else None
    if model is None:
        code = "unknown_type" if isinstance(kind, str) else "invalid"
        raise CommandError(code, "type names no command of this protocol", path="$.type")
    return _validated(model, message)


def parse_hello(message: Mapping[str, Any]) -> Hello:
    """The hello in a decoded message of that type. Raises CommandError `invalid` with the path at fault."""
    return _validated(Hello, message)


def _validated(model: type[_ModelT], message: Mapping[str, Any]) -> _ModelT:
    try:
        return model.model_validate(message)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise CommandError("invalid", first["msg"].removeprefix("Value error, "), path=_path(first["loc"])) from None


def _path(location: tuple[int | str, ...]) -> str:
    """`$.parts[0].text` for pydantic's location; the tags of unions in it name no field and are left out."""
    path = "$"
    for before, step in zip((None, *location), location, strict=False):
        if isinstance(step, int):
            path += f"[{step}]"
        elif not isinstance(before, int) or step not in _PART_KINDS:
            path += f".{step}"
    return path
