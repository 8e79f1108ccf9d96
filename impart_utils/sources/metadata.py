"""Picture-text pairs' metadata: four file formats, captions cleaned in two ways, the seeded order.

In every frame here a row is a photo, all columns are strings, and title and description are percent- and
plus-encoded UTF-8, as YFCC100M stores them; `clean_caption` decodes them.
"""

import bz2
import csv
import hashlib
import html
import re
from html.entities import html5
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote_plus, unquote_plus

import numpy as np
import pandas as pd

# The order of YFCC100M's file, which has no header. The paper repository's csv lacks line and hash.
YFCC_COLUMNS = ("line photoid hash uid unickname datetaken dateuploaded capturedevice title description "
                "usertags machinetags longitude latitude accuracy pageurl downloadurl licensename licenseurl "
                "serverid farmid secret secretoriginal ext marker").split()
COLUMNS = ("photoid hash uid datetaken dateuploaded title description pageurl downloadurl licensename "
           "licenseurl ext marker").split()
# Names in other parquet lists, which hold plain text
OTHER_NAMES = {"url": "downloadurl", "image_url": "downloadurl", "text": "description",
               "caption": "description", "key": "photoid", "id": "photoid", "license": "licensename"}
LICENSES = ("by", "by-sa", "by-nd", "by-nc", "by-nc-sa", "by-nc-nd")  # Creative Commons, as in YFCC
_ADDRESSES = re.compile(r"(?:https?://|www\.)\S+|\S+@\S+\.\S+|\b[\w.-]+\.(?:com|net|org)/\S*", re.I)


def read_metadata(path, *, ids=None):
    """Read a list of photos; no type is guessed, so ids and a title "None" stay what they are.

    Parameters
    ----------
    path : the paper repository's csv (with header), YFCC100M's tab-separated file (without; both perhaps
        .bz2), or parquet with an address and a text column
    ids : iterable of photo ids, or a frame of `read_ids`, optional: keep these photos only. Text files
        are streamed, so that a few of 100 million rows need little memory.

    Returns
    -------
    frame : DataFrame of str with `COLUMNS`, "" where the file doesn't say; its index `row` counts the
        file's rows from 1, without the header

    Raises
    ------
    FileNotFoundError; ImportError : parquet without pyarrow.
    ValueError : an unknown format or a bad row; the message names file, row and column.
    """
    path, kept, numbers = Path(path), [], []
    if not path.is_file():
        raise FileNotFoundError(f"There is no metadata file at {path}. Check the path.")
    wanted = None if ids is None else set(ids["photoid"] if isinstance(ids, pd.DataFrame) else ids)
    names, rows = _parquet_rows(path) if path.suffix == ".parquet" else _text_rows(path)
    places = [names.index(name) if name in names else None for name in COLUMNS]
    for number, fields in rows:
        if len(fields) != len(names):
            raise ValueError(f"{path}, row {number}: expected {len(names)} columns, {names[0]!r} to "
                             f"{names[-1]!r}, got {len(fields)}. Get the file again, or remove that row.")
        row = [fields[place] if place is not None else "" for place in places]
        if not re.fullmatch(r"[\w-]+", row[0]):  # ids name files; 29060.0 went through a guess of types
            raise ValueError(f"{path}, row {number}, column photoid: expected letters, digits, - and _, got "
                             f"{row[0][:60]!r}. Columns are shifted, or a program took ids for numbers.")
        if wanted is None or row[0] in wanted:
            kept.append(row)
            numbers.append(number)
    frame = pd.DataFrame(kept, columns=COLUMNS, index=pd.Index(numbers, dtype="int64", name="row"), dtype=str)
    return join_ids(frame, ids) if isinstance(ids, pd.DataFrame) else frame


def _text_rows(path):
    first = next(_lines(path, header=False), (0, [""]))[1]
    names = next(csv.reader(first)) if len(first) == 1 else YFCC_COLUMNS
    if len(first) not in (1, len(YFCC_COLUMNS)):
        raise ValueError(f"{path}, row 1: expected the {len(names)} tab-separated columns of YFCC100M, got "
                         f"{len(first)}. A file of three is an id list: read it with read_ids.")
    for name in ("photoid", "description", "downloadurl"):
        if name not in names:
            raise ValueError(f"{path}: no column {name} in the first line, {first[0][:60]!r}. Known: csv "
                             "with YFCC's column names there, YFCC100M's tab-separated file, parquet.")
    return names, _lines(path, header=len(first) == 1)


