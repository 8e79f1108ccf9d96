"""Films to search in: the paper's gallery from Condensed Movies' metadata, your own files, a fetcher.

``python -m impart_utils.sources.films`` with ``gallery --metadata DIR`` lists the paper's clips, with
``gallery --folder DIR`` your own films; ``fetch --metadata DIR --folder DIR --accept-terms`` gets the clips
that are still there.
"""

import argparse
import datetime
import sys
from pathlib import Path

import pandas as pd

from impart_utils.sources.features import atomic_path, file_hash

# The stored gallery of the paper's code: imdbid -> title, year of the clips' upload, how many of them.
# The year matters: in the published metadata Creed II's imdbid also marks 11 clips of Creed, from 2016.
PAPER_MOVIES = {
    "tt5109784": ("mother!", 2019, 10), "tt7343762": ("Good Boys", 2019, 10),
    "tt2709692": ("The Grinch", 2019, 10), "tt6398184": ("Downton Abbey", 2019, 10),
    "tt6324278": ("Abominable", 2019, 10), "tt6095472": ("The Angry Birds Movie 2", 2019, 10),
    "tt1707386": ("Les Misérables", 2019, 10), "tt0077288": ("La Cage aux Folles", 2019, 8),
    "tt0109288": ("Blankman", 2020, 10), "tt6343314": ("Creed II", 2020, 9),
    "tt5013056": ("Dunkirk", 2020, 9), "tt0448115": ("Shazam!", 2020, 9),
}
SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")
FORMAT = "bv*[height<=360][ext=mp4]/bv*[height<=480]/b[height<=360]/b"  # no sound; enough for 224 px
TERMS = (
    "Nothing was downloaded. The clips are studio material on YouTube, whose terms forbid downloading "
    "without its or the rightholder's permission. If you have it, or the law where you are grants it to your "
    "research, say so with --accept-terms (in Python accept_terms=True). Otherwise use your own films: put "
    "them into a folder, with films.csv beside them if you like, and run with --set films=folder:PATH.")
# What YouTube and yt-dlp say -> state of a clip; the first that occurs decides. A message may hold several.
STATES = {
    "throttled": ("try again later", "rate-limited", "http error 429", "too many requests"),  # temporary
    "bot check": ("not a bot",),
    "no runtime": ("no supported javascript runtime",),
    "age": ("confirm your age", "age-restricted", "age restricted"),
    "region": ("in your country", "geo restriction", "geo-restrict", "from your location"),
    "private": ("private video", "video is private", "members-only", "join this channel"),
    "removed": ("removed", "no longer available", "video unavailable", "video is unavailable", "terminated",
                "http error 404", "http error 410", "video is not available", "does not exist"),
}
MANIFEST = ("videoid", "state", "message", "file", "bytes", "sha256", "seconds", "fps", "format", "yt_dlp",
            "time")


def paper_gallery(metadata_folder):
    """The paper's gallery, rebuilt from the metadata of Condensed Movies: 118 clips of 12 movies.

    The paper's code stored 115 of them and no list by name. Ten movies are there with all their clips
    (`in_paper` "yes", 98 clips); of Dunkirk it holds 9 of 10 and of La Cage aux Folles 8 of 10, nobody
    knows which ("unknown", 20 clips).

    Parameters
    ----------
    metadata_folder : holds clips.csv and descriptions.csv, also under names that end so

    Returns
    -------
    DataFrame: videoid, imdbid, movie, clip_name, description (str), upload_year (int), in_paper

    Raises
    ------
    FileNotFoundError; ValueError : a column or one of the movies is missing.
    """
    columns = ("videoid", "imdbid", "clip_idx", "clip_name", "upload_year")
    clips = _metadata(metadata_folder, "clips.csv", columns)
    texts = _metadata(metadata_folder, "descriptions.csv", ("imdbid", "videoid", "description"))
    wanted = pd.DataFrame([(imdbid, *row) for imdbid, row in PAPER_MOVIES.items()],
                          columns=["imdbid", "movie", "upload_year", "in_paper"])
    clips["upload_year"] = pd.to_numeric(clips["upload_year"], errors="coerce").fillna(-1).astype(int)
    # on imdbid, never on titles: clips and movies spell 452 titles differently, and 61 titles are shared
    gallery = wanted.merge(clips, on=["imdbid", "upload_year"], how="left", validate="one_to_many")
    lacking = gallery.loc[gallery["videoid"].isna(), "movie"]
    if len(lacking):
        raise ValueError(f"The metadata in {metadata_folder} has no clip of {', '.join(lacking)}. Get the "
                         "complete clips.csv of Condensed Movies.")
    gallery = gallery.merge(texts, on=["imdbid", "videoid"], how="left", validate="one_to_one")
    gallery["description"] = gallery["description"].fillna("")
    sizes = gallery.groupby("imdbid")["videoid"].transform("size")
    gallery["in_paper"] = (sizes == gallery["in_paper"]).map({True: "yes", False: "unknown"})
    order = gallery["imdbid"].map(list(PAPER_MOVIES).index) * 1000 + gallery["clip_idx"].astype(int)
    columns = ["videoid", "imdbid", "movie", "clip_name", "description", "upload_year", "in_paper"]
    return gallery.loc[order.sort_values(kind="stable").index, columns].reset_index(drop=True)


