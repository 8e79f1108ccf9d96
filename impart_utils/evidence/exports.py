"""A table for other programs and papers: CSV, Markdown and LaTeX, from one DataFrame."""

from pathlib import Path

import pandas as pd

from impart_utils.sources.files import atomic_path


def write_table(frame, folder, name, *, caption, digits=2):
    """Write NAME.csv (all digits), NAME.md and NAME.tex (rounded) into `folder`.

    Parameters
    ----------
    frame : DataFrame; the levels of its index become columns
    caption : str, above the Markdown table and as LaTeX's \\caption;  digits : int, of floats in both

    Returns
    -------
    paths : list of Path
    """
    flat = frame.reset_index() if frame.index.names != [None] else frame
    texts = {"csv": flat.to_csv(index=False), "md": markdown(flat, caption, digits=digits),
             "tex": latex(flat, caption, label=f"tab:{name}", digits=digits)}
    paths = []
    for ending, text in texts.items():
        paths.append(Path(folder) / f"{name}.{ending}")
        with atomic_path(paths[-1]) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths


def markdown(frame, caption, *, digits=2):
    """The table as Markdown: numbers to the right, bars in texts escaped."""
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    lines = [[str(name).replace("|", "\\|") for name in frame.columns],
             ["---:" if number else "---" for number in numeric]]
    lines += [[_text(value, digits).replace("|", "\\|") for value in row]
              for row in frame.itertuples(index=False)]
    rows = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return f"{caption}\n\n{rows}\n"


def latex(frame, caption, *, label, digits=2):
    """The table as LaTeX with the package booktabs; special characters escaped."""
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame.columns]
    rows = [" & ".join(_escaped(_text(value, digits)) for value in row) + r" \\"
            for row in frame.itertuples(index=False)]
    columns = "".join("r" if number else "l" for number in numeric)
    head = " & ".join(_escaped(str(name)) for name in frame.columns) + r" \\"
    return "\n".join([
        r"% \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\caption{{{_escaped(caption)}}}",
        rf"\label{{{label}}}", rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule", head, r"\midrule", *rows, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _text(value, digits):
    if pd.isna(value):
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _escaped(text):
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--",
               "−": "$-$", "±": r"$\pm$", "≥": r"$\geq$", "≤": r"$\leq$", "’": "'", "′": "$'$"}
    return "".join(special.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in text)
