"""Tables of the reviewer's page on methods, films, deviations and checklists, and how a table is written."""

import pandas as pd

from impart_utils.evidence import exports
from impart_utils.evidence.bearing import bearing_on, recalls


def table(rows, caption, columns=None):
    """Rows of text as a Markdown table; None and "" become a dash."""
    frame = pd.DataFrame(rows, columns=columns)
    return exports.markdown(frame.replace("", None), caption)


def missing(run, name):
    """Why a results file isn't there, and what writes it."""
    return run.problems.get(name, f"{name} is missing")


def bears(run, names):
    """`bearing.bearing_on` with this run's tables."""
    return bearing_on(names, run.tables, lambda name: missing(run, name))


# ---- Methods, films -------------------------------------------------------------------------------


def methods(run):
    """is_it_retrieval.csv: other methods and the controls on the same pairs."""
    title, name = "## Is it retrieval?", "is_it_retrieval.csv"
    if name not in run.tables:
        return f"{title}\n\n{missing(run, name)}."
    known = run.tables[name]
    if not {"dataset", "method", "kind", "difference"} <= set(known.columns):
        return f"{title}\n\n{name} has no columns dataset, method, kind and difference."
    wide = (100 * known.pivot_table(index=["kind", "method"], columns="dataset", values="difference",
                                    sort=False)).map("{:+.2f}".format).reset_index()
    return f"{title}\n\n" + table(wide.to_dict("records"), (
        f"Points to CLIP on the same pictures{run.toy}; p values, Holm's correction and equivalence are in "
        f"{name}, notebook {run.link('07_is_it_retrieval')}."))


def films(run):
    """video_retrieval.csv: how often the right film comes first."""
    title, name = "## Films", "video_retrieval.csv"
    if name not in run.tables:
        return f"{title}\n\n{missing(run, name)}."
    rows, shown = recalls(run.tables[name]), {}
    for row in rows.itertuples():
        ends = f" ({row.low:.2f} to {row.high:.2f})" if pd.notna(row.low) else ""
        cells = shown.setdefault((row.query, row.variant), {"query": f"{row.query}, n = {row.n:.0f}",
                                                            "search": row.variant})
        cells[row.pooling] = f"{row.value:.2f}{ends}"
    galleries = ", ".join(dict.fromkeys(rows["gallery"]))
    return f"{title}\n\n" + table(list(shown.values()), (
        f"How often the right film comes first, by how frames became films{run.toy}: fractions, with 95 % "
        f"intervals over whole movies, ties against us. Gallery: {galleries}. Other measures are in {name}, "
        f"notebook {run.link('06_video_retrieval')}."))


# ---- Deviations, checklists -----------------------------------------------------------------------


def deviations(run):
    """What the paper says, what its code does, what the kit does, and what the difference does."""
    rows = []
    for row in run.texts["deviations.csv"].to_dict("records"):
        measured = bears(run, row["bearing"])
        rows.append({"matter": row["matter"], "the paper": row["paper"], "its code": row["code"],
                     "the kit": f"{row['kit']} (`{row['where']}`)", "effect": measured or row["why"]})
    return "## Deviations\n\n" + table(rows, f"What differs, and what it does{run.toy}.")


def checklists(run):
    """The usual questions on reproducibility, each answer with the place that shows it."""
    rows = [{"list": row["list"], "question": row["question"], "answer": row["answer"],
             "shown in": "; ".join(_place(place) for place in row["where"].split("; "))}
            for row in run.texts["checklists.csv"].to_dict("records")]
    return "## Checklists\n\n" + table(rows, (
        "NeurIPS' checklist, ML code completeness, ACM's badges and the first page of the ML Reproducibility "
        "Challenge, in our words."))


def _place(place):
    name, colon, section = place.partition(": ")
    if name == "report":
        return f"*{section}* on this page"
    return f"`{name}`" + (f", *{section}*" if colon else "")
