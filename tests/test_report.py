"""The reviewer's page: every claim and quote has its row, each number comes from a file, gaps are named."""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from impart_utils.config import load_config
from impart_utils.evidence import bearing, claims, metrics, report, report_claims, report_parts, results

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "data"
VALUES = results.read_paper_values(DATA / "paper_values.csv")
QUOTES, DEVIATIONS, CHECKLISTS = (pd.read_csv(DATA / name, dtype=str, keep_default_na=False)
                                  for name in report.TEXTS)
PAPER = ROOT.parent / "shared" / "paper.md"
RAM, NORMALIZED, VANILLA = "RA-CLIP (RAM)", "RA-CLIP (RAM, normalized)", "RA-CLIP Vanilla"
COMMIT = "abc"


def toy_row(method="CLIP", correct=1640, n=2000, **other):
    """A row of table1.csv as the demo would make it."""
    eq1, (low, high) = method in (VANILLA, "random neighbors"), metrics.wilson(correct, n)
    return {"run_id": "r1", "commit": COMMIT, "inputs": "f00d", "profile": "demo", "dataset": "toy10",
            "n_available": n, "n": n, "method": method, "variant": "", "scale": "unit",
            "k": np.nan if method == "CLIP" else 8, "image_weight": 0.5 if eq1 else np.nan,
            "text_weight": 0.05 if eq1 else np.nan, "prompts": "a photo of a {}", "names": "raw",
            "average": "micro", "references_id": "" if method == "CLIP" else "1234", "draw": 0,
            "seed": np.nan, "correct": correct, "accuracy": correct / n, "low": low, "high": high,
            "weights": "the kit's tiny CLIP (toy world)", "split": "test", **other}


def film(query, value, pooling="mean_raw"):
    variant = pooling.split(", ")[0] if " " in pooling else "CLIP"
    return {"run_id": "r1", "commit": COMMIT, "inputs": "f00d", "profile": "demo", "gallery": "toy",
            "query": query, "pooling": pooling, "variant": variant,
            "metric": "R@1", "value": value, "low": value - 0.1, "high": value + 0.1, "n": 48,
            "weights": "tiny"}


def write_run(folder, *, profile="demo", commit=COMMIT, settings=None, **tables):
    """A results folder as notebooks leave it, with its scoreboard; tables: name -> rows."""
    folder.mkdir(parents=True)
    for name, rows in tables.items():
        columns = results.SCHEMAS.get(f"{name}.csv") or list(rows[0])
        results.write_results(rows, folder / f"{name}.csv", columns)
    notebooks = {name: {"status": "ok", "run_id": "r1", "commit": commit, "seconds": 30.5,
                        "peak_memory_mb": 900} for name in ("04_zero_shot", "09_scoreboard")}
    record = {"run_id": "r1", "profile": profile, "commit": commit, "seed": 0, "settings": settings or {},
              "threads": "2", "seconds": 61.0, "versions": {"python": "3.11.7", "torch": "2.14.1"},
              "machine": {"processor": "EPYC", "cores": 2, "gpu": ""}, "notebooks": notebooks,
              "inputs": {"paper_values.csv": "aa11", "0123456789abcdef": ["a difference"],
                         "references_used": ["beef"]}}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "inputs.json").write_text(json.dumps({"f00d": []}))
    board = claims.scoreboard(VALUES, folder, profile=profile, commit=commit, settings={"references": 1000})
    results.write_results(board, folder / "scoreboard.csv", claims.SCOREBOARD_COLUMNS)
    return folder


