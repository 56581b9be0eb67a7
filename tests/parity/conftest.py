"""`pytest tests/parity --parity FILE` writes what was compared, how far apart it was, and which tests were skipped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from record import RECORDS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", metavar="FILE", help="write the comparisons with the golden tensors as JSON")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.outcome == "passed" and report.when != "call":
        return
    why = str(report.longrepr[2]).removeprefix("Skipped: ") if isinstance(report.longrepr, tuple) else ""
    RECORDS.outcomes[report.nodeid] = (report.outcome, why)


def pytest_sessionfinish(session: pytest.Session) -> None:
    file = session.config.getoption("parity", None)
    if file:
        Path(file).write_text(json.dumps(RECORDS.to_json(), indent=1))
