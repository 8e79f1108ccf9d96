"""What the results files say about a sentence of the paper or a deviation from it, in one line each.

A function takes the tables of a run (file name -> DataFrame) and returns text, or None where the rows that
it needs aren't there. `bearing_on` puts the lines together and says what wasn't measured.
"""

VANILLA, RAM, NORMALIZED = "RA-CLIP Vanilla", "RA-CLIP (RAM)", "RA-CLIP (RAM, normalized)"


def bearing_on(names, tables, missing):
    """The lines of these functions, joined.

    Parameters
    ----------
    names : str, names in `LINES`, separated by spaces;  tables : dict, file name -> DataFrame
    missing : function of a file's name -> str, why it can't be read and how to get it

    Raises
    ------
    ValueError : an unknown name; the message lists the known ones.
    """
    told = []
    for file, line in _lines(names):
        found = line(tables[file]) if file in tables else None
        why = missing(file) if file not in tables else f"{file} has no such rows"
        told.append(found or f"not measured here ({why})")
    return "; ".join(told)


def files_of(names):
    """The results files that these functions read, each once, in order."""
    return list(dict.fromkeys(file for file, _ in _lines(names)))


def _lines(names):
    unknown = [name for name in names.split() if name not in LINES]
    if unknown:
        raise ValueError(f"Unknown line {unknown[0]!r}. Known: {', '.join(LINES)}.")
    return [LINES[name] for name in names.split()]


# ---- table1.csv, comparisons.csv, figure1.csv -----------------------------------------------------


def against_clip(comparisons):
    """Eq. 1 against CLIP on the same pictures."""
    rows = comparisons[comparisons["method"] == VANILLA]
    told = [f"{row.dataset} {row.difference:+.0f} of {row.n:.0f} pictures ({row.b:.0f} broken, {row.c:.0f} "
            f"mended, p = {row.p:.2g})" for row in rows.itertuples()]
    return "Eq. 1 against CLIP: " + ", ".join(told) if told else None


def random_neighbors(table):
    """Eq. 1 with the nearest pairs against Eq. 1 with random ones."""
    return _difference(table, VANILLA, "random neighbors", "Eq. 1 against random neighbors")


def ram_against_clip(table):
    """RAM as in the paper's code, and normalized, against CLIP: the mean over trainings."""
    told = [_difference(table, RAM, "CLIP", "RAM against CLIP"),
            _difference(table, NORMALIZED, "CLIP", "normalized RAM against CLIP")]
    return "; ".join(filter(None, told)) or None


def seeds(table):
    """How far trainings of RAM that differ in their seed alone lie apart."""
    rows = table[table["method"] == RAM]
    grouped = rows.groupby("dataset", sort=False)["accuracy"]
    spread, count = 100 * (grouped.max() - grouped.min()), int(grouped.size().max()) if len(rows) else 0
    if count < 2:
        return None
    listed = ", ".join(f"{name} {points:.2f}" for name, points in spread.items())
    return f"{count} trainings of RAM lie apart by {listed} points"


def normalization(figure1):
    """RAM normalized in both readings against RAM as it is, for each kind of input."""
    told = []
    for scale, part in figure1.groupby("scale", sort=False):
        for variant in ("branch", "sum"):
            told.append(_difference(part, variant, "none", f"'{variant}' against none, {scale} inputs",
                                    columns="variant"))
    return "; ".join(filter(None, told)) or None


def ram_inputs(figure1):
    """RAM on unit inputs against RAM on raw ones, neither normalized."""
    return _difference(figure1[figure1["variant"] == "none"], "unit", "raw", "unit against raw inputs",
                       columns="scale")


# ---- is_it_retrieval.csv --------------------------------------------------------------------------


def controls(table):
    """Eq. 1 against the best control on each data set, at the same weights."""
    told = []
    for dataset, part in table.groupby("dataset", sort=False):
        accuracy, kind = part.set_index("method")["accuracy"], part.set_index("method")["kind"]
        others = accuracy[kind == "control"]
        if VANILLA in accuracy and len(others):
            best = others.idxmax()
            told.append(f"{dataset} {100 * (accuracy[VANILLA] - others[best]):+.2f} ({best})")
    return f"Eq. 1 against the best control, in points: {', '.join(told)}" if told else None


def eq1_raw(table):
    """Eq. 1 on raw vectors (branch main) against unit ones."""
    return _difference(table, "Eq. 1, raw vectors", VANILLA, "raw against unit vectors")


def eq1_raw_texts(table):
    """Eq. 1 on unit pictures and raw texts (branches jalend, veera1) against unit ones."""
    return _difference(table, "Eq. 1, raw texts", VANILLA, "raw texts against unit ones")


