"""What a frame may cost: the dearest ones are looked for, in both encodings, and none of them holds up a server."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import msgpack
import pytest

from holdfast.protocol.codec import COMMAND_ITEMS, COMMAND_VALUES, JSON_CODEC, MSGPACK_CODEC, Codec
from holdfast.protocol.commands import parse_command
from holdfast.protocol.errors import CommandError
from holdfast.protocol.values import MESSAGE_BYTES

TIMES: Final = 4
"""What a frame may cost, of what one costs that is full of plain values: about 3 ms, of the 20 that the loop has."""
GENERATIONS: Final = 25
FAMILY: Final = 4

LEAVES: Final[dict[str, tuple[str, bytes]]] = {
    "digit": ("0", b"\x00"),
    "null": ("null", b"\xc0"),
    "largest": (str(2**53 - 1), b"\xcf" + (2**53 - 1).to_bytes(8, "big")),
    "too large": ("9" * 400, b"\xcf" + b"\xff" * 8),
    "digits": ("9" * 4_000, b"\xd3" + b"\x80" * 8),
    "float": ("0." + "1" * 300, b"\xcb" + b"\x3f" * 8),
    "exponent": ("1e" + "0" * 300 + "5", b"\xca" + b"\x3f" * 4),
    "array": ("[]", b"\x90"),
    "object": ("{}", b"\x80"),
    "pair": ('{"a":0}', b"\x81\xa1a\x00"),
    "character": ('"é"', b"\xa2\xc3\xa9"),
    "surrogate": ('"\\ud83d"', b"\xa3\xed\xa0\xbd"),
    "surrogates": ('"' + "\\ud83d" * 40 + '"', b"\xd9\x78" + b"\xed\xa0\xbd" * 40),
    "quotes": ('"\\"\\\\,["', b'\xa4"\\,['),
    "word": ('"' + "é" * 60 + '"', b"\xd9\x78" + "é".encode() * 60),
    "megabyte": ('"' + "é" * 150_000 + '"', b"\xdb" + (300_000).to_bytes(4, "big") + "é".encode() * 150_000),
    "surrogate megabyte": (
        '"' + "\\ud83d" * 170_000 + '"',
        b"\xdb" + (510_000).to_bytes(4, "big") + b"\xed\xa0\xbd" * 170_000,
    ),
}
_Text = TypeVar("_Text", str, bytes)
KEYS: Final = ("a", "é", "k" * 1_000, "é" * 10_000, "\ud83d" * 300, "k" * 400_000 + "😀")


@dataclass(frozen=True)
class Recipe:
    """A frame, as small changes can be made to it: containers of containers of one leaf, under one key."""

    leaf: str
    key: str
    widths: tuple[int, ...]
    """Entries of each container, the outermost first."""
    objects: bool
    """Whether the innermost containers are objects, with a key for each entry."""
    broken: bool
    """Whether the frame is cut at its end."""

    def changed(self, dice: random.Random) -> Recipe:
        """One like it."""
        match dice.randrange(6):
            case 0:
                return replace(self, leaf=dice.choice(list(LEAVES)))
            case 1:
                return replace(self, key=dice.choice(KEYS))
            case 2:
                return replace(self, objects=not self.objects)
            case 3:
                return replace(self, broken=not self.broken)
            case 4:
                return replace(self, widths=(*self.widths[:-1], dice.choice((1, 16, 100, COMMAND_ITEMS))))
            case _:
                middle = dice.randrange(len(self.widths) + 1)
                added = (*self.widths[:middle], dice.choice((1, 2, 16, 700, COMMAND_ITEMS)), *self.widths[middle:])
                return replace(self, widths=dice.choice((added, self.widths[1:] or added)))

    def frame(self, codec: Codec) -> str | bytes:
        """The frame, not longer than a client's may be."""
        whole = self._json() if codec.text else self._msgpack()
        return whole[:-1] if self.broken else whole

    def _json(self) -> str:
        leaf, key = LEAVES[self.leaf][0], json.dumps(self.key)
        return self._built(
            '{"type":"answer","id":"a","runId":"r","requestId":"q",' + key + ":",
            leaf,
            lambda items: "[" + ",".join(items) + "]",
            lambda items: "{" + ",".join(f'"{index}":{item}' for index, item in enumerate(items)) + "}",
            "}",
        )

    def _msgpack(self) -> bytes:
        leaf, pack = LEAVES[self.leaf][1], msgpack.Packer(unicode_errors="surrogatepass").pack
        head = b"\x85" + b"".join(pack(word) for word in ("type", "answer", "id", "a", "runId", "r", "requestId", "q"))
        return self._built(
            head + pack(self.key),
            leaf,
            lambda items: b"\xdc" + len(items).to_bytes(2, "big") + b"".join(items),
            lambda items: (
                b"\xde"
                + len(items).to_bytes(2, "big")
                + b"".join(pack(str(index)) + item for index, item in enumerate(items))
            ),
            b"",
        )

    def _built(
        self,
        head: _Text,
        leaf: _Text,
        array: Callable[[list[_Text]], _Text],
        mapping: Callable[[list[_Text]], _Text],
        tail: _Text,
    ) -> _Text:
        value, room = leaf, MESSAGE_BYTES - len(head) - len(tail) - 64
        for place, width in enumerate(reversed(self.widths)):
            build = mapping if self.objects and place == 0 else array
            value = build([value] * max(1, min(width, room // (len(value) + 12))))
        return head + value + tail


def seconds(codec: Codec, frame: str | bytes, enough: float = 0.0) -> float:
    """Of this thread, to find out what the frame says; the least of a few tries, which no neighbour has disturbed.

    A try that takes less than `enough` is the last one.
    """
    least = 9.0
    for _ in range(3):
        began = time.thread_time()
        try:
            message = codec.decode(frame, max_items=COMMAND_ITEMS, max_values=COMMAND_VALUES)
            assert isinstance(message, dict)
            parse_command(message)
        except CommandError:
            """Refused, which has its price too."""
        least = min(least, time.thread_time() - began)
        if least < enough:
            break
    return least


@pytest.mark.parametrize("codec", [JSON_CODEC, MSGPACK_CODEC], ids=lambda codec: str(codec.subprotocol))
def test_no_frame_is_dear(codec: Codec) -> None:
    """The dearest frame that a search finds costs less than what the loop may be held up for."""
    dice = random.Random(7)
    plain = Recipe(
        "largest", "value", (COMMAND_VALUES // COMMAND_ITEMS - 1, COMMAND_ITEMS), objects=False, broken=False
    )
    floor = seconds(codec, plain.frame(codec))
    starts = [Recipe(leaf, "value", (COMMAND_ITEMS, COMMAND_ITEMS), objects=False, broken=False) for leaf in LEAVES]
    starts += [replace(starts[0], key=key) for key in KEYS]
    starts += [replace(starts[0], widths=(1,) * 31), replace(starts[0], widths=(1,) * 900)]
    found = [(seconds(codec, recipe.frame(codec), floor), recipe) for recipe in starts]
    found.sort(key=lambda pair: -pair[0])
    for _ in range(GENERATIONS):
        children = [recipe.changed(dice) for _, recipe in found[:FAMILY]]
        found += [(seconds(codec, recipe.frame(codec), floor), recipe) for recipe in children]
        found.sort(key=lambda pair: -pair[0])
    worst, recipe = found[0]
    assert worst < TIMES * floor, f"{worst * 1000:.1f} ms, {worst / floor:.1f} times the plain one, for {recipe!r:.300}"
