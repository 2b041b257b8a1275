"""Folding events into messages and runs: the one meaning of a log, for the server and for its clients.

    transcript = Transcript()
    transcript.load(snapshot)      # or nothing: the beginning of a log
    transcript.apply(event)        # each event once, in order

`Transcript.messages()` and `Transcript.runs` are what is to be shown. The fold is lenient: an unknown event means
nothing but its seq, an unknown part kind is kept as it came, and what names a run that is not known is passed over
(its run ended before the snapshot). Legality is the registry's business, not the reader's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, cast

from holdfast.protocol.control import Snapshot
from holdfast.protocol.ends import end_of
from holdfast.protocol.events import Message, RunInfo
from holdfast.protocol.messages import OpenMessage, join_continued, reopen

ENDED_RUNS_KEPT: Final = 32
"""How many ended runs a view of a session keeps beside those that have not ended; the oldest go first."""


class TranscriptRun:
    """A run as its events tell it. `info` is the plain form of a snapshot."""

    __slots__ = ("info", "message")

    def __init__(self, info: RunInfo, message: OpenMessage | None = None) -> None:
        self.info = info
        self.message = message
        """Its assistant message: None before it started, and where a snapshot left it out."""

    @property
    def ended(self) -> bool:
        """Whether its terminal is in the log."""
        return self.info["status"] == "ended"

    def snapshot(self) -> RunInfo:
        """A copy of `info` that later events do not change."""
        info = self.info.copy()
        info["requests"] = [*info["requests"]]
        info["steers"] = [*info["steers"]]
        return info


class Transcript:
    """The messages and runs of a session, folded from its events.

    It holds every message it was told of until `forget`, and all runs that have not ended with the last
    `ENDED_RUNS_KEPT` of those that have.
    """

    def __init__(self) -> None:
        self.epoch = ""
        self.seq = 0
        """Of the last event folded."""
        self.at = 0
        """The time of the last event folded."""
        self.runs: dict[str, TranscriptRun] = {}
        """By run id, in the order of their first event."""
        self.more = False
        """Whether older messages than these can be had as history."""
        self._messages: dict[str, OpenMessage | Message] = {}
        self._ended: dict[str, None] = {}
        self._continued: list[Message] = []
        self._loading: list[RunInfo] = []
        self._loading_at: tuple[str, int] | None = None

    def apply(self, event: Mapping[str, Any]) -> None:
        """Folds one event. The caller sees to it that each comes once and in order."""
        self.seq = event["seq"]
        self.at = event["at"]
        fold = self._FOLDS.get(event["type"])
        if fold is not None:
            fold(self, event)

    def load(self, snapshot: Snapshot) -> bool:
        """Replaces everything by a snapshot; False while more messages of the same snapshot are to come.

        Until the last one is there, what was known before stays in force.
        """
        cut_at = (snapshot["epoch"], snapshot["seq"])
        if cut_at != self._loading_at:  # another snapshot has begun before the last one was whole
            self.discard_partial_snapshot()
            self._loading_at = cut_at
        self._continued = join_continued(self._continued, snapshot["messages"])
        self._loading.extend(snapshot["runs"])
        if not snapshot["last"]:
            return False
        messages, infos = self._continued, self._loading
        self.discard_partial_snapshot()
        self.epoch, self.seq, self.at = snapshot["epoch"], snapshot["seq"], snapshot["at"]
        self.more = snapshot["more"]
        self.runs, self._ended = {}, {}
        by_id = {message["id"]: message for message in messages}
        self._messages = {**by_id}
        for info in infos:
            run = TranscriptRun(info.copy())  # the fold changes it, and the snapshot is the caller's
            self.runs[info["runId"]] = run
            if run.ended:
                self._ended[info["runId"]] = None
                continue
            message = by_id.get(info.get("messageId", ""))
            if message is not None:
                run.message = reopen(message)
                self._messages[message["id"]] = run.message
        return True

    def restore(self, epoch: str, seq: int, at: int, *, runs: Iterable[TranscriptRun]) -> None:
        """Sets an empty transcript to a state kept elsewhere (the server's checkpoint)."""
        self.epoch, self.seq, self.at = epoch, seq, at
        self.runs = {run.info["runId"]: run for run in runs}
        self._ended = {run_id: None for run_id, run in self.runs.items() if run.ended}
        messages = [run.message for run in self.runs.values() if run.message is not None]
        # Runs stand in the order of their first event, which may be that of being queued.
        messages.sort(key=lambda message: message.fields["seq"])
        self._messages = {message.fields["id"]: message for message in messages}

    def copy(self) -> Transcript:
        """One that goes on without this one; what has ended in it is shared. Not while a snapshot is loaded."""
        twin = Transcript()
        twin.epoch, twin.seq, twin.at, twin.more = self.epoch, self.seq, self.at, self.more
        twin._messages, twin._ended = self._messages.copy(), self._ended.copy()
        for run_id, run in self.runs.items():
            message = None if run.message is None else run.message.copy()
            twin.runs[run_id] = TranscriptRun(run.info.copy(), message)
            if message is not None:
                twin._messages[message.fields["id"]] = message
        return twin

    @property
    def partial_snapshot(self) -> tuple[str, int] | None:
        """Epoch and seq of the snapshot of which some messages have come; None outside one."""
        return self._loading_at

    def discard_partial_snapshot(self) -> None:
        """Drops what came of a snapshot whose last message never did: the connection was lost in between."""
        self._continued, self._loading, self._loading_at = [], [], None

    def messages(self) -> list[Message]:
        """All messages held, in the order of the log. Those of ended runs are shared, not copied."""
        return [item.view() if isinstance(item, OpenMessage) else item for item in self._messages.values()]

    def finished(self) -> list[Message]:
        """Those of the messages that do not change any more."""
        return [item for item in self._messages.values() if not isinstance(item, OpenMessage)]

    def message(self, message_id: str) -> Message | None:
        """One message by its id."""
        item = self._messages.get(message_id)
        return item.view() if isinstance(item, OpenMessage) else item

    def has_message(self, message_id: str) -> bool:
        """Whether a message of that id is held."""
        return message_id in self._messages

    def forget(self, message_ids: Iterable[str]) -> None:
        """Drops messages that are kept elsewhere (the server's archive)."""
        for message_id in message_ids:
            self._messages.pop(message_id, None)

    def _message(self, event: Mapping[str, Any]) -> None:
        message: Any = {
            **event["message"],
            "seq": event["seq"],
            "after": event["after"],
            "runId": event["runId"],
            "status": "complete",
        }
        self._messages[message["id"]] = message

    def _queued(self, event: Mapping[str, Any]) -> None:
        info: RunInfo = {
            "runId": event["runId"],
            "status": "queued",
            "agent": event["agent"],
            "by": event["by"],
            "device": event["device"],
            "message": event["message"],
            "requests": [],
            "steers": [],
        }
        self.runs[event["runId"]] = TranscriptRun(info)

    def _started(self, event: Mapping[str, Any]) -> None:
        run_id: str = event["runId"]
        run = self.runs.get(run_id)
        if run is not None and run.info["status"] != "queued":  # another attempt goes on where the last one stopped
            run.info["status"] = "running"
            run.info["requests"] = []
            if run.message is not None:
                run.message.close_parts()
            return
        if run is None:
            info: RunInfo = {
                "runId": run_id,
                "status": "running",
                "by": event["by"],
                "device": event["device"],
                "requests": [],
                "steers": [],
            }
            run = self.runs[run_id] = TranscriptRun(info)
        run.info["status"] = "running"
        run.info["agent"] = event["agent"]
        run.info["messageId"] = event["messageId"]
        run.info["startedSeq"] = event["seq"]
        run.info.pop("message", None)
        fields = {
            "id": event["messageId"],
            "role": "assistant",
            "at": event["at"],
            "seq": event["seq"],
            "after": event["after"],
            "runId": run_id,
            "status": "streaming",
        }
        run.message = OpenMessage(fields, [])
        self._messages[event["messageId"]] = run.message

    def _chunk(self, event: Mapping[str, Any]) -> None:
        run = self.runs.get(event["runId"])
        if run is not None and run.message is not None:
            run.message.chunk(event)

    def _requested(self, event: Mapping[str, Any]) -> None:
        run = self.runs.get(event["runId"])
        if run is not None:
            run.info["requests"] = [*run.info["requests"], event["request"]]
            run.info["status"] = "waiting"

    def _resolved(self, event: Mapping[str, Any]) -> None:
        run = self.runs.get(event["runId"])
        if run is not None:
            left = [request for request in run.info["requests"] if request["id"] != event["requestId"]]
            run.info["requests"] = left
            if run.info["status"] == "waiting" and not left:
                run.info["status"] = "running"

    def _steer_accepted(self, event: Mapping[str, Any]) -> None:
        run = self.runs.get(event["runId"])
        if run is not None:
            steer: Any = {name: event[name] for name in event if name not in _STEER_ENVELOPE}
            run.info["steers"] = [*run.info["steers"], steer]

    def _steer_applied(self, event: Mapping[str, Any]) -> None:
        run = self.runs.get(event["runId"])
        steer = self._take_steer(event)
        if run is not None and steer is not None and run.message is not None:
            run.message.steer(steer, event.get("kept"))

    def _steer_withdrawn(self, event: Mapping[str, Any]) -> None:
        self._take_steer(event)

    def _take_steer(self, event: Mapping[str, Any]) -> Mapping[str, Any] | None:
        run = self.runs.get(event["runId"])
        if run is None:
            return None
        steers = run.info["steers"]
        run.info["steers"] = [steer for steer in steers if steer["steerId"] != event["steerId"]]
        return next((steer for steer in steers if steer["steerId"] == event["steerId"]), None)

    def _ended_event(self, event: Mapping[str, Any]) -> None:
        run_id: str = event["runId"]
        run = self.runs.get(run_id)
        if run is None:  # prevented before it was ever sent
            info: RunInfo = {
                "runId": run_id,
                "status": "ended",
                "by": event.get("by", ""),
                "device": event.get("device", ""),
                "requests": [],
                "steers": [],
            }
            run = self.runs[run_id] = TranscriptRun(info)
        run.info["status"] = "ended"
        run.info["reason"] = event["reason"]
        told: dict[str, Any] = {name: event[name] for name in _TOLD_OF_ENDED if event.get(name)}
        run.info = cast("RunInfo", {**run.info, **told})
        run.info["requests"] = []
        run.info["steers"] = []
        run.info.pop("message", None)
        if run.message is not None:
            self._close_message(run.message, event)
            run.message = None
        self._ended[run_id] = None
        if len(self._ended) > ENDED_RUNS_KEPT:
            oldest = next(iter(self._ended))
            del self._ended[oldest]
            del self.runs[oldest]

    def _close_message(self, message: OpenMessage, event: Mapping[str, Any]) -> None:
        kept = event.get("kept")
        if kept is not None:
            message.keep(kept)
        message.fields["status"] = end_of(event["reason"]).status
        message.fields["reason"] = event["reason"]
        self._messages[message.fields["id"]] = message.view()

    # One table for all transcripts: a server holds one for every open session.
    _FOLDS: ClassVar[Mapping[str, Callable[[Any, Mapping[str, Any]], None]]] = {
        "message": _message,
        "run.queued": _queued,
        "run.started": _started,
        "run.chunk": _chunk,
        "run.requested": _requested,
        "run.resolved": _resolved,
        "steer.accepted": _steer_accepted,
        "steer.applied": _steer_applied,
        "steer.withdrawn": _steer_withdrawn,
        "run.ended": _ended_event,
    }


_TOLD_OF_ENDED = ("cause", "error", "usage", "returned")
_STEER_ENVELOPE = frozenset({"type", "seq", "at", "command", "runId"})
