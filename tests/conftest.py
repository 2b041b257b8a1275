"""What all tests share: how hard Hypothesis searches, and that no test is skipped unnoticed."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is slow at times, which is no property of the code under test.
_common = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
_schedules = os.environ.get("HOLDFAST_SCHEDULES")

# The same examples each time, so that a change is never refused for a schedule that nobody has seen before; new ones
# are searched for by hand.
settings.register_profile("ci", _common, max_examples=300, derandomize=True)
settings.register_profile("deep", _common, max_examples=int(_schedules or 10_000))
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("deep" if _schedules else "ci"))


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """A skipped test proves nothing: it fails, with the reason it gave. An expected failure stays one."""
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"no test may be skipped here ({reason})"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a test that skips into one that fails."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Turn a module that skips itself into one that fails."""
    report = yield
    _refuse_skip(report)
    return report