@pytest.fixture
def demo(tmp_path):
    """A demo run of notebooks 04 to 07, small."""
    table1 = [toy_row(), toy_row(VANILLA, 1624), toy_row("random neighbors", 1462),
              *(toy_row(RAM, c, seed=seed, variant="none") for seed, c in enumerate((1600, 1590, 1580)))]
    figure1 = [toy_row(RAM if variant == "none" else NORMALIZED, correct, variant=variant, scale=scale,
                       seed=seed)
               for scale in ("raw", "unit") for seed in range(3)
               for variant, correct in (("none", 1600), ("branch", 1560), ("sum", 1550))]
    compared = [toy_row(VANILLA, 1624, against="CLIP", b=42, c=26, difference=-16, p=0.068)]
    controls = [{"dataset": "toy10", "method": method, "kind": kind, "accuracy": accuracy,
                 "difference": accuracy - 0.82} for method, kind, accuracy in (
                     (VANILLA, "method", 0.812), ("captions only", "control", 0.8225),
                     ("shuffled captions", "control", 0.8115))]
    films = [film("description", 0.1875), film("frame of the film", 0.3125), film("held-out frame", 0.125),
             film("held-out frame", 0.25, "Eq. 1 on frames, mean_raw"),
             {**film("held-out frame", 1 / 48, "chance"), "variant": "chance", "low": np.nan, "high": np.nan}]
    return write_run(tmp_path / "demo", table1=table1, figure1=figure1, comparisons=compared,
                     is_it_retrieval=controls, video_retrieval=films)


def page(folder, **options):
    return report.report(report.read_run(folder, **options))


def section(text, title):
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE).group(1)


def cells(text, start):
    """The cells of the row of a Markdown table that starts with this text."""
    line, = (line for line in text.splitlines() if line.startswith(f"| {start} |"))
    return [cell.strip() for cell in line.strip("|").split(" | ")]


# ---- The words in data/


def test_quotes_stand_in_the_paper():
    if not PAPER.is_file():
        pytest.skip("the paper's text (shared/paper.md) isn't beside this checkout")
    text = " ".join(PAPER.read_text().split())
    assert [quote for quote in QUOTES["quote"] if quote not in text] == []
    assert not QUOTES["quote_id"].duplicated().any()


def test_every_claim_has_a_quote_and_every_pattern_a_claim():
    of_paper = VALUES[VALUES["source"] == "paper"]["claim_id"]
    quotes = QUOTES.to_dict("records")
    first = {claim: next((quote for quote in quotes if report_claims._about(quote, claim)), None)
             for claim in of_paper}
    assert [claim for claim, quote in first.items() if quote is None] == []
    for claim, quote in first.items():  # what names a claim says nothing else: it would be a sentence, too
        assert (quote["code"], quote["bearing"], quote["why"]) == ("", "", ""), (claim, quote["quote_id"])
    for quote in quotes:
        for pattern in quote["claims"].split():
            assert any(report_claims._about({"claims": pattern}, claim) for claim in of_paper), pattern


def test_a_sentence_is_judged_by_claims_or_says_why_not():
    sentences = QUOTES[(QUOTES["code"] + QUOTES["bearing"] + QUOTES["why"]) != ""]
    assert len(sentences) > 15
    for quote in sentences.to_dict("records"):
        assert quote["claims"] or quote["why"], quote["quote_id"]
        bearing.files_of(quote["bearing"])  # refuses an unknown name


def test_a_deviation_has_an_effect_or_says_why_not():
    for row in DEVIATIONS.to_dict("records"):
        assert bool(row["bearing"]) != bool(row["why"]), row["matter"]
        bearing.files_of(row["bearing"])
        assert (ROOT / row["where"]).is_file(), row["where"]
    used = " ".join([*DEVIATIONS["bearing"], *QUOTES["bearing"]]).split()
    assert set(used) == set(bearing.LINES)  # none is written for nothing


def test_every_answer_of_a_checklist_leads_somewhere(demo):
    text, readme = page(demo), (ROOT / "README.md").read_text()
    for row in CHECKLISTS.to_dict("records"):
        for place in row["where"].split("; "):
            name, _, title = place.partition(": ")
            if name == "report":
                assert f"\n## {title}\n" in text, place
            else:
                assert (ROOT / name).exists(), place
                assert not title or f"\n## {title}\n" in readme, place
    lists = ("NeurIPS", "ML code completeness", "ACM", "ML Reproducibility Challenge")
    assert tuple(CHECKLISTS["list"].unique()) == lists


# ---- The page


def test_every_claim_has_one_row(demo):
    rows = re.findall(r"^\| ([a-z0-9]+-[a-z0-9-]+) \|", section(page(demo), "Numbers"), re.MULTILINE)
    assert sorted(rows) == sorted(VALUES[VALUES["source"] == "paper"]["claim_id"])


