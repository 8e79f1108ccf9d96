"""CSV files of text: read with their columns checked, written whole or not at all."""

import pandas as pd

from impart_utils.sources.files import atomic_path


def read_csv(path, columns):
    """A CSV file of strings, so that ids lose no zero and a film called "None" keeps its title.

    Raises
    ------
    ValueError : not a CSV file in UTF-8, or a column is missing.
    """
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable CSV file in UTF-8: {error}.") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path}: expected the columns {', '.join(columns)}; missing: {', '.join(missing)}. "
                         f"It has {', '.join(table.columns)}.")
    return table


def write_csv(table, path):
    """Write a table as CSV, to a temporary name first."""
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8")
