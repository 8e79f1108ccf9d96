"""Tables for papers: every row is there, numbers are rounded only for show, nothing breaks LaTeX."""

import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from impart_utils.evidence.exports import latex, markdown, write_table

FRAME = pd.DataFrame({"method": ["CLIP", "Eq. 1 & 50 % | _raw_"], "accuracy": [88.784, 1 / 3],
                      "n": [10_000, 30], "p": [np.nan, 0.04]})


def test_three_files_of_one_table(tmp_path):
    paths = write_table(FRAME.set_index("method"), tmp_path, "table1", caption="Accuracy")
    assert [path.name for path in paths] == ["table1.csv", "table1.md", "table1.tex"]
    back = pd.read_csv(paths[0])
    pd.testing.assert_frame_equal(back, FRAME)  # all digits


def test_markdown():
    lines = markdown(FRAME, "Accuracy").splitlines()
    assert lines[0] == "Accuracy"
    assert lines[2:] == ["| method | accuracy | n | p |", "| --- | ---: | ---: | ---: |",
                         "| CLIP | 88.78 | 10000 | – |",
                         "| Eq. 1 & 50 % \\| _raw_ | 0.33 | 30 | 0.04 |"]


def test_latex_escapes_what_it_must():
    text = latex(FRAME, "Accuracy in %", label="tab:1")
    assert r"Eq. 1 \& 50 \% | \_raw\_ & 0.33 & 30 & 0.04 \\" in text
    assert r"\caption{Accuracy in \%}" in text and r"\begin{tabular}{lrrr}" in text
    assert text.count(r"\\") == 3 and text.count("\\begin") == text.count("\\end") == 2


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on this machine")
def test_latex_compiles(tmp_path):
    (tmp_path / "x.tex").write_text("\\documentclass{article}\\usepackage{booktabs}\\begin{document}"
                                    + latex(FRAME, "Accuracy in %", label="tab:1") + "\\end{document}")
    assert subprocess.run(["pdflatex", "-interaction=nonstopmode", "x.tex"], cwd=tmp_path).returncode == 0
