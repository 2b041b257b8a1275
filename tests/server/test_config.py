"""Flags over environment over file, and who is told what was wrong."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from holdfast.server.config import load
from holdfast.server.errors import ConfigError
from holdfast.server.gateway.auth import Principal


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An empty directory, and an environment without settings."""
    for name in list(os.environ):
        if name.startswith(("HOLDFAST_", "OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_the_defaults_are_safe() -> None:
    """Without any setting it is this machine only, and nobody is asked who they are."""
    loaded = load({})
    assert (loaded.config.host, loaded.config.port, loaded.config.authenticator) == ("127.0.0.1", 8787, None)
    assert loaded.sources == {}


def test_flags_over_environment_over_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nearer source wins, setting by setting, and each value knows where it came from."""
    Path("holdfast.toml").write_text('port = 1\nstore = "memory:"\ngrace_ms = 7\n')
    monkeypatch.setenv("HOLDFAST_PORT", "2")
    monkeypatch.setenv("HOLDFAST_GRACE_MS", "8")
    loaded = load({"port": 3, "host": None})
    config = loaded.config
    assert (config.port, config.grace_ms, config.store, config.host) == (3, 8, "memory:", "127.0.0.1")
    assert loaded.sources == {"port": "--port", "grace_ms": "HOLDFAST_GRACE_MS", "store": "holdfast.toml"}
    assert config.session_settings.grace_ms == 8


@pytest.mark.parametrize("value", ["ana:one, bob:two:with colon", "ana:one,bob:two:with colon,"])
async def test_tokens_from_the_environment(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Comma separated `principal:token`; what follows the first colon is the token."""
    monkeypatch.setenv("HOLDFAST_TOKENS", value)
    authenticator = load({}).config.authenticator
    assert authenticator is not None
    assert await authenticator.authenticate("two:with colon") == Principal("bob")


def test_lists_from_a_file() -> None:
    """In the file a list is a list."""
    Path("other.toml").write_text('origins = ["https://a.example", "https://b.example"]\nheartbeat_ms = 5000\n')
    settings = load({}, file=Path("other.toml")).config.gateway_settings
    assert settings.origins == ("https://a.example", "https://b.example")
    assert settings.heartbeat_ms == 5_000


def test_the_model_servers_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """OPENAI_API_KEY and OPENAI_BASE_URL are the openai package's names."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("HOLDFAST_OPENAI_MODEL", "m")
    loaded = load({})
    assert loaded.config.openai_api_key is not None
    assert loaded.config.openai_api_key.get_secret_value() == "sk-x"
    assert (loaded.config.openai_base_url, loaded.config.openai_model) == ("http://127.0.0.1:1/v1", "m")
    assert loaded.sources["openai_api_key"] == "OPENAI_API_KEY"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("port = 70000", r"port \(from holdfast.toml\): .*65535"),
        ("prot = 1", r"prot \(from holdfast.toml\): there is no such setting"),
        ("heartbeat_ms = 5", r"heartbeat_ms \(from holdfast.toml\)"),
        ('tokens = ["noprincipal"]', r"tokens \(from holdfast.toml\): each is principal:token"),
        ('origins = ["https://a.example/"]', r"origins \(from holdfast.toml\): 'https://a.example/' is none"),
        ('origins = ["*"]', r"origins \(from holdfast.toml\): '\*' is none"),
        ('origins = ["https://*.example"]', r"origins \(from holdfast.toml\): 'https://\*.example' is none"),
        ('openai_api = "other"', r"openai_api \(from holdfast.toml\): .*'chat' or 'responses'"),
        ("port = ", "holdfast.toml is not TOML"),
    ],
)
def test_errors_name_the_setting_and_its_source(content: str, said: str) -> None:
    """A wrong value is told with its name and its place."""
    Path("holdfast.toml").write_text(content)
    with pytest.raises(ConfigError, match=said):
        load({})


def test_errors_of_the_environment_name_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong variable is told by its name."""
    monkeypatch.setenv("HOLDFAST_DRAIN_MS", "soon")
    with pytest.raises(ConfigError, match=r"drain_ms \(from HOLDFAST_DRAIN_MS\)"):
        load({})


def test_no_origin_is_not_every_origin(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty list lets nobody in, as an unset one does."""
    monkeypatch.setenv("HOLDFAST_ORIGINS", "")
    assert load({}).config.gateway_settings.origins == ()
    monkeypatch.delenv("HOLDFAST_ORIGINS")
    assert load({}).config.gateway_settings.origins == ()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("HOLDFAST_PROT", "HOLDFAST_PROT is no setting, and is ignored; did you mean HOLDFAST_PORT?"),
        ("HOLDFAST_FOO", "HOLDFAST_FOO is no setting, and is ignored; `holdfast config` shows all settings"),
        ("HOLDFAST_NEVER", "HOLDFAST_NEVER is no setting, and is ignored; `holdfast config` shows all settings"),
    ],
)
def test_a_mistyped_variable_is_told(monkeypatch: pytest.MonkeyPatch, variable: str, said: str) -> None:
    """A variable that nothing reads is named, and what it may have meant."""
    monkeypatch.setenv(variable, "1")
    assert load({}).warnings == [said]


def test_variables_of_others_are_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings, and what the client and the tests read, are no mistakes."""
    known = ("URL", "SESSION", "TOKEN", "DEVICE", "PROGRAM", "SCHEDULES", "OPENAI_MODEL")
    for name in known:
        monkeypatch.setenv(f"HOLDFAST_{name}", "x")
    assert load({}).warnings == []


def test_a_wrong_token_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error about tokens does not show them."""
    monkeypatch.setenv("HOLDFAST_TOKENS", "topsecret")
    with pytest.raises(ConfigError) as error:
        load({})
    assert "topsecret" not in str(error.value)


def test_a_named_file_must_be_there() -> None:
    """The file of --config is missed when it is missing."""
    with pytest.raises(ConfigError, match=r"none\.toml cannot be read"):
        load({}, file=Path("none.toml"))


def test_what_is_printed_hides_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every setting is shown with its source; tokens and keys are masked, and in comments."""
    monkeypatch.setenv("HOLDFAST_TOKENS", "ana:one,bob:two")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    lines = load({"port": 9}).lines()
    assert '# tokens = ["ana:***", "bob:***"]  # HOLDFAST_TOKENS' in lines
    assert '# openai_api_key = "***"  # OPENAI_API_KEY' in lines
    assert "port = 9  # --port" in lines
    assert 'host = "127.0.0.1"  # default' in lines


def test_what_is_printed_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """The printed lines are a file that says the same again; what is unset stays so, and no mask becomes a token."""
    monkeypatch.setenv("HOLDFAST_TOKENS", "ana:one")
    monkeypatch.setenv("HOLDFAST_ORIGINS", "https://a.example,https://b.example")
    first = load({"store": 'sqlite:///a "quoted" \\ file.db', "log_level": "debug"})
    Path("holdfast.toml").write_text("\n".join(first.lines()))
    monkeypatch.delenv("HOLDFAST_TOKENS")
    monkeypatch.delenv("HOLDFAST_ORIGINS")
    again = load({}).config
    assert again == first.config.model_copy(update={"tokens": []})
    assert "# openai_api is not set" in first.lines()
