"""`holdfast serve` and `holdfast config`."""

from __future__ import annotations

import asyncio
import errno
import gc
import importlib
import sys
from collections.abc import Callable, Coroutine
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, get_args

import click

from holdfast.protocol.errors import HoldfastError
from holdfast.server.agents.demo import demo_agent
from holdfast.server.app import Running, Server
from holdfast.server.config import Config, Loaded, load
from holdfast.server.errors import ConfigError
from holdfast.server.limits import GatewaySettings
from holdfast.server.log import LogFormat, LogLevel, configure_logging
from holdfast.server.settings import SessionSettings
from holdfast.server.store.url import InvalidStoreUrl

if TYPE_CHECKING:  # the package takes as long to import as all the rest: only a server that uses it waits for it
    import openai

USAGE: Final = 2
"""The exit code for what is wrong with the arguments or the configuration."""
FAILED: Final = 1
"""The exit code of a server that could not start, or failed."""
_GC_THRESHOLDS: Final = (5_000, 10, 1_000)
"""A young or middle collection looks at 50,000 objects at most, a few milliseconds. A full one, which looks at every
connection and stops everything meanwhile, comes after fifty million objects that stayed."""
_SHIPPED_ONLY: Final = frozenset({"demo_words_per_second", "openai_model", "openai_api"})
_SettingsT = TypeVar("_SettingsT", SessionSettings, GatewaySettings)

_OPTIONS: Final[tuple[Callable[..., Any], ...]] = (
    click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file.  [default: holdfast.toml]"),
    click.option("--host", help="The address to listen at.  [default: 127.0.0.1]"),
    click.option("--port", type=int, help="The port to listen at; 0: any free one.  [default: 8787]"),
    click.option("--store", help="memory: or sqlite:///file.db.  [default: sqlite:///holdfast.db]"),
    click.option("--agent", help="The agent for messages that name none.  [default: the first one]"),
    click.option("--log-level", type=click.Choice(get_args(LogLevel)), help="The least that is logged."),
    click.option("--log-format", type=click.Choice(get_args(LogFormat)), help="How it is logged."),
    click.option("--demo-words-per-second", type=float, help="The demo agent's pace.  [default: 20]"),
    click.option("--drain-ms", type=int, help="How long runs may finish after SIGTERM.  [default: 10000]"),
)


