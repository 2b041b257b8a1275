"""Holdfast's server as the benchmarks measure it: the real one, with agents that produce at a pace."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
from collections.abc import Sequence

import structlog
import uvloop

from benchmarks._agents import agents
from benchmarks._clocks import clocks
from benchmarks._processes import ready
from holdfast.server.server import Server
from holdfast.server.settings import GatewaySettings


async def serve(store: str, model_url: str | None, clocked: Sequence[str]) -> None:
    """Serves until the process is ended, with clocks around these functions (see `_clocks.clocks`)."""
    server = Server(gateway_settings=GatewaySettings(commands_per_second=10_000, command_burst=10_000))
    for agent in agents(model_url, clocks(clocked) if clocked else None).values():
        server.add_agent(agent.name, agent.function, takes_steers=agent.takes_steers)
    async with server.running(port=0, store=store) as running:
        gc.collect()  # as `holdfast serve` does when it is ready
        gc.freeze()
        gc.set_threshold(10_000, 20, 1_000)
        ready(running.port)
        await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", default="memory:")
    parser.add_argument("--model-url")
    parser.add_argument("--clock", action="append", default=[], help="layer=dotted.name.of.a.function")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    uvloop.run(serve(given.store, given.model_url, given.clock))