def test_a_row_of_numbers(demo):
    numbers = section(page(demo), "Numbers")
    found = cells(numbers, "table1-cifar10-vanilla")
    assert found[1:5] == ["88.17", "86.27 / 80.93", "81.20", "79.43 to 82.85, n = 2000"]
    assert found[5] == "random neighbors 73.10, best of 2 (captions only) 82.25"
    assert found[6] == "**not run here: toy world** (on toy10, which the kit draws itself)"
    assert "**“RA-CLIP Vanilla 88.17 61.80 86.02”** (Sec. 4.1, Table 1)" in numbers


def test_the_control_is_in_the_unit_of_ours(demo):
    numbers = section(page(demo), "Numbers")
    found = cells(numbers, "text-cifar10-as-good-as-clip")
    assert found[1] == "-0.80" and found[3] == "random neighbors -8.90, best of 2 (captions only) 0.25"
    assert "CLIP 82.00" in cells(numbers, "table1-cifar10-ram")
    assert "CLIP 82.00, not normalized 80.00" in cells(numbers, "fig1-cifar10-normalized")
    assert "a frame held out of the film: 0.12" in cells(numbers, "fig2-top1")
    assert "CLIP 82.00" not in cells(numbers, "table1-cifar10-clip")


def test_a_row_names_the_notebook_and_the_cell(demo):
    """The cell is found in the notebooks themselves, so it can't go stale."""
    found = report_parts.find_cells([ROOT / "notebooks"])
    assert set(report.TABLES) - {"pretraining.csv"} <= set(found)
    notebook, heading, number = found["table1.csv"]
    code = [cell for cell in json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text())["cells"]
            if cell["cell_type"] == "code"]
    assert 'results_dir / "table1.csv"' in "".join(code[number - 1]["source"])
    assert f"Judged in {notebook}, {heading}, code cell {number}." in page(demo)


def test_parameters_that_papermill_put_in_are_no_cell(tmp_path):
    injected = {"cell_type": "code", "source": ["top_k = 4"], "metadata": {"tags": ["injected-parameters"]}}
    writes = {"cell_type": "code", "source": ['x(config.results_dir / "a.csv")'], "metadata": {}}
    title = {"cell_type": "markdown", "source": ["# One\n", "\n", "## Two"], "metadata": {}}
    for name, made in (("one", [title, writes]), ("two", [title, injected, writes])):
        (tmp_path / name).mkdir()
        (tmp_path / name / "04_x.ipynb").write_text(json.dumps({"cells": made}))
    assert report_parts.find_cells([tmp_path / "two", tmp_path / "one"]) == {"a.csv": ("04_x", "“Two”", 1)}


def test_the_toy_world_is_named_wherever_a_number_stands(demo):
    text = page(demo)
    assert text.startswith("# The reviewer's page (toy world)") and "**This is the demo.**" in text
    for title in ("Numbers", "Sentences", "Table 1 beside ours", "Is it retrieval?", "Films", "Deviations"):
        assert "(toy world)" in section(text, title), title
    counts = re.findall(r"\| (\d+) \|", section(text, "Verdicts"))
    assert sum(map(int, counts)) == (VALUES["source"] == "paper").sum()


def test_demo_on_other_weights_is_no_toy_world(tmp_path):
    folder = write_run(tmp_path / "demo", settings={"clip_checkpoint": "mine.pt"}, table1=[toy_row()])
    assert "(toy world)" not in page(folder).split("\n")[0]


def test_the_papers_profile_gets_verdicts(tmp_path):
    folder = write_run(tmp_path / "paper", profile="paper", table1=[
        toy_row(correct=correct, n=10_000, dataset=dataset, profile="paper", weights="OpenAI ViT-B/32")
        for dataset, correct in (("cifar10", 8880), ("cifar100", 6400))])
    text = page(folder)
    assert "(toy world)" not in text
    numbers = section(text, "Numbers")
    assert cells(numbers, "table1-cifar10-clip")[-1].startswith("**reproduced** (88.78 lies inside ")
    assert cells(numbers, "table1-cifar100-clip")[-1].startswith("**not reproduced** (61.68 lies outside ")
    assert cells(section(text, "Verdicts"), "reproduced") == ["reproduced", "1"]
    assert "paper 88.78; ours on cifar10: 88.80 (88.17 to 89.40)" in section(text, "Table 1 beside ours")
    left = section(text, "Not run, and why")
    assert "video_retrieval.csv is missing: notebook 06 writes it." in left and "--profile paper`" not in left


