"""Clips from YouTube by yt-dlp: fetched only with consent, and what became of each."""

import datetime
from pathlib import Path

import pandas as pd

from impart_utils.sources.csv_files import read_csv, write_csv
from impart_utils.sources.files import file_hash

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
    known = read_csv(manifest, MANIFEST).to_dict("records") if manifest.exists() else []
    rows = {row["videoid"]: row for row in known}
    for number, clip in enumerate(gallery.to_dict("records"), start=1):
        before = rows.get(clip["videoid"])
        if before and (folder / before["file"]).is_file():  # only a clip that was got has a file
            continue
        row = rows[clip["videoid"]] = _fetch_clip(clip, folder, cookies, sleep)
        write_csv(pd.DataFrame(rows.values(), columns=MANIFEST), manifest)
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
        before = read_csv(path, ("file", "movie", "title", "description"))
        table = pd.concat([before[~before["file"].isin(table["file"])], table])
    if len(table):
        write_csv(table, path)
