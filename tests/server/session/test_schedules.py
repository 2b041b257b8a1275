"""Any schedule of clients, agents, faults and deaths keeps the promises: the model test over the session actor."""

from __future__ import annotations

import asyncio
import logging

import structlog
from hypothesis import given
from hypothesis import strategies as st

from tests.support.two_nodes import Step, play

_WHO = st.integers(0, 2)
_NODE = st.sampled_from("ab")
_PICK = st.sampled_from([0, 0, 0, 1, 1, 2, 5])
_BACK = st.none() | st.integers(0, 6)
_BUSY = st.sampled_from(["queue", "queue", "interrupt", "alongside", "reject", "steer"])
_STEPS: st.SearchStrategy[Step] = st.one_of(
    st.tuples(st.just("send"), _WHO, _BUSY, st.sampled_from([None, "phoenix", "solo"]), _BACK),
    st.tuples(st.just("send"), _WHO, st.just("queue")),
    st.tuples(st.just("again"), _WHO, _PICK),
    st.tuples(st.just("cancel"), _WHO, _PICK, _BACK),
    st.tuples(st.just("prevent"), _WHO),
    st.tuples(st.just("scope"), _WHO, st.integers(0, 4)),
    st.tuples(
        st.just("steer"), _WHO, st.none() | _PICK, st.sampled_from(["now", "step"]),
        st.sampled_from(["return", "send"]), _BACK,
    ),
    st.tuples(st.just("withdraw"), _WHO, _PICK),
    st.tuples(st.just("answer"), _WHO, _PICK, st.integers(1, 2)),
    st.tuples(st.sampled_from(["drop", "slow", "read"]), _WHO),
    st.tuples(st.just("resume"), _WHO, _NODE, st.sampled_from([0, 0, 1, 3, 8])),
    st.tuples(st.just("produce"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("produce"), st.integers(0, 3), st.integers(1, 3)),
    st.tuples(st.just("agent"), st.integers(0, 3), st.sampled_from(["end", "end", "fail", "ask"])),
    st.tuples(
        st.just("lose_reply"), _NODE, st.sampled_from(["append", "append", "heads", "open", "read", "compact"]),
        st.sampled_from(["before", "after"]),
    ),
    st.tuples(st.sampled_from(["pause", "unpause", "unpause", "cut", "mend", "mend", "deafen"]), _NODE),
    st.tuples(st.just("time"), st.sampled_from([250, 1_000, 1_000, 3_000, 12_000])),
    st.tuples(st.sampled_from(["save", "roll_back"])),
    st.tuples(st.sampled_from(["kill", "kill", "drain"]), _NODE),
    st.tuples(st.just("rest"), st.integers(1, 40)),
    st.tuples(st.just("rest"), st.integers(1, 40)),
)  # fmt: skip


@given(steps=st.lists(_STEPS, min_size=5, max_size=50))
def test_any_schedule_keeps_the_promises(steps: list[Step]) -> None:
    """Whatever clients, agents, stores and processes do in whatever order, the invariants hold at the end."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        asyncio.run(play(steps))
    finally:
        structlog.reset_defaults()
