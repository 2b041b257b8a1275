"""What goes wrong between Holdfast and a model server, in words that are safe to show.

An upstream message may quote the key, the prompt or an internal address, so none is passed on: its code and
status choose one of the sentences below. For the operator there is a line in the log, with codes and ids
only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import openai

from holdfast.server.errors import AgentError

_SENTENCES: Final[Mapping[str, tuple[str, bool]]] = {
    "upstream_auth": ("The model server refused the key. The operator must set a valid one.", False),
    "upstream_quota": (
        "The account at the model server has no quota left. The operator must renew it.",
        False,
    ),
    "upstream_rate_limited": (
        "The model server is receiving too many requests. Send again in a while.",
        True,
    ),
    "context_length": ("The conversation is longer than the model can read. Start a new session.", False),
    "content_filter": ("The model server refused the content of the conversation.", False),
    "upstream_not_found": ("The model server does not know the model, or the address is wrong.", False),
    "upstream_rejected": ("The model server did not accept the request.", False),
    "upstream_unavailable": ("The model server failed. Send again in a while.", True),
    "upstream_timeout": ("The model server did not answer in time. Send again in a while.", True),
    "upstream_unreachable": ("The model server could not be reached. Send again in a while.", True),
    "upstream_disconnected": (
        "The connection to the model server broke off. Send again to get a whole message.",
        True,
    ),
    "upstream_invalid": ("The model server sent something that is no response of a model.", False),
}

# Codes and types of OpenAI's errors and of the servers compatible with it, where they say more than the
# status.
_BY_UPSTREAM_CODE: Final[Mapping[str, str]] = {
    "insufficient_quota": "upstream_quota",
    "billing_hard_limit_reached": "upstream_quota",
    "rate_limit_exceeded": "upstream_rate_limited",
    "rate_limit_error": "upstream_rate_limited",
    "overloaded_error": "upstream_rate_limited",
    "context_length_exceeded": "context_length",
    "invalid_api_key": "upstream_auth",
    "authentication_error": "upstream_auth",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "model_not_found": "upstream_not_found",
    "invalid_prompt": "upstream_rejected",
}


def upstream_error(code: str) -> AgentError:
    """The AgentError of one of the codes above."""
    message, retryable = _SENTENCES[code]
    return AgentError(code, message, retryable=retryable)


def request_error(error: openai.OpenAIError) -> AgentError:
    """What an exception of the openai package means, raised before the response began."""
    match error:
        case openai.APITimeoutError() if type(error.__cause__).__name__ != "ConnectTimeout":
            return upstream_error("upstream_timeout")
        case openai.APIConnectionError():  # with aiohttp, a refused connection is a ConnectTimeout too
            return upstream_error("upstream_unreachable")
        case openai.APIStatusError():
            return upstream_error(_by_body(error.code, error.type, error.message) or _by_status(error.status_code))
        case openai.APIError():
            return stream_error(error.body)
        case _:
            return AgentError("not_configured", "The model client is not configured. The operator must set it up.")


def stream_error(body: object) -> AgentError:
    """What an error object within a stream means: `{code, type, message}`, each of them optional."""
    if not isinstance(body, dict):
        return upstream_error("upstream_unavailable")
    fields = cast("dict[str, object]", body)
    status = fields.get("code")
    named = _by_body(status, fields.get("type"), fields.get("message"))
    if named is None and isinstance(status, int):
        named = _by_status(status)
    if named is None and "invalid_request_error" in (status, fields.get("type")):
        named = "upstream_rejected"
    return upstream_error(named or "upstream_unavailable")


def _by_body(code: object, type_: object, message: object) -> str | None:
    for name in (code, type_):
        if isinstance(name, str) and name in _BY_UPSTREAM_CODE:
            return _BY_UPSTREAM_CODE[name]
    # Several servers say only in words that the conversation is too long.
    if isinstance(message, str) and ("context length" in message or "context window" in message):
        return "context_length"
    return None


def _by_status(status: int) -> str:
    match status:
        case 401 | 403:
            return "upstream_auth"
        case 402:
            return "upstream_quota"
        case 404:
            return "upstream_not_found"
        case 408 | 504:
            return "upstream_timeout"
        case 429:
            return "upstream_rate_limited"
        case _ if status >= 500:
            return "upstream_unavailable"
        case _:
            return "upstream_rejected"
