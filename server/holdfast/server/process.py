"""A server's process: its event loop, which nothing but its main task ends, and then in its time; its descriptors.

`asyncio.run` waits for every task and thread without an end, and lets SystemExit out of any callback.
"""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import threading
import time
from collections.abc import Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Final

import structlog

from holdfast.server.agent_tasks import contain, names

LAST_SECONDS: Final = 0.5
"""How long, together, tasks and threads may take that the server has not ended; and again, what Python does at exit."""
SPARE_DESCRIPTORS: Final = 8
"""So many file descriptors must be left, for the store and for a load balancer that asks whether more should come."""
_log = structlog.get_logger("holdfast.server")


def run(main: Coroutine[Any, Any, None]) -> None:
    """Runs `main` on uvloop where it is installed, on asyncio's own loop otherwise; returns or raises what it does.

    Code of agents cannot end the loop, by whatever it raises in tasks and callbacks, and can cancel no task but its
    own. When `main` has ended signals are ignored, and the process has a second to end: what is left after half of it
    is named in the log, and if Python then waits for a thread, the process ends without it.
    """
    before = set(threading.enumerate())
    loop = _new_loop()
    executor = ThreadPoolExecutor(thread_name_prefix="asyncio")
    loop.set_default_executor(executor)
    asyncio.set_event_loop(loop)
    contain(loop, guarded=True)
    task = loop.create_task(main, name="main")
    try:
        _run(loop, task)
        end = time.monotonic() + LAST_SECONDS
        with _deaf_to_signals() as stay_deaf:
            _end_tasks(loop, LAST_SECONDS / 2)
            executor.shutdown(wait=False, cancel_futures=True)
            left = _left(set(threading.enumerate()) - before, end)
            if left:
                _log.warning("threads are left behind", threads=left)
                failed = task.cancelled() or task.exception() is not None
                threading.Thread(target=_exit, args=(int(failed),), name="exit", daemon=True).start()
                stay_deaf.pop_all()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    task.result()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    """Runs the loop until the task has ended."""
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        try:
            loop.run_forever()
        except (SystemExit, KeyboardInterrupt) as error:
            by_hand = signal.getsignal(signal.SIGINT) is signal.default_int_handler  # nobody listens to signals yet
            if isinstance(error, KeyboardInterrupt) and by_hand:
                task.cancel()
            elif not task.done():
                _log.error("something that would have ended the process was raised in a callback", exc_info=error)


def _deaf_to_signals() -> ExitStack:
    """Ignores signals while it is entered: the process ends by itself, and another would take its exit code away."""
    restore = ExitStack()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            restore.callback(signal.signal, number, signal.signal(number, signal.SIG_IGN))
    return restore


def _end_tasks(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    pending = asyncio.all_tasks(loop)

    async def end() -> None:
        for task in pending:
            task.cancel()
        closing = asyncio.create_task(loop.shutdown_asyncgens(), name="generators")
        _, left = await asyncio.wait({*pending, closing}, timeout=seconds)
        if left:
            _log.warning("tasks are left behind", tasks=names(left))

    if pending:
        _run(loop, loop.create_task(end(), name="end"))


def _left(threads: Iterable[threading.Thread], end: float) -> list[str]:
    """The names of those that Python would wait for, and that do not end until `end`."""
    holding = [thread for thread in threads if not thread.daemon]
    for thread in holding:
        thread.join(max(0.0, end - time.monotonic()))
    return [thread.name for thread in holding if thread.is_alive()]


def _exit(code: int) -> None:
    time.sleep(LAST_SECONDS)
    os._exit(code)


def short_of_descriptors() -> bool:
    """Whether fewer than `SPARE_DESCRIPTORS` more can be opened, here or in the whole system. It tries: 20 µs."""
    probes: list[socket.socket] = []
    try:
        for _ in range(SPARE_DESCRIPTORS):
            probes.append(socket.socket(type=socket.SOCK_DGRAM))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return True
        raise
    finally:
        for probe in probes:
            probe.close()
    return False