def test_table_1_and_what_the_paper_does_not_have(demo):
    shown = section(page(demo), "Table 1 beside ours")
    low, high = 100 * metrics.wilson(1580, 2000)[0], 100 * metrics.wilson(1600, 2000)[1]
    assert f"paper 88.98; ours on toy10: 79.50 ({low:.2f} to {high:.2f})" in shown  # of three trainings
    assert "paper 61.68; not run" in shown  # no row of toy100
    assert cells(shown, "random neighbors") == ["random neighbors", "73.10 (71.11 to 75.00)"]


def test_sentences_have_their_evidence(demo):
    shown = section(page(demo), "Sentences")
    line, = (line for line in shown.splitlines() if "This can be mainly attributed" in line)
    assert "Eq. 1 against random neighbors: toy10 +8.10 points" in line
    assert "toy10 -1.05 (captions only)" in line and "not judged: the paper has no control" in line
    line, = (line for line in shown.splitlines() if "ensuring comparable" in line)
    assert "toy10 -16 of 2000 pictures (42 broken, 26 mended, p = 0.068)" in line
    assert "not run here: toy world (1 of 3 rows above)" in line and "not run (2 of 3 rows above)" in line


def test_deviations_tell_their_effect_or_why_there_is_none(demo):
    shown = section(page(demo), "Deviations")
    assert "'branch' against none, raw inputs: toy10 -2.00 points" in shown
    assert "not measured: needs OpenAI's weights and a GPU" in shown
    assert "3 trainings of RAM lie apart by toy10 1.00 points" in shown
    (demo / "figure1.csv").unlink()
    told = "not measured here (figure1.csv is missing: notebook 05 writes it)"
    assert told in section(page(demo), "Deviations")


def test_figures_say_what_the_paper_states_and_show_ours(demo):
    assert section(page(demo), "Figures 1 to 3").count("Ours: not drawn in this run.") == 3
    (demo / "figures").mkdir()
    (demo / "figures" / "figure2_picture_query.png").write_bytes(b"png")
    shown = section(page(demo), "Figures 1 to 3")
    assert "![Ours to Fig. 2 (toy world)](figures/figure2_picture_query.png)" in shown
    assert "“Accuracy of RA-CLIP vs Normalized RA-CLIP across datasets” (Sec. 4.1, caption" in shown
    assert "pictures are not in the kit" in shown


def test_films_by_query_and_way_to_search(demo):
    shown = section(page(demo), "Films")
    assert "| held-out frame, n = 48 | Eq. 1 on frames | 0.25 (0.15 to 0.35) |" in shown
    assert cells(shown, "held-out frame, n = 48 | chance")[1:] == ["chance", "–", "0.02"]


def test_environment(demo):
    shown = section(page(demo), "Environment")
    for text in ("| torch | 2.14.1 |", "| processor | EPYC |", "| paper_values.csv | aa11 |",
                 "| references_used | beef |", "| 09_scoreboard | ok | 30.50 | 900 | r1 |",
                 "| all | – | 61.00 |"):
        assert text in shown, text
    assert "0123456789abcdef" not in shown and "gpu" not in shown
    name, digest = re.search(r"written \| (table1.csv) \| ([0-9a-f]{64})", shown).groups()
    assert digest == hashlib.sha256((demo / name).read_bytes()).hexdigest()


def test_commands_on_the_page_are_there(demo):
    for module in sorted(set(re.findall(r"python -m (impart_utils[\w.]*)", page(demo)))):
        done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True,
                              cwd=ROOT, timeout=120)
        assert done.returncode == 0 and "usage" in done.stdout.lower(), done.stderr


# ---- Gaps, damage, age


