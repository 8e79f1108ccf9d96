"""Films to search in: a folder of your own films, and the command line that lists and fetches.

``python -m impart_utils.sources.films`` with ``gallery --metadata DIR`` lists the paper's clips (with
``--select`` others of Condensed Movies), with ``gallery --folder DIR`` your own films; ``fetch --metadata
DIR --folder DIR --accept-terms`` gets the clips that are still there.
"""

import argparse
import sys
from pathlib import Path

import pandas as pd

from impart_utils.sources.condensed_movies import (
    PAPER_MOVIES,
    SPLITS,
    durations,
    paper_gallery,
    split_clips,
)
from impart_utils.sources.csv_files import read_csv
from impart_utils.sources.film_fetch import fetch

SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi")


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
        table = read_csv(folder / "films.csv", ("file", "movie", "title", "description"))
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


def _check_options(parser, options):
    if options.action == "fetch" and not (options.metadata and options.folder):
        parser.error("fetch needs --metadata DIR and --folder PATH")
    if not options.metadata and not options.folder:
        parser.error("gallery needs --metadata DIR or --folder PATH")
    if options.trim == "known" and not options.metadata:
        parser.error("--trim known needs --metadata DIR, which holds durations.csv")
    if options.trim == "detect" and not options.folder:
        parser.error("--trim detect needs --folder PATH: it compares the films themselves")


def _clips(options):
    """The clips that --metadata and --select name, with a column `end` where --trim known asks for it."""
    if options.select == "paper":
        clips = paper_gallery(options.metadata)
    else:
        clips = split_clips(options.metadata, options.select)
        left_out = ", ".join(f"{count} {why}" for why, count in clips.attrs["left_out"].items())
        print(f"left out: {left_out}", file=sys.stderr)
    if options.trim == "known":
        ends = durations(options.metadata)
        clips["end"] = [ends.get(name, "") for name in clips["videoid"]]
    return clips


def _show(table, options):
    table.drop(columns="path", errors="ignore").to_csv(sys.stdout, index=False)
    print(f"{len(table)} films of {table['movie'].nunique()} movies", file=sys.stderr)
    if options.metadata and options.select == "paper" and "in_paper" in table:
        stored = sum(count for _, _, count in PAPER_MOVIES.values())
        unsure = table.loc[table["in_paper"] == "unknown"].groupby("movie", sort=False).size()
        print(f"the paper's code stored {stored} of them; not known which of: "
              + ", ".join(f"{movie} ({count})" for movie, count in unsure.items()), file=sys.stderr)


def main(arguments=None):
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser("python -m impart_utils.sources.films",
                                     description="Films to search in: list them, or fetch the paper's.")
    parser.add_argument("action", choices=("gallery", "fetch"))
    parser.add_argument("--metadata", metavar="DIR", help="metadata of Condensed Movies")
    parser.add_argument("--select", choices=("paper", *SPLITS, "all"), default="paper",
                        help="which clips of it: the paper's (default), a part of its split.csv, or all")
    parser.add_argument("--folder", metavar="PATH", help="your own films, or where to fetch to")
    parser.add_argument("--trim", choices=("none", "known", "detect"), default="none",
                        help="tell where each film ends before the ending that clips share: known = by "
                             "durations.csv of --metadata; detect = by comparing the films in --folder")
    parser.add_argument("--profile", choices=("demo", "paper"), default="paper",
                        help="whose CLIP compares the films (default: %(default)s)")
    parser.add_argument("--cookies", metavar="FILE", help="cookies for yt-dlp, if YouTube asks who you are")
    parser.add_argument("--accept-terms", action="store_true", help="you may download: see what fetch says")
    options = parser.parse_args(arguments)
    _check_options(parser, options)
    try:
        if options.action == "fetch":
            manifest = fetch(_clips(options), options.folder, accept_terms=options.accept_terms,
                             cookies=options.cookies)
            print(manifest["state"].value_counts().to_string())
            return 0
        if options.folder and options.trim != "none":
            from impart_utils.config import load_config
            from impart_utils.gallery import film_gallery
            from impart_utils.outros import trim_gallery

            gallery = film_gallery(load_config(options.profile, films=f"folder:{options.folder}"))
            ends = durations(options.metadata) if options.trim == "known" else None
            trimmed, cuts = trim_gallery(gallery, options.trim, durations=ends)
            _show(pd.DataFrame(cuts), options)
            print(trimmed.name, *(f"{name}: {why}" for name, why in gallery.broken.items()), sep="\n",
                  file=sys.stderr)
            return 0
        _show(_clips(options) if options.metadata else folder_gallery(options.folder), options)
    except (FileNotFoundError, ValueError, PermissionError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
