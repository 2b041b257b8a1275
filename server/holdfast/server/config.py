"""What a server is told from outside: flags over the environment over a TOML file.

Every setting has one name: `log_level` is HOLDFAST_LOG_LEVEL, and `log_level` in the file. Those that one tries out are
flags as well, `--log-level`. The model server's key and address are the openai package's own OPENAI_API_KEY and
OPENAI_BASE_URL.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, cast

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from holdfast.protocol.values import is_id
from holdfast.server.agents.demo import WORDS_PER_SECOND
from holdfast.server.errors import ConfigError
from holdfast.server.gateway.auth import Authenticator, TokenAuthenticator
from holdfast.server.logs import LogFormat, LogLevel
from holdfast.server.settings import DRAIN_MS, GatewaySettings, SessionSettings

FILE: Final = "holdfast.toml"
"""Read from the current directory when no other file is named."""
ENV_PREFIX: Final = "HOLDFAST_"
_OTHERS: Final = frozenset({"URL", "SESSION", "TOKEN", "DEVICE", "PROGRAM", "SCHEDULES", "CHROMIUM"})
"""After the prefix: variables of the client, of `program`, and of this project's own tests."""
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#*\s]+", re.IGNORECASE)
"""As a browser sends it: no path, not even a slash at the end, and no wildcard."""
_Commas = Annotated[list[str], NoDecode]


def program() -> str:
    """What a person types to run Holdfast here: HOLDFAST_PROGRAM where what started it says so, else `holdfast`."""
    return os.environ.get("HOLDFAST_PROGRAM") or "holdfast"


def _package_name(name: str) -> AliasChoices:
    """The environment name that the openai package gave it, and the setting's own in the file."""
    return AliasChoices(name, name.upper())


class Config(BaseSettings):
    """All settings of `holdfast serve`, checked."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX, extra="forbid", populate_by_name=True, frozen=True, hide_input_in_errors=True
    )

    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65_535)] = 8787
    store: Annotated[str, Field(min_length=1)] = "sqlite:///holdfast.db"
    agent: str | None = None
    """The agent for sends that name none."""
    tokens: Annotated[list[SecretStr], NoDecode] = []
    """`principal:token`, each."""
    origins: _Commas = []
    """Browser origins that may connect besides the server's own."""
    page: bool = True
    """Whether the chat page is served."""
    log_level: LogLevel = "info"
    log_format: LogFormat = "auto"
    demo_words_per_second: Annotated[float, Field(gt=0, le=10_000)] = WORDS_PER_SECOND
    openai_model: str | None = None
    openai_api: Literal["chat", "responses"] | None = None
    openai_api_key: Annotated[SecretStr | None, Field(validation_alias=_package_name("openai_api_key"))] = None
    openai_base_url: Annotated[str | None, Field(validation_alias=_package_name("openai_base_url"))] = None
    grace_ms: Annotated[int, Field(ge=0)] = SessionSettings().grace_ms
    replay_window_ms: Annotated[int, Field(ge=0)] = SessionSettings().replay_window_ms
    drain_ms: Annotated[int, Field(ge=0)] = DRAIN_MS
    heartbeat_ms: Annotated[int, Field(ge=1_000)] = GatewaySettings().heartbeat_ms

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` has merged: it knows of each value where it came from."""
        return (init_settings,)

    @field_validator("tokens", "origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return [item.strip() for item in value.split(",") if item.strip()] if isinstance(value, str) else value

    @field_validator("origins")
    @classmethod
    def _exact_origins(cls, origins: list[str]) -> list[str]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is none: https://app.example or http://localhost:5173, and nothing after")
        return origins

    @field_validator("tokens")
    @classmethod
    def _principals(cls, tokens: list[SecretStr]) -> list[SecretStr]:
        for item in tokens:
            principal, _, token = item.get_secret_value().partition(":")
            if not token or not is_id(principal):
                raise ValueError("each is principal:token, and a principal is an id")
        return tokens

    @property
    def authenticator(self) -> Authenticator | None:
        """Who the configured tokens speak for; None without tokens."""
        pairs = [item.get_secret_value().partition(":") for item in self.tokens]
        return TokenAuthenticator({token: principal for principal, _, token in pairs}) if pairs else None

    @property
    def session_settings(self) -> SessionSettings:
        """What sessions are told of it."""
        return SessionSettings(grace_ms=self.grace_ms, replay_window_ms=self.replay_window_ms)

    @property
    def gateway_settings(self) -> GatewaySettings:
        """What connections are told of it."""
        return GatewaySettings(heartbeat_ms=self.heartbeat_ms, origins=tuple(self.origins), page=self.page)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and where each one that is not the default came from."""

    config: Config
    sources: Mapping[str, str]
    warnings: Sequence[str] = ()
    """Sentences about what was ignored."""

    def lines(self) -> list[str]:
        """One line per setting, `name = value  # source`: TOML that `load` takes, and that says the same again.

        What is not set, and what is secret, is in a comment: a masked token must never become one that lets in.
        """
        return [self._line(name, getattr(self.config, name)) for name in Config.model_fields]

    def _line(self, name: str, value: object) -> str:
        if value is None:
            return f"# {name} is not set"
        secret = isinstance(value, SecretStr) or (name == "tokens" and value)
        return f"{'# ' if secret else ''}{name} = {_shown(name, value)}  # {self.sources.get(name, 'default')}"


def load(flags: Mapping[str, Any], *, file: Path | None = None) -> Loaded:
    """Merges `flags` (None: not given) over the environment over `file` (default: holdfast.toml, where there is one).

    Raises ConfigError, which names the setting and where its value came from.
    """
    layers: list[tuple[str, dict[str, Any]]] = []
    path = file or Path(FILE)
    if file is not None or path.exists():
        layers.append((str(path), _read(path)))
    environment = EnvSettingsSource(Config)()
    layers.append(("environment", {name.lower(): value for name, value in environment.items()}))
    layers.append(("flag", {name: value for name, value in flags.items() if value is not None}))
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        for name, value in layer.items():
            values[name] = value
            sources[name] = _named(source, name)
    try:
        return Loaded(Config(**values), sources, _ignored())
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = str(first["loc"][0]).lower()
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"there is no such setting; `{program()} config` shows all of them"
        raise ConfigError(f"{name} (from {sources.get(name, 'nowhere')}): {message}") from None


def _ignored() -> list[str]:
    """A sentence for each variable that looks like a setting and is none."""
    settings = {name.upper() for name in Config.model_fields}
    sentences: list[str] = []
    for variable in sorted(os.environ):
        name = variable.removeprefix(ENV_PREFIX)
        if name != variable and name not in settings | _OTHERS:
            near = difflib.get_close_matches(name, settings, n=1, cutoff=0.7)
            hint = f"did you mean {ENV_PREFIX}{near[0]}?" if near else f"`{program()} config` shows all settings"
            sentences.append(f"{variable} is no setting, and is ignored; {hint}")
    return sentences


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None


def _named(source: str, name: str) -> str:
    match source:
        case "flag":
            return f"--{name.replace('_', '-')}"
        case "environment":
            bare = name.upper()
            return bare if name in ("openai_api_key", "openai_base_url") else ENV_PREFIX + bare
        case _:
            return source


def _shown(name: str, value: object) -> str:
    if isinstance(value, SecretStr):
        # A principal is no secret, its token is.
        principal, colon, _ = value.get_secret_value().partition(":")
        return f'"{principal}:***"' if name == "tokens" and colon else '"***"'
    if isinstance(value, (str, bool)):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list):
        return f"[{', '.join(_shown(name, item) for item in cast('list[object]', value))}]"
    return str(value)
