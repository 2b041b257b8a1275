"""Holdfast's server: sessions, runs and agents, to be embedded or served.

    server = Server()

    @server.agent("assistant")
    async def assistant(run: Run):
        async for delta in my_model(run.messages):
            yield delta

`holdfast serve my_module:server` runs it.
"""

from holdfast.server.agents.agent import Agent, AgentFunction
from holdfast.server.agents.run import Run, Steer
from holdfast.server.errors import AgentError, OutputTooLarge, SessionFailed
from holdfast.server.node.node import Node
from holdfast.server.server import Running, Server
from holdfast.server.session.actor import Session
from holdfast.server.session.ports import Answer
from holdfast.server.settings import SessionSettings
from holdfast.server.store import MemoryStore, SqliteStore, Store, StoreError, StoreUnavailable, open_store

__all__ = [
    "Agent",
    "AgentError",
    "AgentFunction",
    "Answer",
    "MemoryStore",
    "Node",
    "OutputTooLarge",
    "Run",
    "Running",
    "Server",
    "Session",
    "SessionFailed",
    "SessionSettings",
    "SqliteStore",
    "Steer",
    "Store",
    "StoreError",
    "StoreUnavailable",
    "open_store",
]
