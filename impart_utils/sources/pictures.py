"""Many pictures by address: in order, politely, with a manifest that survives a kill."""

import contextlib
import csv
import heapq
import json
import re
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from impart_utils.sources.download import USER_AGENT, _size
from impart_utils.sources.features import atomic_path, progress_bar
from impart_utils.sources.picture_client import FIELDS, _Client, _try_row

LOG = "manifest.jsonl"


def download_pictures(rows, folder, *, wanted=None, threads=32, per_host=2.0, timeout=10.0, retry=False,
                      allow_private=False, max_bytes=50_000_000, user_agent=USER_AGENT, progress=True):
    """Fetch pictures by address, in the order given, until `wanted` of them are good.

    Parameters
    ----------
    rows : DataFrame or list of dict with photoid and downloadurl, in the order to be tried (that of
        `metadata.seeded_order`); fallbackurl (see `commons_url`), licenseurl and pageurl where known
    folder : str or Path. It gets the pictures, as the servers sent them; manifest.jsonl, to which each
        row's end is added at once; and manifest.csv, the table that is returned. A call after a kill
        goes on from manifest.jsonl and asks for no row again that is ok there.
    wanted : int or None, the number of ok pictures after which to stop; no row more is asked for
    threads : int; per_host : float or None, requests per second to one host (None: no limit)
    timeout : float, seconds without a sign of the server; a body may take as long and 1 s per 20 kB
    retry : bool, try rows again that an earlier call ended with anything but ok
    allow_private : bool, let addresses and redirects lead into private networks
    max_bytes : int, size above which a picture is "too large"

    Returns
    -------
    manifest : list of dict with `FIELDS`, a row for each one tried, in the order given, up to the
        wanted-th ok one: it depends on rows and on what is alive, not on the threads' timing. state is
        ok, dead, placeholder (its final address says so, or two rows have equal pixels), not a picture,
        truncated, throttled or too large; detail says why. Fewer ok rows than wanted: the rows are used up.
    """
    rows = rows.to_dict("records") if hasattr(rows, "to_dict") else list(rows)
    for name, count in Counter(row["photoid"] for row in rows).items():
        if count > 1 or not re.fullmatch(r"[\w-]+", name):  # ids name the files
            raise ValueError("Expected one row per photo id, and ids of letters, digits, - and _, got "
                             f"{name!r} in {count} rows. Drop or rename it.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    known = _settled(folder, retry)
    client = _Client(per_host=per_host, timeout=timeout, allow_private=allow_private, max_bytes=max_bytes,
                     user_agent=user_agent)
    if progress and per_host:
        have = sum(row["state"] == "ok" for row in known.values())
        minutes = min(len(rows) - len(known), 1.1 * ((wanted or len(rows)) - have)) / per_host / 60
        print(f"About {max(minutes, 0):.0f} minutes if all are on one host ({per_host:g} requests/s). Stop "
              "at any time: the next call goes on.")
    with (_log_writer(folder) as write, ThreadPoolExecutor(threads) as pool,
          progress_bar(description="pictures", total=wanted or len(rows), progress=progress, unit="") as bar):
        try:
            tally = _fetch_in_order(rows, known, client, folder, pool, write, bar, wanted, threads)
        finally:
            client.stop.set()
    manifest = tally.manifest()
    with atomic_path(folder / "manifest.csv") as path, open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, FIELDS)
        table.writeheader()
        table.writerows(manifest)
    return manifest


def _fetch_in_order(rows, known, client, folder, pool, write, bar, wanted, threads):
    """The main thread's part: hand rows out in order and keep what comes back; a pause holds no thread."""
    tally, places, running, pausing = _Tally(), iter(range(len(rows))), {}, []  # pausing: a heap by due time
    while True:
        while len(running) < threads:
            if pausing and pausing[0][0] <= time.monotonic():
                _, *job = heapq.heappop(pausing)
            # A row under way counts as good until it fails: none is asked for that may not be needed
            elif wanted is not None and tally.good + len(running) + len(pausing) >= wanted:
                break
            elif (place := next(places, None)) is None:
                break
            elif settled := known.get((rows[place]["photoid"], rows[place]["downloadurl"])):
                tally.add(place, settled)
                continue
            else:
                job = [place, 0, 0]
            running[pool.submit(_try_row, client, rows[job[0]], *job[1:])] = job[0]
        if not running and not pausing:
            return tally
        spare = pausing and len(running) < threads  # someone could take the next one that is due
        delay = max(0.0, pausing[0][0] - time.monotonic()) if spare else None
        if not running:
            time.sleep(delay)
        for future in wait(running, timeout=delay, return_when=FIRST_COMPLETED).done:
            place, (row, body, pause, *again) = running.pop(future), future.result()
            if pause is not None:
                heapq.heappush(pausing, [time.monotonic() + pause, place, *again])
                continue
            if body is not None:
                with atomic_path(folder / row["file"]) as temporary:
                    temporary.write_bytes(body)
            write(row)
            tally.add(place, row)
            bar.n = tally.good
            bar.update(0)


class _Tally:
    """The rows that have ended, and how many are good: ok, with pixels that no other row has."""

    def __init__(self):
        self.rows, self.pixels, self.good = {}, Counter(), 0

    def add(self, place, row):
        self.rows[place] = row
        if row["state"] == "ok":
            self.pixels[row["pixels"]] += 1
            self.good += {1: 1, 2: -1}.get(self.pixels[row["pixels"]], 0)  # of two equal ones neither is good

    def manifest(self):
        """Only all rows together tell a placeholder that its address doesn't give away."""
        rows = [self.rows[place] for place in sorted(self.rows)]
        return [row if row["state"] != "ok" or self.pixels[row["pixels"]] == 1 else
                row | {"state": "placeholder", "detail": f"equal pixels in {self.pixels[row['pixels']]} rows"}
                for row in rows]


def commons_url(photo_hash):
    """Where the bucket multimedia-commons keeps a YFCC photo by its hash (longer side 500 pixels)."""
    return ("https://multimedia-commons.s3-us-west-2.amazonaws.com/data/images/"
            f"{photo_hash[:3]}/{photo_hash[3:6]}/{photo_hash}.jpg")


def _settled(folder, retry):
    """(id, address) -> the last row in the log, of those that needn't be tried again."""
    known, log = {}, folder / LOG
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):  # the half line of a kill: that row is tried again
            row = json.loads(line)
            known[row["id"], row["url"]] = row
    return {key: row for key, row in known.items()
            if (_size(folder / row["file"]) == row["bytes"] if row["state"] == "ok" else not retry)}


@contextlib.contextmanager
def _log_writer(folder):
    """A function that adds a row to the log and hands it to the system at once: a kill loses nothing."""
    log = folder / LOG
    half = log.exists() and not log.read_bytes().endswith(b"\n")
    with open(log, "a", encoding="utf-8") as file:
        file.write("\n" if half else "")

        def write(row):
            file.write(json.dumps(row) + "\n")
            file.flush()

        yield write
