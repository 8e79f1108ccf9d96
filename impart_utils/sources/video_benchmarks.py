"""Annotations of standard video benchmarks that the user has on disk, all as one kind of table.

Columns: benchmark, video_id, sentence, start, end (seconds; NaN where the sentence tells of the whole video).
Rows that can't be right, such as an interval that ends before it starts, are left out with a warning and
stand in ``table.attrs["bad_rows"]`` as (line, reason). A file of another format is an error with its line.
"""

import json
import re
import warnings
from pathlib import Path

import pandas as pd

from impart_utils.sources.condensed_movies import split_clips

COLUMNS = ["benchmark", "video_id", "sentence", "start", "end"]
CHUNK = 5.0  # seconds; DiDeMo counts whole chunks, of which a video has six or fewer


def condensed_movies(metadata_folder, split="test"):
    """Condensed Movies: clips.csv, descriptions.csv and split.csv of its metadata, by `split_clips`.

    A description tells of the whole clip. A further column `movie` serves the within-movie protocol; the rows
    left out are counted in ``attrs["left_out"]`` (94 clips have no description, 44 share one with another).
    """
    clips = split_clips(metadata_folder, split)
    table = pd.DataFrame({"benchmark": "Condensed Movies", "video_id": clips["videoid"],
                          "sentence": clips["description"], "start": float("nan"), "end": float("nan"),
                          "movie": clips["movie"]})
    table.attrs = {"bad_rows": [], "left_out": clips.attrs["left_out"]}
    return table


def msrvtt(path):
    """MSR-VTT, 1k-A test list: a CSV file with the columns key, vid_key, video_id, sentence."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable CSV file: {error}.") from error
    missing = [column for column in ("key", "vid_key", "video_id", "sentence") if column not in table.columns]
    if missing:
        raise ValueError(f"{path}, line 1: expected the columns key, vid_key, video_id and sentence, "
                         f"{', '.join(missing)} is missing.")
    rows = [(line, video, sentence, float("nan"), float("nan"), "") for line, (video, sentence)
            in enumerate(zip(table["video_id"], table["sentence"], strict=True), start=2)]
    return _table("MSR-VTT 1k-A", path, rows)


def didemo(path):
    """DiDeMo: a JSON list of entries with video, description and times, pairs [first, last] of 5 s chunks.

    Several people marked each moment. The interval is the pair most of them gave, of equal ones the first;
    all pairs stay in a column `times`, in chunks, since DiDeMo's own metric asks for them. Lines are entries.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # not JSON, not UTF-8
        raise ValueError(f"{path} is not a readable JSON file: {error}.") from error
    rows = []
    for line, entry in enumerate(entries, start=1):
        try:
            times = [(int(first), int(last)) for first, last in entry["times"]]
            best = max(times, key=times.count)
            video, sentence, chunks = entry["video"], entry["description"], entry.get("num_segments", 6)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {line}: expected an entry with video, description and times, a "
                             f"pair [first, last] for each person, got {str(entry)[:100]}.") from error
        reason = "" if 0 <= best[0] and best[1] < chunks else f"chunks {list(best)} of a video of {chunks}"
        rows.append((line, video, sentence, best[0] * CHUNK, (best[1] + 1) * CHUNK, reason))
    table = _table("DiDeMo", path, rows)
    bad = {line for line, _ in table.attrs["bad_rows"]}
    table["times"] = [entry["times"] for line, entry in enumerate(entries, start=1) if line not in bad]
    return table


def charades_sta(path, durations=None):
    """Charades-STA: lines "id start end##sentence", for example "AO8RW 0.0 6.9##a person is putting a book".

    Parameters
    ----------
    path : of the text file
    durations : dict video_id -> seconds, from Charades' own list (column length), or None. With it an end
        past the video's is moved to it, counted in ``attrs["clipped"]``; a start past it makes a bad row.
    """
    rows, clipped = [], 0
    for line, text in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        parts = re.fullmatch(r"(\S+) +(-?[\d.]+) +(-?[\d.]+) *##(.*)", text.strip())
        try:
            video, start, end, sentence = parts[1], float(parts[2]), float(parts[3]), parts[4]
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}, line {line}: expected 'id start end##sentence', "
                             f"got {text[:100]!r}.") from error
        length = (durations or {}).get(video, float("inf"))
        clipped += start < length < end
        reason = f"starts after {length} s" if start >= length else ""
        rows.append((line, video, sentence, start, min(end, length), reason))
    table = _table("Charades-STA", path, rows)
    table.attrs["clipped"] = clipped
    return table


def _table(benchmark, path, rows):
    """Rows of (line, video, sentence, start, end, what is wrong or "") as a table without the bad ones."""
    good, bad = [], []
    for line, video, sentence, start, end, reason in rows:
        sentence = " ".join(sentence.split())
        if not reason and (not video or not sentence):
            reason = "no sentence" if video else "no video"
        if not reason and (start < 0 or end <= start):  # False for NaN, a whole video
            reason = f"interval from {start} to {end} s"
        if reason:
            bad.append((line, reason))
        else:
            good.append((benchmark, video, sentence, start, end))
    if not good:
        raise ValueError(f"{path} has no usable row ({len(bad)} bad). Expected {benchmark}'s annotations.")
    if bad:
        warnings.warn(f"{path}: {len(bad)} of {len(rows)} rows left out, the first is line {bad[0][0]} "
                      f"({bad[0][1]}).", stacklevel=3)
    table = pd.DataFrame(good, columns=COLUMNS)
    table.attrs["bad_rows"] = bad
    return table