def _lines(path, *, header):
    """(row number, fields) of a csv where `header`, else tab-separated without quoting, a line a row."""
    number, opener = 0, bz2.open if path.suffix == ".bz2" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig", newline="" if header else "\n") as file:
            rows = csv.reader(file) if header else (line.rstrip("\r\n").split("\t") for line in file)
            for number, fields in enumerate(rows, start=0 if header else 1):
                if number and fields:  # csv gives [] for an empty line
                    yield number, fields
    except (UnicodeDecodeError, csv.Error, EOFError, OSError) as error:
        raise ValueError(f"{path} can't be read after row {number} ({type(error).__name__}: {error}). It may "
                         "be cut short, or no text file: get it again.") from error


def _parquet_rows(path):
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(f"Reading {path} needs pyarrow, which the kit's extra `scale` brings: "
                          "pip install -e '.[scale]'") from error
    columns = pyarrow.parquet.read_schema(path).names
    found = {OTHER_NAMES.get(name.lower(), name): name for name in reversed(columns)}
    for needed in ("downloadurl", "description"):
        if needed not in found:
            known = [needed, *(name for name in OTHER_NAMES if OTHER_NAMES[name] == needed)]
            raise ValueError(f"{path}: expected a column {' or '.join(known)}, got {', '.join(columns)}.")
    found = {name: column for name, column in found.items() if name in COLUMNS}
    table = pyarrow.parquet.read_table(path, columns=list(found.values()))
    texts = {name: ["" if value is None else str(value) for value in table[column].to_pylist()]
             for name, column in found.items()}
    texts.setdefault("photoid", [str(number) for number in range(1, len(table) + 1)])
    if "downloadurl" not in columns:  # YFCC's own names promise YFCC's encoding; other lists have plain text
        for name in {"title", "description"} & set(texts):
            texts[name] = map(quote_plus, texts[name])
    return list(texts), enumerate(zip(*texts.values(), strict=True), start=1)


def read_ids(path):
    """OpenAI's list of YFCC15M's photos (tab-separated, perhaps .bz2): frame of str, line, photoid, hash."""
    rows = []
    for number, fields in _lines(Path(path), header=False):
        if not re.fullmatch(r"[0-9]+\t[0-9]+\t[0-9a-f]+", "\t".join(fields)):
            raise ValueError(f"{path}, row {number}: expected line, photoid and hash with tabs between, got "
                             f"{' | '.join(fields)[:60]!r}. This is not OpenAI's id list.")
        rows.append(fields)
    return pd.DataFrame(rows, columns=["line", "photoid", "hash"], dtype=str)


def join_ids(metadata, id_list):
    """Keep the photos of an id list (frame or path), in the metadata's order, with the list's hash.

    Raises ValueError where they share no photo, or where a photo's two hashes differ.
    """
    id_list = id_list if isinstance(id_list, pd.DataFrame) else read_ids(id_list)
    hashes = dict(zip(id_list["photoid"], id_list["hash"], strict=True))
    joined = metadata[metadata["photoid"].isin(hashes)]
    listed = joined["photoid"].map(hashes)
    if joined.empty:
        raise ValueError(f"Expected photos in common, got none among {len(metadata)} rows of metadata and "
                         f"{len(id_list)} ids. The list belongs to other metadata.")
    if (wrong := joined.index[(joined["hash"] != "") & (joined["hash"] != listed)]).size:
        raise ValueError(f"Metadata row {wrong[0]}, column hash: the id list has another hash for photo "
                         f"{joined['photoid'][wrong[0]]}. One of the two files is damaged.")
    return joined.assign(hash=listed)


