"""What the client knows of the session: the folded log, and how each run of it ended. Pure.

Readers never get queues of their own: they look here, by how much they have already taken.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from holdfast.protocol import Event, Message, Part, Position, Snapshot, Transcript
from holdfast.protocol.events import EndReason, MessageStatus, Request, RunInfo, RunStatus
from holdfast.protocol.messages import OpenMessage

RunState: TypeAlias = RunStatus | Literal["unknown"]

ENDINGS_KEPT: Final = 256
"""How many ended runs are remembered beside the transcript, for their usage, error and returned steers."""
MESSAGES_KEPT: Final = 1_000
"""How many messages a client holds; older ones go first and can be had again as history."""


@dataclass(frozen=True, slots=True)
class Reset:
    """Everything known was replaced by a snapshot at `position`: what led there is not told event by event.

    `new_epoch`: the server's log is another one than before, and what it had acknowledged may be gone.
    """

    position: Position
    new_epoch: bool


News: TypeAlias = Event | Reset


@dataclass(slots=True)
class TextCursor:
    """How much of a run's text a reader has taken: code points, by text part in order of appearance.

    Text parts are counted among themselves and not by part number, because a cut message loses parts at its end
    only. So a shorter text after a snapshot or a cut never makes a reader see anything twice.
    """

    taken: list[int] = field(default_factory=list[int])

    def advance(self, texts: Iterable[str]) -> str:
        """The text that was not taken yet; it is taken now."""
        new: list[str] = []
        for number, text in enumerate(texts):
            if number == len(self.taken):
                self.taken.append(0)
            if len(text) > self.taken[number]:
                new.append(text[self.taken[number] :])
                self.taken[number] = len(text)
        return "".join(new)


class View:
    """The session as this client knows it."""

    def __init__(self, *, messages_kept: int = MESSAGES_KEPT) -> None:
        self.transcript = Transcript()
        self._endings: OrderedDict[str, RunInfo] = OrderedDict()
        self._enders: dict[str, tuple[str | None, str | None]] = {}
        """Who ended a run, and on which device, where the event told; only of runs in `_endings`."""
        self._message_ids: dict[str, str] = {}
        """The id of the assistant message by run id."""
        self._order: deque[tuple[str, str]] = deque()
        """(message id, run id) of what the transcript holds, oldest first."""
        self._messages_kept = messages_kept

    @property
    def position(self) -> Position:
        """Up to where everything is known. The epoch is empty before the first contact."""
        return {"epoch": self.transcript.epoch, "seq": self.transcript.seq}

    def cursor(self) -> dict[str, Any] | None:
        """What a hello resumes from; None before the first contact."""
        if not self.transcript.epoch:
            return None
        cursor: dict[str, Any] = {**self.position}
        if self.transcript.seq > 0:
            cursor["at"] = self.transcript.at
        return cursor

    def apply(self, event: Mapping[str, Any]) -> None:
        """Folds the next event."""
        self.transcript.apply(event)
        match event["type"]:
            case "message":
                self._order.append((event["message"]["id"], event["runId"]))
            case "run.started":
                if event["runId"] not in self._message_ids:
                    self._message_ids[event["runId"]] = event["messageId"]
                    self._order.append((event["messageId"], event["runId"]))
            case "run.ended":
                self._remember_ending(self.transcript.runs[event["runId"]].info)
                self._enders[event["runId"]] = (event.get("by"), event.get("device"))
                self._forget_oldest()
            case _:
                pass

    def load(self, snapshot: Snapshot) -> Reset | None:
        """Takes in a snapshot, which may be one of several; the reset it amounts to once it is complete."""
        before = self.transcript.epoch
        if not self.transcript.load(snapshot):
            return None
        self._message_ids = {}
        self._order = deque()
        for message in self.transcript.messages():
            run_id = message.get("runId", "")
            self._order.append((message["id"], run_id))
            if message["role"] == "assistant":
                self._message_ids[run_id] = message["id"]
        for run in self.transcript.runs.values():
            if run.ended:
                self._remember_ending(run.info)
            else:  # it may have ended in a log that is gone, and goes on in this one
                self._endings.pop(run.info["runId"], None)
                self._enders.pop(run.info["runId"], None)
        return Reset(self.position, new_epoch=before not in ("", self.transcript.epoch))

    def status(self, run_id: str) -> RunState:
        """The run's status; `unknown` where neither the runs nor the messages held here name it."""
        run = self.transcript.runs.get(run_id)
        if run is not None:
            return run.info["status"]
        return "ended" if run_id in self._endings or run_id in self._message_ids else "unknown"

    def reason(self, run_id: str) -> EndReason | None:
        """Why the run ended; None while it has not, or where nothing here tells."""
        ending = self._endings.get(run_id)
        if ending is not None:
            return ending.get("reason")
        run = self.transcript.runs.get(run_id)
        if run is not None:
            return run.info.get("reason")
        message = self.message(run_id)
        return None if message is None else reason_of(message)

    def ending(self, run_id: str) -> RunInfo | None:
        """How the run ended, if this client was told, by the event or by a snapshot, and not too many ended since."""
        return self._endings.get(run_id)

    def ender(self, run_id: str) -> tuple[str | None, str | None]:
        """Who ended the run, on which device: what its `run.ended` said, where this client got that event."""
        return self._enders.get(run_id, (None, None))

    def _remember_ending(self, info: RunInfo) -> None:
        self._endings[info["runId"]] = info
        if len(self._endings) > ENDINGS_KEPT:
            forgotten, _ = self._endings.popitem(last=False)
            self._enders.pop(forgotten, None)

    def requests(self, run_id: str) -> list[Request]:
        """What the run waits for."""
        run = self.transcript.runs.get(run_id)
        return [] if run is None else [*run.info["requests"]]

    def message(self, run_id: str) -> Message | None:
        """What the assistant said in the run, as far as it is known; None where there is nothing, or it is not held."""
        message_id = self._message_ids.get(run_id)
        return None if message_id is None else self.transcript.message(message_id)

    def has_message(self, run_id: str) -> bool:
        """Whether the assistant's message of the run is held, however short."""
        return run_id in self._message_ids

    def message_expected(self, run_id: str) -> bool:
        """Whether the run has a message of the assistant, here or in the history: not where it never started."""
        run = self.transcript.runs.get(run_id)
        return run is None or "startedSeq" in run.info or "messageId" in run.info

    def texts(self, run_id: str) -> list[str]:
        """The texts of the run's text parts, in order. Costs nothing but a look while the run goes on."""
        run = self.transcript.runs.get(run_id)
        if run is not None and isinstance(run.message, OpenMessage):
            return [part.text for part in run.message.parts if part.kind == "text"]
        message = self.message(run_id)
        return [] if message is None else texts_of(message["parts"])

    def _forget_oldest(self) -> None:
        for _ in range(len(self._order) - self._messages_kept):
            message_id, run_id = self._order[0]
            if self.status(run_id) not in ("ended", "unknown"):  # that of a newer server may be another one
                return
            self._order.popleft()
            self.transcript.forget([message_id])
            self.transcript.more = True
            if self._message_ids.get(run_id) == message_id:
                del self._message_ids[run_id]


_REASON_OF_STATUS: Final[Mapping[MessageStatus, EndReason | None]] = {
    "streaming": None,
    "complete": "completed",
    "error": "failed",
    "interrupted": "cancelled",
}


def texts_of(parts: Iterable[Part]) -> list[str]:
    """The texts of the text parts among `parts`."""
    return [str(part.get("text", "")) for part in parts if part["kind"] == "text"]


def reason_of(message: Message) -> EndReason | None:
    """Why the run behind a message of the assistant ended, as the message alone tells it."""
    if "reason" in message:
        return message["reason"]
    return _REASON_OF_STATUS.get(message["status"], "cancelled")  # of a newer server: as `interrupted`