def _metadata(folder, ending, columns):
    """A CSV of strings: ids lose no zero, and a film called "None" keeps its title."""
    found = sorted(path for path in Path(folder).glob(f"*{ending}"))
    if not found:
        raise FileNotFoundError(f"There is no *{ending} in {folder}. Expected the metadata of Condensed "
                                "Movies (its repository's data/metadata folder).")
    return _read_csv(found[0], columns)


def _read_csv(path, columns):
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a readable CSV file in UTF-8: {error}.") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(f"{path}: expected the columns {', '.join(columns)}; missing: {', '.join(missing)}. "
                         f"It has {', '.join(table.columns)}.")
    return table


def folder_gallery(folder):
    """Films of the user's own, in a folder and the folders below.

    Parameters
    ----------
    folder : holds .mp4, .mkv, .webm, .mov or .avi files. With films.csv in it (columns file, movie, title,
        description; file is relative to the folder) the rows' order counts and each film needs a row.
        Without it a film's title is its file's name, its movie its folder's, its description empty.

    Returns
    -------
    DataFrame: file (str, relative, with /), path (Path), movie, title, description

    Raises
    ------
    FileNotFoundError : no such folder, or a row whose file isn't there
    ValueError : no film, a film without row, a file named twice, a missing column, an empty file name.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Give one with films ({', '.join(SUFFIXES)}).")
    files = [path.relative_to(folder) for path in sorted(folder.rglob("*"))
             if path.suffix.lower() in SUFFIXES]
    files = [file.as_posix() for file in files if not any(part.startswith(".") for part in file.parts)]
    if not files:
        raise ValueError(f"There is no film in {folder}. Known kinds: {', '.join(SUFFIXES)}.")
    if (folder / "films.csv").is_file():
        table = _read_csv(folder / "films.csv", ("file", "movie", "title", "description"))
        _check_rows(folder, table["file"], files)
        table = table[["file", "movie", "title", "description"]].copy()
    else:
        movies = [Path(file).parent.name if "/" in file else "" for file in files]
        table = pd.DataFrame({"file": files, "movie": movies, "title": [Path(file).stem for file in files],
                              "description": ""})
    table.insert(1, "path", [folder / file for file in table["file"]])
    return table


def _check_rows(folder, rows, files):
    for line, file in enumerate(rows, start=2):  # line 1 is the header
        where = f"{folder / 'films.csv'}, row {line}"
        if not file:
            raise ValueError(f"{where}: the file name is empty.")
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{where}: there is no file {file!r} in {folder}. Correct the name or "
                                    "remove the row.")
        if list(rows[:line - 2]).count(file):
            raise ValueError(f"{where}: {file!r} has a row already. Remove one of them.")
    without = sorted(set(files) - set(rows))
    if without:
        raise ValueError(f"{folder / 'films.csv'}: {len(without)} of {len(files)} films have no row, the "
                         f"first is {without[0]!r}. Add a row for it or move it elsewhere.")


def classify_error(message):
    """Why a clip could not be had, from yt-dlp's message: a key of STATES, or "other"."""
    text = message.lower()
    return next((state for state, signs in STATES.items() if any(sign in text for sign in signs)), "other")


def fetch(gallery, folder, *, accept_terms=False, cookies=None, sleep=(10, 20), progress=print):
    """Download the clips of a gallery with yt-dlp, one after the other; a second call tries what is missing.

    Parameters
    ----------
    gallery : DataFrame of `paper_gallery`; a column `url` replaces the watch page made from videoid
    folder : gets VIDEOID.mp4, films.csv for `folder_gallery`, and manifest.csv with one row a clip: its
        state (ok or one of `classify_error`), yt-dlp's message, hash, length, rate, format, version, time
    accept_terms : bool, see TERMS
    cookies : path of a cookies file in Netscape's format, handed to yt-dlp and stored nowhere
    sleep : (least, most) seconds between two clips
    progress : callable for a line of text per clip

    Returns
    -------
    DataFrame, the manifest. It stops after "throttled" or "bot check": further tries make both last longer.

    Raises
    ------
    PermissionError : terms not accepted;  RuntimeError : yt-dlp isn't installed.
    """
    if not accept_terms:
        raise PermissionError(TERMS)
    folder = Path(folder).expanduser()
    folder.mkdir(parents=True, exist_ok=True)
    manifest = folder / "manifest.csv"
    known = _read_csv(manifest, MANIFEST).to_dict("records") if manifest.exists() else []
    rows = {row["videoid"]: row for row in known}
    for number, clip in enumerate(gallery.to_dict("records"), start=1):
        before = rows.get(clip["videoid"])
        if before and (folder / before["file"]).is_file():  # only a clip that was got has a file
            continue
        row = rows[clip["videoid"]] = _fetch_clip(clip, folder, cookies, sleep)
        _write_csv(pd.DataFrame(rows.values(), columns=MANIFEST), manifest)
        line = f"{number} of {len(gallery)}  {clip['videoid']}  {row['state']}  {row['message'][:80]}"
        progress(line.rstrip())
        if row["state"] in ("throttled", "bot check"):
            progress(f"Stopped: {row['state']}. Try again in an hour, elsewhere or with --cookies.")
            break
    _write_films_csv(gallery, rows, folder)
    return pd.DataFrame(rows.values(), columns=MANIFEST)