class _TextNodes(HTMLParser):
    """Text nodes as BeautifulSoup's "html.parser" finds them: that is what the paper's code used."""

    def __init__(self, text):
        super().__init__(convert_charrefs=False)
        self.nodes, self.split = [], True
        self.feed(text)
        self.close()

    def handle_data(self, data):
        if self.cdata_elem not in ("script", "style"):
            self.nodes.append(data if self.split else self.nodes.pop() + data)
            self.split = False

    def handle_starttag(self, *_):
        self.split = True

    handle_endtag = handle_comment = handle_decl = handle_pi = handle_starttag

    def handle_entityref(self, name):
        self.handle_data(html5.get(f"{name};", f"&{name}"))

    def handle_charref(self, name):
        self.handle_data(html.unescape(f"&#{name};"))


def clean_caption(text, how="paper", *, title=""):
    """The caption in an encoded description (and title), `how` one of:

    "paper": what the paper's code did: decode, strip HTML with its text nodes joined by a space, collapse
    white space, drop words longer than 25 characters; no title. "full": title and description, entities
    decoded twice (some were encoded twice), addresses removed, white space collapsed, no word dropped; a
    description that begins with the title stands alone.
    """
    def decode(part):
        return " ".join(_TextNodes(unquote_plus(part)).nodes)

    if how == "paper":
        return " ".join(word for word in decode(text).split() if len(word) <= 25)
    if how != "full":
        raise ValueError(f"Unknown cleaning {how!r}. Known: paper, full.")
    parts = (_ADDRESSES.sub(" ", html.unescape(decode(part))) for part in (title, text))
    title, text = (" ".join(part.split()) for part in parts)
    if not title or not text or text.lower().startswith(title.lower()):
        return text or title
    return f"{title}{'' if title[-1] in '.!?:;,' else '.'} {text}"


def captions(frame, how="paper", *, empty="drop", duplicates="drop", licenses=None, no_derivatives="keep"):
    """Each row's caption and, where the row can't be used, why.

    Parameters
    ----------
    frame : DataFrame of `read_metadata`;  how : as for `clean_caption`
    empty, duplicates : "drop" or "keep" blank captions, and those that an earlier usable row of the frame
        has; the paper's code kept both
    licenses : set of codes that `license_code` gives, or None for all
    no_derivatives : "drop" or "keep" licences that forbid to change a picture (28.8 % of the paper's csv)

    Returns
    -------
    table : DataFrame of str, index as `frame`: caption; reason, "" where the row is usable; same_as, the
        earlier photo with that caption
    """
    for name, value in (("empty", empty), ("duplicates", duplicates), ("no_derivatives", no_derivatives)):
        if value not in ("drop", "keep"):
            raise ValueError(f"Expected {name} to be drop or keep, got {value!r}.")
    rows, seen, ids = [], {}, set()
    for row in frame.itertuples():
        caption = clean_caption(row.description, how, title=row.title)
        code = license_code(row.licenseurl, row.licensename)
        left_out = licenses is not None and code not in licenses
        left_out |= no_derivatives == "drop" and "nd" in code.split("-")
        reasons = {"id listed before": row.photoid in ids, "video": row.marker == "1",
                   "licence left out": left_out,
                   "empty caption": not caption and empty == "drop",
                   "caption of an earlier row": caption in seen and duplicates == "drop"}
        reason = next((reason for reason, holds in reasons.items() if holds), "")
        rows.append((caption, reason, seen.get(caption, "")))
        ids.add(row.photoid)
        if caption and not reason:
            seen.setdefault(caption, row.photoid)
    return pd.DataFrame(rows, columns=["caption", "reason", "same_as"], index=frame.index, dtype=str)


def license_code(url, name=""):
    """ "by-nc-nd" of a Creative Commons address; else the address itself or, where there is none, `name`."""
    found = re.search(r"creativecommons\.org/licenses/([a-z-]+)", url)
    return found.group(1) if found else url or name


def seeded_order(frame, seed):
    """Positions (n,) int64 in which rows are tried: sorted by SHA-256 of seed and photo id.

    Which of two photos comes first thus depends on no other row and on no version of numpy.
    """
    digests = [hashlib.sha256(f"{seed}:{name}".encode()).digest() for name in frame["photoid"]]
    return np.array(sorted(range(len(digests)), key=digests.__getitem__), dtype=np.int64)
