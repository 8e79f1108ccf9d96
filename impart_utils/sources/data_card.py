"""The data card: what a set of picture-text pairs is made of, said by the data themselves."""

from collections import Counter
from datetime import UTC, datetime

import numpy as np

from impart_utils.sources.files import content_hash
from impart_utils.sources.metadata import license_code


def data_card(frame, kept, table, *, source, seed, how="paper", states=None, count_tokens=None,
              picture_hashes=()):
    """What a set is made of, as Markdown.

    Parameters
    ----------
    frame, table : DataFrames of `metadata.read_metadata` and `metadata.captions`
    kept : positions (m,) in them, the set in its order
    source : str, such as the metadata's file name and hash
    seed, how : what order and captions were made with
    states : dict, photo id -> the downloader's state, of the rows that were tried
    count_tokens : function, caption -> its number of CLIP tokens with start and end
    picture_hashes : list of m SHA-256, of the pictures' files

    Raises
    ------
    ValueError : no row was kept.
    """
    if not len(kept):
        raise ValueError("Expected at least one kept row, got none. See the reasons in table and states.")
    rows, texts = frame.iloc[kept], list(table["caption"].iloc[kept])
    hashed = "ids, captions and pictures" if len(picture_hashes) else "ids and captions"
    card = [f"# Data card: {len(rows)} picture-text pairs\n",
            f"- Source: {source}, {len(frame)} rows read",
            f"- Order: by SHA-256 of seed {seed} and photo id; captions: cleaning \"{how}\"",
            f"- Hash of the set ({hashed} in order): {set_hash(rows['photoid'], texts, picture_hashes)}",
            _caption_line(texts, count_tokens),
            f"- People: {rows['uid'].nunique()}; the five with most pictures have "
            f"{rows['uid'].value_counts().head().sum()} of {len(rows)}", *_not_random(frame)]
    licenses = map(license_code, rows["licenseurl"], rows["licensename"])
    for title, values in (("Rows of the source", _fates(frame, kept, table, states or {})),
                          ("Licences", licenses), ("Year of upload", map(_year, rows["dateuploaded"])),
                          ("Year taken", rows["datetaken"].str[:4])):
        card += [f"\n| {title} | n |\n|---|---|",
                 *(f"| {name or 'unknown'} | {n} |" for name, n in Counter(values).most_common())]
    return "\n".join(card) + "\n"


def set_hash(ids, captions, picture_hashes=()):
    """16 hex characters over ids, captions and the pictures' SHA-256, in order."""
    return content_hash(list(ids), list(captions), list(picture_hashes))


def _caption_line(texts, count_tokens):
    words, some = np.array([len(text.split()) for text in texts]), [text for text in texts if text]
    line = (f"- Words per caption: median {np.median(words):g}, mean {words.mean():.1f}, maximum "
            f"{words.max()}; captions without any: {np.sum(words == 0)}; captions that an earlier pair has: "
            f"{len(some) - len(set(some))}")
    if count_tokens:
        line += f"\n- Captions over CLIP's 77 tokens: {sum(count_tokens(text) > 77 for text in texts)}"
    return line


def _not_random(frame):
    """A line where the source is a stretch of a list sorted by id, nearly all of one year."""
    ids = [int(name) for name in frame["photoid"] if name.isdigit()]
    year, count = Counter(map(_year, frame["dateuploaded"])).most_common(1)[0]
    if len(ids) < 20 or ids != sorted(ids) or year == "unknown" or count < 0.9 * len(frame):
        return []
    return [f"- Not a random sample: the source's rows are the first of a list in order of photo id, "
            f"{ids[0]} to {ids[-1]}; {count} of {len(frame)} were uploaded in {year}, by "
            f"{frame['uid'].nunique()} people in all"]


def _fates(frame, kept, table, states):
    """What became of each row of the source: kept, why not usable, its state, or not needed."""
    fates = np.array([reason or states.get(photo, "not needed")
                      for reason, photo in zip(table["reason"], frame["photoid"], strict=True)], dtype=object)
    fates[kept] = "kept"
    return fates


def _year(seconds):
    return str(datetime.fromtimestamp(int(seconds), UTC).year) if seconds.isdigit() else "unknown"
