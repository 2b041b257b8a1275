"""Holdfast's wire: what travels between clients and servers. No I/O, no clock, no logging."""

from holdfast.protocol.close_codes import CloseCode, may_reconnect
from holdfast.protocol.codec import JSON_CODEC, MSGPACK_CODEC, Codec, negotiate
from holdfast.protocol.commands import Command, Hello, parse_command, parse_hello
from holdfast.protocol.control import Ack, Control, Error, ServerMessage, Snapshot, Welcome
from holdfast.protocol.errors import CommandError, HoldfastError, MalformedError
from holdfast.protocol.events import EVENT, Event, Message, Part, Position, RunInfo
from holdfast.protocol.transcript import Transcript
from holdfast.protocol.values import JSON, clean

__all__ = [
    "EVENT",
    "JSON",
    "JSON_CODEC",
    "MSGPACK_CODEC",
    "Ack",
    "CloseCode",
    "Codec",
    "Command",
    "CommandError",
    "Control",
    "Error",
    "Event",
    "Hello",
    "HoldfastError",
    "MalformedError",
    "Message",
    "Part",
    "Position",
    "RunInfo",
    "ServerMessage",
    "Snapshot",
    "Transcript",
    "Welcome",
    "clean",
    "may_reconnect",
    "negotiate",
    "parse_command",
    "parse_hello",
]
