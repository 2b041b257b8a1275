"""What a run's end says of an error, and what the server's log does."""

from __future__ import annotations

from typing import Any, Final

import structlog

from holdfast.protocol.events import Failure
from holdfast.protocol.values import clean_text
from holdfast.server.errors import AgentError, OutputTooLargeError

_CODE_LENGTH: Final = 64
_MESSAGE_LENGTH: Final = 2_000
_log = structlog.get_logger("holdfast.run")


def failure_of(error: BaseException, **ids: Any) -> Failure:
    """How a run ends by what its agent raised, in words for everyone; the reason goes into the log, with `ids`.

    Only errors made to be shown are. Of what caused one the log has the type: an upstream body may stand in the rest.
    """
    if isinstance(error, (AgentError, OutputTooLargeError)):
        code, message = clean_text(error.code[:_CODE_LENGTH]), clean_text(str(error)[:_MESSAGE_LENGTH])
        cause = None if error.__cause__ is None else type(error.__cause__).__name__
        _log.info("run failed", **ids, code=code, cause=cause)
        return {"code": code, "message": message}
    _log.error("agent raised", **ids, exc_info=error)
    return {"code": "agent_error", "message": "The agent failed. The server's log has the reason."}
