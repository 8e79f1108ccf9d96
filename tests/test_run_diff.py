"""Two runs compared: what is equal, within, beyond, missing; on one machine and on another."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from impart_utils.evidence import claims, run_diff, tolerances
from impart_utils.evidence.results import CLASSIFICATION_COLUMNS, COMPARISON_COLUMNS, VIDEO_COLUMNS

ROOT = Path(__file__).resolve().parents[1]
RAM = "RA-CLIP (RAM)"


def row(method="CLIP", correct=1640, n=2000, **other):
    return {"run_id": "r1", "commit": "abc", "inputs": "f00d", "profile": "demo", "dataset": "toy10",
            "n_available": n, "n": n, "method": method, "variant": "none" if method == RAM else "",
            "scale": "unit", "k": 8, "prompts": "a photo of a {}", "references_id": "1234", "draw": 0,
            "seed": 0 if method == RAM else np.nan, "correct": correct, "accuracy": correct / n,
            "low": correct / n - 0.02, "high": correct / n + 0.02, **other}


def film(value, metric="R@1", **other):
    return {"run_id": "r1", "gallery": "toy", "query": "description", "pooling": "mean_raw", "metric": metric,
            "value": value, "low": 0.0, "high": 1.0, "n": 48, **other}


def write(folder, *, machine="EPYC", record=None, table1=None, films=None, **others):
    """A results folder with a run.json."""
    folder.mkdir(parents=True, exist_ok=True)
    made = {"commit": "abc", "threads": "1", "versions": {"torch": "2"}, "machine": {"processor": machine},
            "settings": {}, "seed": 0, "inputs": {"toy_clip.safetensors": "aa"}, **(record or {})}
    (folder / "run.json").write_text(json.dumps(made))
    tables = {"table1": (table1 or [row()], CLASSIFICATION_COLUMNS), **others}
    if films:
        tables["video_retrieval"] = films, VIDEO_COLUMNS
    for name, (rows, columns) in tables.items():
        pd.DataFrame(rows, columns=list(columns)).to_csv(folder / f"{name}.csv", index=False)
    return folder


@pytest.fixture
def pair(tmp_path):
    """Compare two folders: one as it comes, one with these changes."""
    def compare(a=None, b=None):
        return run_diff.compare(write(tmp_path / "a", **(a or {})), write(tmp_path / "b", **(b or {})))
    return compare


# ---- What isn't trained


def test_equal_runs_have_no_change(pair):
    found = pair(b={"table1": [row(run_id="r2", commit="def", inputs="beef", references_id="99")]})
    assert len(found.changes) == 0 and found.same_machine
    assert found.counts.loc["table1.csv"].to_dict() == {"rows in both": 1, "only in A": 0, "only in B": 0,
                                                        "cells that differ": 0}


def test_on_one_machine_a_single_picture_is_beyond(pair):
    found = pair(b={"table1": [row(correct=1641)]})
    assert set(found.beyond["column"]) == {"correct", "accuracy", "low", "high"}
    change = found.beyond.set_index("column").loc["correct"]
    assert (change["a"], change["b"], change["change"], change["tolerance"]) == ("1640", "1641", "+1", "0")
    assert change["row"] == "toy10, CLIP, unit, draw=0"


@pytest.mark.parametrize("other", [{"machine": "Core"}, {"record": {"threads": "2"}},
                                   {"record": {"versions": {"torch": "3"}}}])
def test_elsewhere_three_pictures_are_within_and_four_beyond(pair, other):
    found = pair(b={"table1": [row(correct=1643)], **other})
    assert not found.same_machine and len(found.beyond) == 0
    within = found.changes.set_index("column")["tolerance"].to_dict()
    assert within == {"correct": "3", "accuracy": "0.0015", "low": "follows", "high": "follows"}
    assert set(pair(b={"table1": [row(correct=1644)], **other}).beyond["column"]) == {"correct", "accuracy"}


def test_films_elsewhere(pair):
    films = [film(12 / 48), film(6.0, metric="mean rank", query="title")]
    for value, rank, beyond in ((15 / 48, 6.3, set()), (16 / 48, 6.3, {"R@1"}),
                                (12 / 48, 6.4, {"mean rank"})):
        other = [film(value), film(rank, metric="mean rank", query="title")]
        found = pair({"films": films}, {"films": other, "machine": "Core"})
        assert {text.split(", ")[-1] for text in found.beyond["row"]} == beyond


def test_numbers_written_differently_are_the_same(pair, tmp_path):
    write(tmp_path / "a"), write(tmp_path / "b")
    path = tmp_path / "b" / "table1.csv"
    path.write_text(path.read_text().replace(",8,", ",8.0,"))
    assert len(run_diff.compare(tmp_path / "a", tmp_path / "b").changes) == 0


# ---- What is trained


@pytest.mark.parametrize("machine", ["EPYC", "Core"])
def test_ram_may_differ_by_the_stated_points(pair, machine):
    within = int(2000 * tolerances.TRAINED)
    found = pair({"table1": [row(RAM)]}, {"table1": [row(RAM, 1640 + within)], "machine": machine})
    assert len(found.changes) == 4 and len(found.beyond) == 0
    found = pair({"table1": [row(RAM)]}, {"table1": [row(RAM, 1640 - within - 1)], "machine": machine})
    assert set(found.beyond["column"]) == {"correct", "accuracy"}


def test_the_scoreboard_is_in_percent_and_its_verdict_never_within(pair):
    def board(ours, verdict="reproduced", metric="accuracy", method=RAM, unit="percent"):
        return [{"claim_id": "x", "method": method, "metric": metric, "unit": unit, "ours": ours, "n": 2000,
                 "verdict": verdict, "reason": f"{ours}"}], claims.SCOREBOARD_COLUMNS

    assert len(pair({"scoreboard": board(80.0)}, {"scoreboard": board(81.4)}).beyond) == 0
    assert list(pair({"scoreboard": board(80.0)}, {"scoreboard": board(81.6)}).beyond["column"]) == ["ours"]
    found = pair({"scoreboard": board(80.0)}, {"scoreboard": board(80.0, verdict="not reproduced")})
    assert found.beyond[["column", "a", "b"]].values.tolist() == [["verdict", "reproduced", "not reproduced"]]
    setting = dict(metric="references", method="", unit="count")
    found = pair({"scoreboard": board(1000, **setting)},
                 {"scoreboard": board(999, **setting), "machine": "Core"})
    assert list(found.beyond["column"]) == ["ours"]  # a setting has no tolerance


def test_differences_in_pictures_and_in_fractions(pair):
    def compared(difference):
        return [row("RA-CLIP Vanilla", against="CLIP", b=42, c=26, difference=difference, p=0.1)]

    both = [{"comparisons": (compared(difference), COMPARISON_COLUMNS)} for difference in (-16, -13)]
    assert len(pair(both[0], {**both[1], "machine": "Core"}).beyond) == 0
    columns = ("dataset", "method", "n", "difference", "equivalence")
    both = [{"is_it_retrieval": ([("toy10", "DN", 2000, difference, "equivalent")], columns)}
            for difference in (-0.0080, -0.0065, -0.0060)]
    assert len(pair(both[0], {**both[1], "machine": "Core"}).beyond) == 0
    assert len(pair(both[0], {**both[2], "machine": "Core"}).beyond) == 1


# ---- Missing things, settings, other tables


def test_rows_columns_and_files_of_one_run_alone_are_beyond(pair):
    both = [row(), row(RAM), row(RAM, seed=1)]
    found = pair({"table1": both, "films": [film(0.5)]}, {"table1": [both[0], both[2], row("DN")]})
    told = found.beyond[["file", "row", "change"]].values.tolist()
    assert told == [["table1.csv", "toy10, RA-CLIP (RAM), none, unit, draw=0, seed=0", "only in A"],
                    ["table1.csv", "toy10, DN, unit, draw=0", "only in B"],
                    ["video_retrieval.csv", "the file", "only in A"]]
    assert found.counts.loc["table1.csv", ["rows in both", "only in A", "only in B"]].tolist() == [2, 1, 1]
    fewer = [name for name in CLASSIFICATION_COLUMNS if name != "split"]
    found = pair({}, {"table1": None, "figure1": ([row()], fewer)})
    assert "the file" in set(found.beyond["row"])


def test_another_setting_of_a_row_is_beyond(pair):
    found = pair(b={"table1": [row(k=16)], "machine": "Core"})
    assert found.beyond[["column", "a", "b", "tolerance"]].values.tolist() == [["k", "8", "16", "none"]]


def test_a_table_of_unknown_columns_is_compared_too(pair):
    def scenes(value):
        return {"scenes": ([("red", 1, 0.5), ("red", 1, 0.25), ("blue", 2, value)], ("who", "shot", "mAP"))}

    assert len(pair(scenes(0.5), scenes(0.5)).changes) == 0
    found = pair(scenes(0.5), scenes(0.52))
    assert found.beyond[["row", "column", "change"]].values.tolist() == [["blue, shot=2", "mAP", "+0.02"]]
    assert len(pair(scenes(0.5), {**scenes(0.52), "machine": "Core"}).beyond) == 0  # 4 percent of it
    assert len(pair(scenes(0.5), {**scenes(0.53), "machine": "Core"}).beyond) == 1


def test_what_run_json_says_differently_is_listed_and_not_judged(pair):
    found = pair(b={"record": {"commit": "def", "settings": {"top_k": 8}, "versions": {"torch": "3"},
                               "inputs": {"toy_clip.safetensors": "bb", "0123456789abcdef": ["x"]}}})
    assert found.context == [
        "commit: abc -> def", "settings, top_k: nothing -> 8", "versions, torch: 2 -> 3",
        "inputs, toy_clip.safetensors: aa -> bb", "inputs: 1 hashes of rows' inputs are in one run alone"]
    assert len(found.beyond) == 0


def test_without_run_json_nothing_vouches_for_the_machine(pair, tmp_path):
    pair()
    (tmp_path / "b" / "run.json").unlink()
    found = run_diff.compare(tmp_path / "a", tmp_path / "b")
    assert found.context == ["run.json is missing in B"] and not found.same_machine


# ---- The command


def test_command_lists_and_says_by_its_exit_code(tmp_path, capsys):
    a, b = write(tmp_path / "a"), write(tmp_path / "b", table1=[row(correct=1641)])
    assert claims.main(["diff", str(a), str(a)]) == 0
    assert "0 changes beyond it." in capsys.readouterr().out
    assert claims.main(["diff", str(a), str(b)]) == 1
    printed = capsys.readouterr().out
    assert "table1.csv  toy10, CLIP, unit, draw=0  correct: 1640 -> 1641 (+1, tolerance 0)" in printed
    assert claims.main(["diff", str(a), str(tmp_path / "none")]) == 2
    assert "Expected a results folder with .csv files, got" in capsys.readouterr().err


def test_long_lists_are_cut_unless_asked_for(pair):
    many = [row("DN", variant=str(number)) for number in range(40)]
    found = pair({"table1": [row(), *many]}, {"table1": [row()]})
    shown = run_diff.describe(found)
    assert f"table1.csv: {40 - run_diff.SHOWN} more, all with --every" in shown
    assert run_diff.describe(found, every=True).count("only in A") == 41  # 40 rows, and the counts' heading


def test_changes_within_are_summed_up_by_their_largest(pair):
    one, two = [row(RAM), row(RAM, seed=1)], [row(RAM, 1641), row(RAM, 1650, seed=1)]
    shown = run_diff.describe(pair({"table1": one}, {"table1": two}))
    assert "correct: 1640 -> 1650 (+10, tolerance 30), the largest of 2" in shown
    assert "correct: 1640 -> 1641" not in shown and "low:" not in shown  # low follows


def test_as_the_readme_and_the_report_call_it(tmp_path):
    a = write(tmp_path / "a")
    done = subprocess.run([sys.executable, "-m", "impart_utils.evidence.claims", "diff", a, a], cwd=ROOT,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "0 changes beyond it." in done.stdout, done.stderr
