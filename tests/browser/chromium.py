"""Which browser the tests drive, and how it is started."""

from __future__ import annotations

import os
import shutil
from typing import Final

INSTALL: Final = "sudo apt install chromium"
FLAGS: Final = (
    "--headless",
    "--no-sandbox",  # the tests may run as root, and open nothing but pages of their own
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-auto-reload",  # of error pages, when the network is back: the tests say when
)
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")


def executable() -> str:
    """The path of Chromium: HOLDFAST_CHROMIUM, or the first on PATH. Raises RuntimeError with the remedy."""
    named = os.environ.get("HOLDFAST_CHROMIUM")
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        missing = f"HOLDFAST_CHROMIUM names {named!r}, which is no program" if named else "No Chromium is on PATH"
        raise RuntimeError(
            f"{missing}. Install it, on Debian and Ubuntu with `{INSTALL}`, or name it in HOLDFAST_CHROMIUM."
        )
    return found
