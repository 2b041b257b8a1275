"""What must hold of a session, whoever serves it: checks that need nothing but what can be seen from outside.

LogModel       takes every event of the store's log, in order; `finish()` when everything has ended
Reader         takes every message that one subscriber was sent, over any number of connections
check_readers  holds what the readers have against the log, when everything has ended
check_replies  holds every command's reply against the log
"""

from tests.server.log_model import Author, LogModel, Place, require
from tests.server.witnesses import Reader, Replied, check_readers, check_replies

__all__ = [
    "Author",
    "LogModel",
    "Place",
    "Reader",
    "Replied",
    "check_readers",
    "check_replies",
    "require",
]