def _fetch_clip(clip, folder, cookies, sleep):
    """Download one clip; its manifest row, whatever happens."""
    try:
        import yt_dlp
    except ImportError as error:
        raise RuntimeError("Fetching clips needs yt-dlp: pip install -e '.[youtube]'") from error
    name, notes = clip["videoid"], _Notes()
    # a full address: yt-dlp would take an id such as -jpEsYBH3g4 for an option
    url = clip.get("url") or f"https://www.youtube.com/watch?v={name}"
    row = {**dict.fromkeys(MANIFEST, ""), "videoid": name, "yt_dlp": yt_dlp.version.__version__,
           "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")}
    options = {"format": FORMAT, "outtmpl": name.replace("%", "%%") + ".%(ext)s", "continuedl": True,
               "paths": {"home": str(folder), "temp": str(folder / ".partial")},  # half files out of sight
               "retries": 3, "socket_timeout": 30, "noplaylist": True, "quiet": True, "noprogress": True,
               "logger": notes,
               "sleep_interval": sleep[0], "max_sleep_interval": sleep[1], "sleep_interval_requests": 0.75,
               **({"cookiefile": str(cookies)} if cookies else {})}
    try:
        with yt_dlp.YoutubeDL(options) as downloader:  # one each: its return code sticks
            info = downloader.extract_info(url, download=True)
            path = Path(info["requested_downloads"][0]["filepath"])
    except yt_dlp.utils.DownloadError as error:
        # without a JavaScript runtime YouTube's formats are missing; only a warning tells why
        return {**row, "state": classify_error(f"{error} {' '.join(notes.lines)}"), "message": str(error)}
    return {**row, "state": "ok", "file": path.name, "bytes": path.stat().st_size, "sha256": file_hash(path),
            "seconds": info.get("duration") or "", "fps": info.get("fps") or "",
            "format": info.get("format_id", "")}


class _Notes:
    """yt-dlp's warnings, kept instead of printed; its errors come as exceptions."""

    def __init__(self):
        self.lines = []

    def debug(self, message):
        del message  # progress of single requests

    def error(self, message):
        self.lines.append(message)

    warning = error


def _write_films_csv(gallery, rows, folder):
    """What `folder_gallery` reads; rows about other files stay."""
    got = gallery[[rows.get(name, {}).get("state") == "ok" for name in gallery["videoid"]]]
    table = pd.DataFrame({"file": [rows[name]["file"] for name in got["videoid"]], "movie": got["movie"],
                          "title": got["clip_name"], "description": got["description"]})
    path = folder / "films.csv"
    if path.exists():
        before = _read_csv(path, ("file", "movie", "title", "description"))
        table = pd.concat([before[~before["file"].isin(table["file"])], table])
    if len(table):
        _write_csv(table, path)


def _write_csv(table, path):
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, encoding="utf-8")


def main(arguments=None):
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m impart_utils.sources.films",
                                     description="Films to search in: list them, or fetch the paper's.")
    parser.add_argument("action", choices=("gallery", "fetch"))
    parser.add_argument("--metadata", metavar="DIR", help="metadata of Condensed Movies: the paper's gallery")
    parser.add_argument("--folder", metavar="PATH", help="your own films, or where to fetch to")
    parser.add_argument("--cookies", metavar="FILE", help="cookies for yt-dlp, if YouTube asks who you are")
    parser.add_argument("--accept-terms", action="store_true", help="you may download: see what fetch says")
    options = parser.parse_args(arguments)
    if options.action == "fetch" and not (options.metadata and options.folder):
        parser.error("fetch needs --metadata DIR and --folder PATH")
    if not options.metadata and not options.folder:
        parser.error("gallery needs --metadata DIR or --folder PATH")
    try:
        gallery = paper_gallery(options.metadata) if options.metadata else folder_gallery(options.folder)
        if options.action == "fetch":
            manifest = fetch(gallery, options.folder, accept_terms=options.accept_terms,
                             cookies=options.cookies)
            print(manifest["state"].value_counts().to_string())
            return 0
    except (FileNotFoundError, ValueError, PermissionError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    gallery.drop(columns="path", errors="ignore").to_csv(sys.stdout, index=False)
    print(f"{len(gallery)} films of {gallery['movie'].nunique()} movies", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