# ---- video_retrieval.csv, pretraining.csv ---------------------------------------------------------


def recalls(table):
    """The rows of video_retrieval.csv on how often the right film is at rank 1.

    There the pooling repeats the way to search, "Eq. 1 on frames, mean_raw"; here it is "mean_raw", and that
    of guessing is "any".
    """
    rows = table[table["metric"] == "R@1"]
    return rows.assign(pooling=["any" if pooling == variant else pooling.removeprefix(f"{variant}, ")
                                for pooling, variant in zip(rows["pooling"], rows["variant"], strict=True)])


def film_recall(table):
    """How often the right film is at rank 1, for each kind of query, with the paper's code's pooling."""
    rows = _where(recalls(table), variant="CLIP", pooling="mean_raw")
    told = [f"{row.query} {row.value:.2f} ({row.low:.2f} to {row.high:.2f})" for row in rows.itertuples()]
    return f"R@1 of plain CLIP, mean of raw frames: {', '.join(told)}" if told else None


def poolings(table):
    """R@1 of a description by how frames became films."""
    rows = _where(recalls(table), variant="CLIP", query="description")
    listed = ", ".join(f"{row.pooling} {row.value:.2f}" for row in rows.itertuples())
    return f"R@1 of a description by pooling: {listed}" if listed else None


def unit_mean(table):
    """The mean of unit frame features against that of raw ones."""
    rows = _where(recalls(table), variant="CLIP")
    return _change(rows, "query", {"pooling": "mean_unit"}, {"pooling": "mean_raw"},
                   "R@1, mean of unit frames against raw ones")


def eq1_on_films(table):
    """Eq. 1 on every frame against plain CLIP, both with the mean of unit frames."""
    rows = _where(recalls(table), pooling="mean_unit")
    return _change(rows, "query", {"variant": "Eq. 1 on frames"}, {"variant": "CLIP"},
                   "R@1, Eq. 1 on frames against plain CLIP")


def near_duplicates(table):
    """A frame that is in the film's mean against one held out of it with its neighborhood."""
    rows = _where(recalls(table), variant="CLIP")
    return _change(rows, "pooling", {"query": "held-out frame"}, {"query": "frame of the film"},
                   "R@1, frame held out against frame in the film")


def names(table):
    """Descriptions without the characters' names against those with them."""
    rows = _where(recalls(table), variant="CLIP")
    return _change(rows, "pooling", {"query": "description without names"}, {"query": "description"},
                   "R@1, without names against with them")


def pretraining(table):
    """Eq. 1 and RAM on a tiny CLIP trained shortest and longest."""
    told = []
    for steps in sorted({table["steps"].min(), table["steps"].max()}):
        part = table[table["steps"] == steps]
        told.append(_difference(part, VANILLA, "CLIP", f"Eq. 1 against a CLIP of {steps:.0f} steps"))
    return "; ".join(filter(None, told)) or None


# ---- Helpers --------------------------------------------------------------------------------------


def _difference(table, name, base, told, *, columns="method"):
    """"told: toy10 -0.40, toy100 +0.12 points": mean accuracies of `name` less those of `base`."""
    wide = table.pivot_table(index="dataset", columns=columns, values="accuracy", sort=False)
    if not {name, base} <= set(wide):
        return None
    points = (100 * (wide[name] - wide[base])).dropna()
    listed = ", ".join(f"{dataset} {change:+.2f}" for dataset, change in points.items())
    return f"{told}: {listed} points" if listed else None


def _where(rows, **values):
    for column, value in values.items():
        rows = rows[rows[column] == value]
    return rows


def _change(rows, by, other, base, told):
    """"told: description 0.23 against 0.19": values of the rows `other` beside those of `base`."""
    first, second = (_where(rows, **chosen).set_index(by)["value"] for chosen in (other, base))
    listed = ", ".join(f"{name} {first[name]:.2f} against {second[name]:.2f}" for name in first.index
                       if name in second.index)
    return f"{told}: {listed}" if listed else None


LINES = {  # name -> (the file it reads, the function)
    **{line.__name__: ("table1.csv", line) for line in (random_neighbors, ram_against_clip, seeds)},
    **{line.__name__: ("figure1.csv", line) for line in (normalization, ram_inputs)},
    **{line.__name__: ("is_it_retrieval.csv", line) for line in (controls, eq1_raw, eq1_raw_texts)},
    **{line.__name__: ("video_retrieval.csv", line)
       for line in (film_recall, poolings, unit_mean, eq1_on_films, near_duplicates, names)},
    "against_clip": ("comparisons.csv", against_clip), "pretraining": ("pretraining.csv", pretraining),
}
