"""By how much two runs may differ; the same for every comparison.

`TRAINED` was set after one measurement: with one thread and with two, notebook 04's 18 trainings lay up to
0.9 points apart, and all that isn't trained was equal.
"""

ITEMS, RELATIVE, TRAINED = 3, 0.05, 0.015
RULES = f"""Tolerances, the same for every comparison:
- what isn't trained (CLIP, Eq. 1, controls, films) is the same to the last digit on one machine with the
  same versions and threads; elsewhere a share may differ by {ITEMS} pictures or queries, and a rank or any
  other number by {100 * RELATIVE:g} %;
- what is trained (rows of RAM) may differ by {100 * TRAINED:g} points of accuracy: the order of a sum
  follows the number of threads, and a training carries a difference in the last digit on;
- intervals, p values and counts of changed pictures follow from these: they are judged where all must be
  equal, and only listed elsewhere;
- another verdict, another setting of a row (n, k, prompts, ...), and a row, column or file that only one
  run has are never within."""

SHARES = ("accuracy", "value", "ours", "difference")       # judged: fractions, in the scoreboard percent
SCALES = {"accuracy": 100, "equivalence": 100, "direction": 100, "example": 1}  # the scoreboard's percent
COUNTS = ("correct",)                                      # judged: pictures
FOLLOWING = ("low", "high", "p", "p_holm", "b", "c")       # follow from the judged ones
MEASURED = (*SHARES, *COUNTS, *FOLLOWING)


def number(text):
    """A float, or None where the text isn't one."""
    try:
        return float(text)
    except ValueError:
        return None


def tolerance(column, row, name, same_machine):
    """By how much a number may differ, in its own unit; None where it follows from others.

    Parameters
    ----------
    column : str;  row : dict of str, the row it stands in;  name : str, the file's;  same_machine : bool
    """
    trained = is_trained(row)
    if same_machine and not trained:
        return 0.0
    if column in FOLLOWING:
        return None
    n, value = number(row.get("n", "")), abs(number(row.get(column, "")) or 0.0)
    share = TRAINED if trained else ITEMS / n if n else None
    if column in COUNTS or (column == "difference" and name == "comparisons.csv"):  # in pictures
        return share * n if share and n else float(ITEMS)
    if name == "scoreboard.csv" and row.get("metric") not in SCALES:
        return 0.0  # a setting of the run
    if share is None or column not in SHARES or "rank" in row.get("metric", ""):
        return RELATIVE * value
    return share * SCALES[row["metric"]] if name == "scoreboard.csv" else share


def is_trained(row):
    """Whether a row comes from a training: RAM's, by its method or seed, or the tiny CLIP's, by its steps."""
    return "RAM" in row.get("method", "") or row.get("seed", "") != "" or "steps" in row
