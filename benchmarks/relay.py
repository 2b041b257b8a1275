"""CPU per token beside what a team would write by hand: a Socket.IO relay of some twenty lines, in Node.

    python -m benchmarks.relay                 # five launches of each server, some minutes
    python -m benchmarks.relay --launches 1    # a quick look

All three have the same model server, whose tokens they pass on to one subscriber of each run: Holdfast through its
OpenAI agent and its log, `relay/server.js` by `fetch` and `emit`, keeping nothing. Every launch starts them anew, in
random order. What a process uses is counted with all its threads, in the kernel too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks._load import Encoding, Holdfast, Launch, Load, Target, cpu, launches, module
from benchmarks._pace import TEXT, Pace
from benchmarks._processes import Child, child, load_core, run
from benchmarks._readers import Reader, masked
from benchmarks._table import Row, compared, show

_HERE: Final = Path(__file__).resolve().parent / "relay"
_PER_SECOND: Final = 50


class Relay(Target):
    """The Socket.IO server, as its client library speaks to it over a WebSocket."""

    async def joined(self, session: str, encoding: Encoding) -> Reader:
        """See `Target`."""
        reader = await Reader.connect(self.child.port, "/socket.io/?EIO=4&transport=websocket", None)
        await reader.ask(masked(b"40"), b'40{"sid"')
        reader.write(_event("join", session))
        return reader

    async def begin(self, readers: Sequence[Reader], session: str, load: Load, pace: Pace) -> None:
        """See `Target`."""
        await readers[0].ask(_event("send", session, "go"), b'42["delta"')


class Asking(Holdfast):
    """Holdfast, whose runs ask the model server."""

    def __init__(self, name: str, child: Child) -> None:
        super().__init__(name, child, "openai")


def _event(*words: str) -> bytes:
    return masked(b"42" + json.dumps(words).encode())


def ensure_relay() -> str:
    """Makes relay/node_modules hold what its package-lock.json says; returns where Node is. Exits where it is not."""
    node, npm = shutil.which("node"), shutil.which("npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip() if node else "none"
    if node is None or npm is None or int(version.lstrip("v").partition(".")[0]) < 20:
        sys.exit(f"The relay needs Node 20 or newer (found: {version}) and npm, see https://nodejs.org/en/download")
    stamp = _HERE / "node_modules" / ".installed"
    state = hashlib.sha256((_HERE / "package-lock.json").read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != state:
        print("Installing Socket.IO for the relay (once)", file=sys.stderr, flush=True)
        arguments = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        if subprocess.run([npm, *arguments], cwd=_HERE).returncode:
            sys.exit("npm could not install it. The same command tries it again.")
        stamp.write_text(state)
    return node


async def relay(node: str, runs: int, count: int, seconds: float) -> None:
    """Prints the table."""
    load = Load(runs, _PER_SECOND, seconds=seconds)
    chunks = round((load.warm_seconds + seconds + 6) * _PER_SECOND)
    arguments = ("--pace", str(1 / _PER_SECOND), "--chunks", str(chunks), "--text", TEXT)
    async with child("benchmarks._upstream", *arguments, core=load_core()) as upstream:
        url = f"http://127.0.0.1:{upstream.port}/v1"
        holdfast = ("benchmarks._server", "--model-url", url, "--store")
        ways = [
            Launch("relay", [node, _HERE / "server.js", url], Relay),
            module("memory", Asking, *holdfast, "memory:"),
            module("sqlite", Asking, *holdfast, "sqlite:///DIRECTORY/bench.db"),
        ]
        taken = await launches(ways, [load], count)
    by_hand, memory, sqlite = (cpu(taken[way.name][0]) for way in ways)
    slowest = {name: min(sample.chunks_per_second for sample in samples[0]) for name, samples in taken.items()}
    show(
        f"relay: CPU per token from a model server, {runs} runs x {_PER_SECOND}/s, the floor is Socket.IO by hand; "
        f"launches: {count}",
        [
            compared("memory", memory, by_hand, "µs", 0.9),
            compared("sqlite", sqlite, by_hand, "µs", 1.3),
            *(Row(f"tokens/s, slowest, {name}", rate, "", note=f"of {runs * 50:,}") for name, rate in slowest.items()),
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--launches", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measuring")
    given = parser.parse_args()
    run(relay(ensure_relay(), given.runs, given.launches, given.seconds))