def _configured(function: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.command()
@click.argument("app", metavar="[MODULE:SERVER]", required=False)
@_configured
def serve(app: str | None, file: Path | None, **flags: Any) -> None:
    """Start the server.

    MODULE:SERVER names a `Server` of your own, in a module found from the current directory. Without it the shipped
    agents are served: `openai` when OPENAI_API_KEY or OPENAI_BASE_URL is set, and `demo`.
    """
    try:
        loaded = load(flags, file=file)
        config = loaded.config
        configure_logging(config.log_level, config.log_format)
        client = None if app else openai_client(config)
        server = own_server(app, loaded) if app else shipped_server(config, client)
        if config.agent is not None:
            if config.agent not in server.agents:
                raise ConfigError(f"there is no agent {config.agent!r}; there are: {', '.join(server.agents)}")
            server.prefer(config.agent)
    except HoldfastError as error:
        _leave(str(error), USAGE)
    try:
        run(_serve(server, config, client))
    except OSError as error:
        _leave(_os_error(error, config), FAILED)
    except HoldfastError as error:
        _leave(str(error), USAGE if isinstance(error, (ConfigError, InvalidStoreUrl)) else FAILED)


@click.command()
@_configured
def config(file: Path | None, **flags: Any) -> None:
    """Print the settings in effect, and where each one comes from. Secrets are masked."""
    try:
        loaded: Loaded = load(flags, file=file)
    except ConfigError as error:
        _leave(str(error), USAGE)
    for line in loaded.lines():
        click.echo(line)


def own_server(name: str, loaded: Loaded) -> Server:
    """The `Server` that `name` (`module:attribute`) stands for; what was set from outside goes before its own settings.

    Raises ConfigError where there is none.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{name!r} names no server: write module:attribute, for example app:server")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise
        raise ConfigError(f"there is no module {module_name!r} here or among the installed ones") from None
    server = getattr(module, attribute, None)
    if not isinstance(server, Server):
        raise ConfigError(f"{attribute!r} in {module_name!r} is no holdfast.server.Server")
    if not server.agents:
        raise ConfigError(f'{name} has no agent: register one with @{attribute}.agent("name")')
    for setting in loaded.sources.keys() & _SHIPPED_ONLY:
        raise ConfigError(
            f"{setting} (from {loaded.sources[setting]}) is for the shipped agents, and {name} has its own"
        )
    config = loaded.config
    server.authenticator = config.authenticator or server.authenticator
    server.settings = _overridden(server.settings, loaded, config.session_settings)
    server.gateway_settings = _overridden(server.gateway_settings, loaded, config.gateway_settings)
    return server


def _overridden(own: _SettingsT, loaded: Loaded, outside: _SettingsT) -> _SettingsT:
    """`own` with the fields that were set from outside."""
    names = [field.name for field in fields(own) if field.name in loaded.sources]
    return replace(own, **{name: getattr(outside, name) for name in names})


def shipped_server(config: Config, client: openai.AsyncOpenAI | None) -> Server:
    """A server with the shipped agents: `openai` first where there is a client for it, then `demo`.

    Raises ConfigError where no model is named.
    """
    server = Server(
        authenticator=config.authenticator,
        settings=config.session_settings,
        gateway_settings=config.gateway_settings,
    )
    if client is not None:
        from holdfast.server.agents.openai import openai_agent

        server.add_agent("openai", openai_agent(model=config.openai_model, api=config.openai_api, client=client))
    server.add_agent("demo", demo_agent(config.demo_words_per_second))
    return server


def openai_client(config: Config) -> openai.AsyncOpenAI | None:
    """A client of the configured model server; None where none is, or the demo agent was asked for without one.

    Raises ConfigError for a model server without a model.
    """
    key = config.openai_api_key
    if key is None and config.openai_base_url is None:
        return None
    if config.openai_model is None:
        if config.agent == "demo":
            return None
        raise ConfigError("a model server is configured, but no model: set HOLDFAST_OPENAI_MODEL, or say --agent demo")
    import openai

    return openai.AsyncOpenAI(
        api_key="none" if key is None else key.get_secret_value(),  # local servers ask for none, but the package does
        base_url=config.openai_base_url,
        http_client=openai.DefaultAioHttpClient(),
    )


async def _serve(server: Server, config: Config, client: openai.AsyncOpenAI | None) -> None:
    try:
        await server.serve(
            host=config.host,
            port=config.port,
            store=config.store,
            drain_ms=config.drain_ms,
            on_ready=lambda running: _started(running, config),
        )
    finally:
        if client is not None:
            await client.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main` on uvloop where it is installed, on asyncio's own loop otherwise."""
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        uvloop.run(main)


def _started(running: Running, config: Config) -> None:
    """What was made up to here stays for good: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    url = running.url
    agents = ", ".join(running.node.agents)
    option = "" if running.port == Config.model_fields["port"].default else f" --url {url}"
    who = "" if not config.tokens else "  (with --token or HOLDFAST_TOKEN)"
    click.echo(
        f"Holdfast listens at {url}, store {config.store}, agents: {agents}\n"
        f"Talk to it:       holdfast chat{option}{who}\n"
        f"Stop with Ctrl-C: runs may finish for {config.drain_ms / 1000:g} s; again to end at once"
    )
    sys.stdout.flush()


def _os_error(error: OSError, config: Config) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {config.port} is in use on {config.host}: choose another with --port, or stop what listens there"
    if error.errno in (errno.EACCES, errno.EADDRNOTAVAIL):
        return f"{config.host} port {config.port} cannot be listened at: {error.strerror}"
    return f"the server failed: {error}"


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    raise SystemExit(code)