def test_a_run_with_nothing_but_its_record(tmp_path):
    folder = write_run(tmp_path / "demo")
    (folder / "scoreboard.csv").unlink()
    text = page(folder)
    for name in ("scoreboard.csv", "table1.csv", "figure1.csv", "video_retrieval.csv"):
        assert f"- {name} is missing: notebook 0" in section(text, "Not run, and why")
    assert "- Notebook 05_normalization: not run." in text
    assert "scoreboard.csv is missing" in section(text, "Numbers")


def test_a_damaged_table_is_named_and_the_rest_shown(demo):
    (demo / "video_retrieval.csv").write_text("gallery,query\ntoy,x\n")
    (demo / "is_it_retrieval.csv").write_text("")
    text = page(demo)
    left = section(text, "Not run, and why")
    assert "video_retrieval.csv can't be read: video_retrieval.csv: column 'run_id' is missing" in left
    assert "is_it_retrieval.csv can't be read: No columns" in left
    assert "random neighbors 73.10" in text and str(demo) not in text


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(FileNotFoundError, match="Expected a results folder with run.json, got "):
        report.read_run(tmp_path)


def test_a_skipped_notebook_says_why(demo):
    record = json.loads((demo / "run.json").read_text())
    record["notebooks"]["03_ram_training"] = {"status": "skipped", "reason": "no pack of pairs"}
    (demo / "run.json").write_text(json.dumps(record))
    assert "- Notebook 03_ram_training: skipped, no pack of pairs." in page(demo)


def test_age_is_said(demo):
    record = json.loads((demo / "run.json").read_text())
    assert "older than" not in page(demo) and "**Mixed.**" not in page(demo)
    record["notebooks"]["04_zero_shot"].update(run_id="r2", commit="def")
    (demo / "run.json").write_text(json.dumps(record))
    text = page(demo)
    assert "**The scoreboard is older than 04_zero_shot.**" in text
    assert "ran with 2 versions of the kit (abc, def)" in text


# ---- Where it is written


def test_after_a_run_and_in_the_book(demo, tmp_path, monkeypatch):
    monkeypatch.setenv("IMPART_OUTPUT", str(tmp_path / "out"))
    config = load_config("demo")
    config.results_dir.parent.mkdir(parents=True)
    demo.rename(config.results_dir)
    config.executed_dir.mkdir(parents=True)
    notebook = (ROOT / "notebooks" / "04_zero_shot.ipynb").read_text()
    (config.executed_dir / "04_zero_shot.ipynb").write_text(notebook)
    (config.figures_dir).mkdir()
    (config.figures_dir / "figure1_normalization.png").write_bytes(b"png")
    path = report.write_report(config)
    assert path == config.results_dir / "report.md"
    targets = re.findall(r"\]\(([^)#:]+)\)", path.read_text())
    assert "../../executed/demo/04_zero_shot.ipynb" in targets
    assert [target for target in targets if not (path.parent / target).exists()] == []
    source = tmp_path / "source"
    (source / "notebooks").mkdir(parents=True)
    (source / "notebooks" / "04_zero_shot.ipynb").write_text(notebook)
    in_book = report.write_page(config, source, ["04_zero_shot"])
    targets = re.findall(r"\]\(([^)#:]+)\)", in_book.read_text())
    assert {"notebooks/04_zero_shot.ipynb", "report_figures/figure1_normalization.png"} == set(targets)
    assert [target for target in targets if not (source / target).exists()] == []
    assert in_book.read_text().startswith("---\norphan: true\n---\n")


def test_command(demo, tmp_path, capsys):
    assert report.main([str(demo)]) == 0
    assert (demo / "report.md").read_text() == page(demo)
    assert report.main([str(tmp_path)]) == 1
    assert "Expected a results folder" in capsys.readouterr().err


def test_markdown_tables_have_as_many_cells_as_columns(demo):
    """A bar in a reason or a quote must not open another cell."""
    board = pd.read_csv(demo / "scoreboard.csv", dtype=str, keep_default_na=False)
    board.loc[0, "reason"] = "a | b"
    board.to_csv(demo / "scoreboard.csv", index=False)
    tables = re.findall(r"(?:^\|.*\n)+", page(demo), re.MULTILINE)
    assert len(tables) > 15
    for table in tables:
        counts = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(counts) == 1, table.splitlines()[0]
    assert np.isnan(report.read_run(demo).tables["scoreboard.csv"]["low"].iloc[-1])
