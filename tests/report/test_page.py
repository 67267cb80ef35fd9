"""The page holds what the ledgers say, loads nothing, and every chart can be drawn. In a browser: tests/e2e."""

import json
import re
from pathlib import Path

import pytest
from sweep_ledgers import GROUPS, SweepWriter, make_spec, write_demo, write_pictures, write_tested

from segbench.cli import main
from segbench.core.paths import atomic_write
from segbench.core.records import TrialState
from segbench.report.build import build_page, write_figures, write_report
from segbench.report.pictures import choose_scenes, make_gallery
from segbench.report.search_charts import position
from segbench.results.folder import read_results
from segbench.spec.domains import Categorical, Integer, Real, Transformed
from segbench.spec.load import dump_spec
from segbench.spec.space import Parameter


def charts_of(page: str) -> dict[str, dict]:
    text = re.search(r'<script type="application/json" id="charts">(.*?)</script>', page, re.DOTALL)
    assert text is not None
    return json.loads(text[1])


def test_the_page_loads_nothing_and_has_every_trial(writer: SweepWriter) -> None:
    write_demo(writer)
    page = build_page([read_results(writer.paths)])
    markup = page.split("<script")[0]
    assert not re.findall(r'(?:src|href)="(?!data:|#)', markup)
    assert "@import" not in markup
    assert not re.findall(r"<script[^>]+src", page)
    assert len(page) < 1_500_000
    charts = charts_of(page)
    assert set(charts) >= {"learning-curves", "parallel-coordinates", "best-by-epochs", "slice-lr", "winner-scores"}
    shown = {(row["trial"], row["epoch"]): row["score"] for row in charts["learning-curves"]["data"]["values"]}
    assert shown[("trial-0003", 2)] == 0.4
    assert ("trial-0002", 2) not in shown  # NaN
    assert page.count('class="chart"') == len(charts)
    assert all(f'id="{name}"' in page for name in charts)


def test_every_chart_can_be_drawn(writer: SweepWriter, tmp_path: Path) -> None:
    write_tested(writer)
    for number in range(3, 12):
        params = {"model": "unet", "lr": 0.001 * (number - 2)}
        writer.trial(
            "search", number, f"trial-{number}", [0.1, 0.02 * number], TrialState.PRUNED, "rung 2", params=params
        )
    count = write_figures(read_results(writer.paths), tmp_path / "figures")
    drawings = sorted((tmp_path / "figures").glob("*.svg"))
    assert len(drawings) == count == len(list((tmp_path / "figures").glob("*.png")))
    assert {drawing.stem for drawing in drawings} >= {
        "intervals",
        "class-iou",
        "confusion-rows",
        "importance-ped-anova",
    }
    for drawing in drawings:
        assert re.search(r'class="mark-(line|symbol|rect|rule|text)[^"]*"[^>]*><', drawing.read_text()), drawing.stem


def test_texts_of_users_are_escaped(writer: SweepWriter) -> None:
    writer.trial(
        "search", 0, "trial-0000", [0.5], TrialState.FAIL, "error: </script><b>", params={"loss": "<i>"}, config={}
    )
    atomic_write(writer.paths.spec, dump_spec(make_spec(description="<u>a & b</u>")))
    page = build_page([read_results(writer.paths)])
    markup, script = page.split("<script", 1)
    assert "&lt;u&gt;a &amp; b" in markup
    assert "<b>" not in markup
    assert "<i>" not in markup
    assert "error: </script>" not in script
    assert "error: <\\/script>" in script


def test_a_sweep_that_has_only_begun_has_a_page(writer: SweepWriter) -> None:
    writer.start("search", 0, "trial-0000")
    atomic_write(writer.paths.spec, dump_spec(make_spec()))
    write_report(writer.paths)
    assert "No trial has a score yet." in writer.paths.report.read_text()


def test_several_sweeps_share_a_page(writer: SweepWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_demo(writer)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["report", str(writer.paths.root), str(writer.paths.root / "nothing")])
    assert stopped.value.code == 2
    main(["report", str(writer.paths.root), str(writer.paths.root)])
    page = (tmp_path / "report.html").read_text()
    assert {name.split("-")[0] for name in charts_of(page)} == {"s0", "s1"}


def test_pictures_show_where_each_finalist_errs(writer: SweepWriter, tmp_path: Path) -> None:
    write_tested(writer)
    write_pictures(writer, tmp_path)
    gallery = make_gallery(read_results(writer.paths))
    assert len({role for scene in gallery.scenes for role in scene.roles}) == 9
    best = next(scene for scene in gallery.scenes if "best of trial-0" in scene.roles)
    assert [model.miou for model in best.models if model.name == "trial-0"] == [1.0]
    assert all(len(scene.models) == 3 for scene in gallery.scenes)
    assert [name for name, _ in gallery.legend] == list(GROUPS)


def test_scenes_are_the_best_median_and_worst_of_each_model() -> None:
    chosen = choose_scenes({"a": [0.1, 0.5, 0.9, float("nan")], "b": [0.9, 0.5, 0.2, 0.6]})
    assert chosen == {
        2: ("best of a", "worst of b"),
        0: ("worst of a", "best of b"),
        1: ("median of a", "median of b"),
    }


@pytest.mark.parametrize(
    ("domain", "value", "place"),
    [
        (Real(1e-4, 1e-2, log=True), 1e-3, 0.5),
        (Integer(1, 5), 2, 0.25),
        (Transformed(Real(1.0, 100.0, log=True), 1), 10, 0.5),
        (Categorical(("a", "b", "c")), "c", 1.0),
        (Categorical(("a",)), "a", 0.5),
        (Real(0.0, 1.0), 2.0, None),
        (Real(0.0, 1.0), None, None),
    ],
)
def test_places_on_an_axis(domain: object, value: object, place: float | None) -> None:
    assert position(Parameter("p", domain), value) == (None if place is None else pytest.approx(place))
