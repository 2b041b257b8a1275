"""Holdfast's server: sessions, runs and agents, to be embedded or served.

    server = Server()

    @server.agent("assistant")
    async def assistant(run: Run):
        async for delta in my_model(run.messages):
            yield delta

`holdfast serve my_module:server` runs it.
"""

from holdfast.server.agents.agent import AgentFunction
from holdfast.server.agents.run import Run, Steer
from holdfast.server.errors import (
    AgentError,
    AuthError,
    InvalidStoreUrlError,
    OutputTooLargeError,
    StoreError,
    StoreUnavailableError,
)
from holdfast.server.gateway.auth import Authenticator, Principal, TokenAuthenticator
from holdfast.server.registry import RunLimits
from holdfast.server.server import Running, Server
from holdfast.server.session.ports import Answer, InterruptScope
from holdfast.server.settings import GatewaySettings, SessionSettings
from holdfast.server.store import MemoryStore, SqliteStore, Store, open_store

__all__ = [
    "AgentError",
    "AgentFunction",
    "Answer",
    "AuthError",
    "Authenticator",
    "GatewaySettings",
    "InterruptScope",
    "InvalidStoreUrlError",
    "MemoryStore",
    "OutputTooLargeError",
    "Principal",
    "Run",
    "RunLimits",
    "Running",
    "Server",
    "SessionSettings",
    "SqliteStore",
    "Steer",
    "Store",
    "StoreError",
    "StoreUnavailableError",
    "TokenAuthenticator",
    "open_store",
]
