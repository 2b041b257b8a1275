"""`holdfast serve` and `holdfast config`."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar, get_args

import click

from holdfast.protocol.errors import HoldfastError
from holdfast.server.agents.demo import demo_agent
from holdfast.server.config import ENV_PREFIX, Config, Loaded, load, program
from holdfast.server.errors import ConfigError, InvalidStoreUrlError
from holdfast.server.logs import LogFormat, LogLevel, configure_logging
from holdfast.server.process import run
from holdfast.server.server import Running, Server
from holdfast.server.settings import DRAIN_MS, GatewaySettings, SessionSettings

if TYPE_CHECKING:  # the package takes as long to import as all the rest: only a server that uses it waits for it
    import openai

USAGE: Final = 2
"""The exit code for what is wrong with the arguments or the configuration."""
FAILED: Final = 1
"""The exit code of a server that could not start, or failed."""
_GC_THRESHOLDS: Final = (5_000, 10, 1_000)
"""A young or middle collection looks at 50,000 objects at most, a few milliseconds. A full one, which looks at every
connection and stops everything meanwhile, comes after fifty million objects that stayed."""
_SHIPPED_ONLY: Final = frozenset(
    {"demo_words_per_second", "openai_model", "openai_api", "openai_api_key", "openai_base_url"}
)
_READ_BY_OPENAI_AGENT: Final = frozenset(
    {f"{ENV_PREFIX}OPENAI_MODEL", f"{ENV_PREFIX}OPENAI_API", "OPENAI_API_KEY", "OPENAI_BASE_URL"}
)
"""Sources from which `openai_agent` takes them itself, also in a module of one's own."""
_SettingsT = TypeVar("_SettingsT", SessionSettings, GatewaySettings)


def _option(name: str, text: str, default: object, **more: Any) -> Callable[..., Any]:
    """An option of a setting. Its value is read by `load`, which knows the other sources; click shows them only."""
    variable = ENV_PREFIX + name.upper().replace("-", "_")
    return click.option(f"--{name}", help=f"{text}  [env var: {variable}; default: {default}]", **more)


_OPTIONS: Final[tuple[Callable[..., Any], ...]] = (
    click.option("--config", "file", type=click.Path(path_type=Path), help="A TOML file.  [default: holdfast.toml]"),
    _option("host", "The address to listen at.", "127.0.0.1"),
    _option("port", "The port to listen at; 0: any free one.", 8787, type=int),
    _option("store", "memory: or sqlite:///file.db.", "sqlite:///holdfast.db"),
    _option("agent", "The agent for messages that name none.", "the first one"),
    _option("log-level", "The least that is logged.", "info", type=click.Choice(get_args(LogLevel))),
    _option("log-format", "How it is logged.", "auto", type=click.Choice(get_args(LogFormat))),
    _option("demo-words-per-second", "The demo agent's pace.", 20, type=float),
    _option("drain-ms", "How long runs may finish after SIGTERM.", DRAIN_MS, type=int),
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
    agents are served: `openai` when OPENAI_API_KEY or OPENAI_BASE_URL is set, with HOLDFAST_OPENAI_MODEL, and `demo`.

    Further settings, such as HOLDFAST_TOKENS and HOLDFAST_ORIGINS, have no option: `config` prints all of them.
    """
    try:
        loaded = _loaded(flags, file)
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
        _leave(str(error), USAGE if isinstance(error, (ConfigError, InvalidStoreUrlError)) else FAILED)


@click.command()
@_configured
def config(file: Path | None, **flags: Any) -> None:
    """Print the settings in effect, and where each one comes from.

    What is printed is a TOML file for --config. Secrets are masked, and in comments.
    """
    try:
        loaded = _loaded(flags, file)
    except ConfigError as error:
        _leave(str(error), USAGE)
    for line in loaded.lines():
        click.echo(line)


def _loaded(flags: dict[str, Any], file: Path | None) -> Loaded:
    """The settings; what was ignored is told on standard error. Raises ConfigError."""
    loaded = load(flags, file=file)
    for warning in loaded.warnings:
        click.echo(f"Warning: {warning}", err=True)
    return loaded


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
    for setting in sorted(loaded.sources.keys() & _SHIPPED_ONLY):
        source = loaded.sources[setting]
        # A file that `config` has printed says the defaults too, which nobody will miss.
        asked = getattr(loaded.config, setting) != Config.model_fields[setting].default
        if asked and source not in _READ_BY_OPENAI_AGENT:
            raise ConfigError(f"{setting} (from {source}) is for the shipped agents, and {name} has its own")
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
            on_drain=lambda running: _draining(running, config),
        )
    finally:
        if client is not None:
            await client.close()


def _started(running: Running, config: Config) -> None:
    """What was made up to here stays for good: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GC_THRESHOLDS)
    url = running.url
    agents = ", ".join(running.agents)
    option = "" if running.port == Config.model_fields["port"].default else f" --url {url}"
    who = "" if not config.tokens else "  (with --token or HOLDFAST_TOKEN)"
    page = f"In a browser:     {url.replace('ws', 'http', 1)}/\n" if config.page else ""
    click.echo(
        f"Holdfast listens at {url}, store {config.store}, agents: {agents}\n"
        f"{page}In a terminal:    {program()} chat{option}{who}\n"
        f"Stop with Ctrl-C: runs may finish for {config.drain_ms / 1000:g} s; again to end at once"
    )
    sys.stdout.flush()


def _draining(running: Running, config: Config) -> None:
    """Says that the signal was heard, and what is waited for."""
    runs = running.runs
    what = "no run is going on" if not runs else f"{runs} run{'' if runs == 1 else 's'} may finish"
    within = f" within {config.drain_ms / 1000:g} s" if runs else ""
    with contextlib.suppress(OSError):  # whoever read it may be gone, which must not keep runs from finishing
        click.echo(f"Draining: {what}{within}; again ends it now")


def _os_error(error: OSError, config: Config) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {config.port} is in use on {config.host}: choose another with --port, or stop what listens there"
    if error.errno in (errno.EACCES, errno.EADDRNOTAVAIL):
        return f"{config.host} port {config.port} cannot be listened at: {error.strerror}"
    return f"the server failed: {error}"


def _leave(message: str, code: int) -> NoReturn:
    click.echo(f"Error: {message}", err=True)
    raise SystemExit(code)
