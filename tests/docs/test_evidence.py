"""The page of evidence says what the results say."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy import stats

ROOT = Path(__file__).parents[2]


@pytest.fixture
def page(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    return pytest.importorskip("benchmarks.evidence.page")


def test_tables_are_what_the_results_say(page, monkeypatch, tmp_path):
    committed = page.PAGE.read_text("utf-8")
    monkeypatch.setattr(page, "PAGE", tmp_path / "evidence.md")
    page.PAGE.write_text(committed, "utf-8")
    page.write_page()
    assert page.PAGE.read_text("utf-8") == committed


@pytest.mark.parametrize("values", [[1.0, 2.0, 4.0], [50.0, 50.0, 50.0, 51.0], [3.0, -3.0]])
def test_intervals_are_those_of_scipy(page, values):
    middle, half = page.interval(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=middle, scale=stats.sem(values))
    assert (middle - half, middle + half) == pytest.approx((low, high), rel=1e-3)


def test_a_difference_is_taken_seed_by_seed(page):
    runs = [
        {"arm": arm, "seed": seed, "scores": {"names": {"value": value}}}
        for arm, seed, value in [("a", 0, 0.5), ("a", 1, 0.7), ("b", 1, 0.4), ("b", 0, 0.1), ("b", 2, 0.9)]
    ]
    assert page.difference(page.scores_of(runs), "a", "b", "names") == pytest.approx([40, 30])
