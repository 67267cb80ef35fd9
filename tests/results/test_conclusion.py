"""Five sentences at the end of a sweep."""

import pytest
from sweep_ledgers import SweepWriter, make_spec, write_demo, write_tested

from segbench.core.paths import atomic_write
from segbench.results.conclusion import conclude, edge_of_range
from segbench.results.folder import read_results
from segbench.spec.domains import Categorical, Integer, Normal, Real, Transformed
from segbench.spec.load import dump_spec


def test_a_sweep_ends_in_five_sentences(writer: SweepWriter) -> None:
    write_demo(writer)
    assert conclude(read_results(writer.paths)) == [
        "trial-0003 won with val/miou 0.480 ± 0.028 over 2 seeds, and mIoU 0.430 on the test split.",
        "That is 0.120 val/miou better than the next row (baseline-unet).",
        "How sure that is cannot be said: there are no results on eight or more test images.",
        "What mattered cannot be said of so few trials.",
        "What to try next: nothing of the winner lies at an end of its range; more trials are the next step.",
    ]


def test_ties_are_named_and_the_advice_fits(writer: SweepWriter) -> None:
    write_tested(writer)
    _, lead, sure, _, advice = conclude(read_results(writer.paths))
    assert lead == "That is 0.100 val/miou better than the next row (trial-1)."
    assert sure.endswith("and it cannot be told from trial-1 on the test split.")
    assert "more test images or seeds would tell the tied rows apart" in advice


def test_without_a_score_there_is_one_sentence(writer: SweepWriter) -> None:
    writer.start("search", 0, "trial-0000")
    atomic_write(writer.paths.spec, dump_spec(make_spec()))
    assert conclude(read_results(writer.paths)) == ["No trial has a score yet."]


@pytest.mark.parametrize(
    ("domain", "value", "edge"),
    [
        (Real(1e-4, 1e-2, log=True), 9e-3, "upper"),
        (Real(1e-4, 1e-2, log=True), 1.1e-4, "lower"),
        (Real(1e-4, 1e-2, log=True), 5e-3, None),
        (Real(0.0, 1.0), 0.96, "upper"),
        (Integer(1, 5), 5, "upper"),
        (Integer(1, 2), 2, None),
        (Categorical((8, 16)), 16, None),
        (Transformed(Normal(0.0, 1.0)), -2.0, "lower"),
        (Transformed(Real(0.0, 1.0), q=0.1), 0.5, None),
        (Real(0.0, 1.0), None, None),
    ],
)
def test_the_edge_of_a_range(domain: object, value: float, edge: str | None) -> None:
    assert edge_of_range(domain, value) == edge
