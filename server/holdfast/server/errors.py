"""What is wrong with how a server was set up, in a sentence for the person who did it."""

from __future__ import annotations

from holdfast.protocol.errors import HoldfastError


class ConfigError(HoldfastError):
    """The server cannot start like this. The message says what to set."""

    code = "config"
