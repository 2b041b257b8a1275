"""Tokens in, principals out."""

from __future__ import annotations

import pytest

from holdfast.server.errors import AuthError
from holdfast.server.gateway.auth import AnonymousAuthenticator, Principal, TokenAuthenticator, is_loopback


async def test_a_known_token_names_its_principal() -> None:
    """Each token stands for its principal; several may stand for one."""
    tokens = TokenAuthenticator({"a": "ana", "b": "bob", "ä": "ana"})
    assert await tokens.authenticate("b") == Principal("bob")
    assert await tokens.authenticate("ä") == Principal("ana")


@pytest.mark.parametrize("token", [None, "", "c", "aa", "A", "\ud800"])
async def test_an_unknown_token_is_refused(token: str | None) -> None:
    """Everything else is `unauthorized`, and the message does not repeat it."""
    with pytest.raises(AuthError) as refused:
        await TokenAuthenticator({"a": "ana"}).authenticate(token)
    assert refused.value.code == "unauthorized"
    assert not token or repr(token) not in str(refused.value)


@pytest.mark.parametrize("tokens", [{}, {"": "ana"}, {"a": "no id"}, {"a": ""}])
def test_tokens_that_cannot_be(tokens: dict[str, str]) -> None:
    """No tokens, empty ones and principals that are no ids are refused at the start."""
    with pytest.raises(ValueError, match=r"token|principals"):
        TokenAuthenticator(tokens)


async def test_anonymous_is_one_principal() -> None:
    """Without authentication everybody is `local`."""
    assert await AnonymousAuthenticator().authenticate("anything") == Principal("local")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.168.1.4", False),
        ("example.org", False),
        ("localhost.example.org", False),
    ],
)
def test_what_is_loopback(host: str, loopback: bool) -> None:
    """Only addresses that no other machine can reach; names other than localhost are not looked up."""
    assert is_loopback(host) is loopback
