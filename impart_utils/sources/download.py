"""Downloads: one file with resume and hash check; many pictures by address, politely, with a manifest."""

import contextlib
import csv
import hashlib
import heapq
import io
import ipaddress
import json
import os
import random
import re
import socket
import sys
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from PIL import Image, UnidentifiedImageError

from impart_utils.config import MissingInput
from impart_utils.sources.features import atomic_path

USER_AGENT = "impart-kit/0.1 (reproduction kit for research; honours Retry-After)"
ATTEMPTS = 4          # per address, where another one may help
BACKOFF = 0.5         # seconds before the second attempt, then doubled
SLOWEST = 20_000      # bytes per second of a picture that is worth its place, after `timeout` seconds
LONGEST_WAIT = 120.0  # seconds: where a server asks for more, we stop
HOPS = 5              # redirects followed
UPGRADED = ("flickr.com", "staticflickr.com", "amazonaws.com")  # old lists say http:, these speak https
PLACEHOLDER = re.compile(r"unavailable|placeholder|not[-_]?found|no[-_]image|removed", re.IGNORECASE)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
LOG = "manifest.jsonl"
FIELDS = ("id", "url", "state", "detail", "final_url", "bytes", "sha256", "pixels", "width", "height", "file",
          "license", "page", "fetched_at")


class _Failure(Exception):
    """How an attempt ended: the row's state, why, whether another may help, what the server asked for."""

    def __init__(self, state, detail, *, again=False, asked=None):
        super().__init__(detail)
        self.state, self.detail, self.again, self.asked = state, detail, again, asked

    def pause(self, attempt):
        """Seconds until the next attempt, or None where there should be none."""
        if not self.again or attempt + 1 >= ATTEMPTS or (self.asked or 0) > LONGEST_WAIT:
            return None
        return self.asked if self.asked is not None else BACKOFF * 2**attempt * random.uniform(0.5, 1.5)


def _get(session, url, *, headers, timeout):
    """An answer whose status is fine or a redirect; `_Failure` otherwise."""
    try:
        answer = session.get(url, headers=headers, timeout=timeout, stream=True)
    except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as error:
        hopeless = isinstance(error, (ValueError, requests.TooManyRedirects))  # ValueError: a bad address
        raise _Failure("dead", f"{type(error).__name__}: {error}"[:200], again=not hopeless) from error
    if answer.status_code in ((200, 206, 416) if "Range" in headers else (200,)) or answer.is_redirect:
        return answer
    answer.close()
    code, asked = answer.status_code, _seconds(answer.headers.get("Retry-After", ""))
    state = "throttled" if code in (429, 503) else "dead"
    raise _Failure(state, f"HTTP {code}", again=code >= 500 or code in (408, 429), asked=asked)


def _seconds(retry_after):
    if retry_after.isdigit():
        return float(retry_after)
    with contextlib.suppress(ValueError):  # neither seconds nor a date: as if it weren't there
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return None


def _blocks(answer):
    """The body as it comes in; read1 returns what has arrived, so nothing received is lost by a break."""
    try:
        while block := answer.raw.read1(1 << 16, decode_content=True):
            yield block
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Failure("truncated", f"{type(error).__name__}: {error}"[:200], again=True) from error


def fetch_file(url, path, *, sha256=None, md5=None, timeout=30.0, progress=True):
    """Download one file; where an earlier call broke off, go on there.

    Parameters
    ----------
    url : str, http or https
    path : str or Path. The file gets this name when it is whole; until then it is PATH.part. One that is
        there already, with the right hash where one is given, is left alone.
    sha256, md5 : str, hex, optional
    timeout : float, seconds without any sign of the server

    Raises
    ------
    MissingInput : the server refuses, breaks off too often or sends a web page, or the file has another
        hash; the message names address, path and remedy.
    """
    path, part, attempt, most = Path(path), Path(f"{path}.part"), 0, 0
    if path.is_file() and _hash_fault(path, sha256, md5) is None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session:
        while True:
            most = max(most, _size(part))
            try:
                _fetch_rest(session, url, path, part, timeout, progress)
                break
            except _Failure as failure:
                attempt = 0 if _size(part) > most else attempt  # as long as more comes it is no failure
                if (pause := failure.pause(attempt)) is None:
                    raise MissingInput(
                        f"{url} could not be fetched to {path}: {failure.detail} ({_size(part):,} bytes are "
                        f"kept in {part.name}). Check address and network and run the same again: it goes on "
                        "from there. Or get the file another way and put it there.") from failure
                time.sleep(pause)
                attempt += 1
    if fault := _hash_fault(part, sha256, md5):
        part.unlink()
        raise MissingInput(f"{url} gave {fault}, so {path} was not written. Run the same again; if that "
                           "doesn't help, the file was changed at its source.")
    os.replace(part, path)
    Path(f"{part}.version").unlink(missing_ok=True)
    return path


def _bar(progress, **options):
    """A bar on standard output that is gone in the end, so that an executed notebook keeps no trace."""
    from tqdm import tqdm

    return tqdm(file=sys.stdout, leave=False, mininterval=1.0, disable=not progress, **options)


def _size(path):
    return path.stat().st_size if path.exists() else 0


def _hash_fault(path, sha256, md5):
    for name, expected in (("sha256", sha256), ("md5", md5)):
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, name).hexdigest() if expected else None
        if expected and found != expected.lower():
            return f"a file with {name} {found} instead of {expected}"
    return None


def _fetch_rest(session, url, path, part, timeout, progress):
    """Append to `part` what it lacks, if the server has the same version of the file; else all of it."""
    start, version = _size(part), Path(f"{part}.version")
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    with _get(session, url, headers=headers, timeout=timeout) as answer:
        place = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", answer.headers.get("Content-Range", ""))
        start = start if answer.status_code != 200 else 0
        total = answer.headers.get("Content-Length") if answer.status_code == 200 else place and place[2]
        found = f"{answer.headers.get('ETag') or answer.headers.get('Last-Modified', '')} {total}"
        if answer.status_code == 416 and str(start) == total:
            return  # killed between the last byte and the rename
        same = version.exists() and version.read_text() == found and place and place[1] == str(start)
        if start and not same:
            part.unlink()
            raise _Failure("truncated", "the file at the source has changed", again=True, asked=0)
        version.write_text(found)
        _append(answer, path, part, start, total and int(total), progress)
    if total and _size(part) != int(total):
        raise _Failure("truncated", f"it broke off after {_size(part):,} of {total} bytes", again=True)


def _append(answer, path, part, start, total, progress):
    is_page = answer.headers.get("Content-Type", "").startswith("text/html")
    with (open(part, "ab" if start else "wb") as file,
          _bar(progress, total=total, initial=start, desc=path.name, unit="B", unit_scale=True) as bar):
        for block in _blocks(answer):
            is_page |= not start and block.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
            if is_page and path.suffix not in (".html", ".htm"):
                part.unlink()
                raise _Failure("dead", "the server sent a web page instead of the file")
            file.write(block)
            bar.update(len(block))
            start += len(block)


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
          _bar(progress, total=wanted or len(rows), desc="pictures", unit="") as bar):
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


class _Client:
    """What the threads of one run share: when each host may be asked again, sessions, the stop signal."""

    def __init__(self, *, per_host, timeout, allow_private, max_bytes, user_agent):
        self.gap = 1 / per_host if per_host else 0.0
        self.timeout, self.allow_private, self.max_bytes = timeout, allow_private, max_bytes
        self.headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self.free_at, self.lock, self.public = defaultdict(float), threading.Lock(), {}
        self.stop, self.local = threading.Event(), threading.local()

    def take_turn(self, url, *, hold=None):
        """Wait until the url's host may be asked; with `hold`, make all wait that many seconds."""
        name = urlsplit(url).hostname
        # farm1.staticflickr.com and farm2 are one host to be polite to
        host = name if re.fullmatch(r"[\d.]+|.*:.*", name) else ".".join(name.split(".")[-2:])
        while not self.stop.is_set():
            with self.lock:
                now = time.monotonic()
                if hold is not None:
                    self.free_at[host] = max(self.free_at[host], now + hold)
                    return
                if now >= self.free_at[host]:
                    self.free_at[host] = now + self.gap
                    return
                delay = self.free_at[host] - now
            if delay > LONGEST_WAIT + self.gap:
                raise _Failure("throttled", f"{host} asks to be left alone for {delay:.0f} s more")
            self.stop.wait(delay)
        raise _Failure("dead", "stopped")

    def fault(self, url):
        """Why an address must not be asked, or None."""
        with contextlib.suppress(ValueError):  # urlsplit's, on a malformed address
            parts = urlsplit(url)
            # A backslash is read in two ways, so that another host may be asked than was checked
            if parts.scheme in ("http", "https") and parts.hostname and not re.search(r"[\\\s]", url):
                return None if self.allow_private else self._private(parts.hostname)
        return f"refused: no http(s) address: {url[:100]}"

    def _private(self, hostname):
        if hostname not in self.public:
            try:
                found = {info[4][0].split("%")[0] for info in socket.getaddrinfo(hostname, None)}
            except (OSError, UnicodeError) as error:
                # Behind a proxy names may be the proxy's business
                return None if requests.utils.getproxies() else f"host name not found: {error}"
            found = [ipaddress.ip_address(text) for text in found]
            self.public[hostname] = all(address.is_global and not address.is_multicast for address in found)
        return None if self.public[hostname] else f"refused: {hostname} is in a private range"

    def body(self, url):
        """(bytes, final address) of one picture; each hop of a redirect is checked and takes its turn."""
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
            # Redirects are ours to follow; requests would read a redirect's body to the end, however long
            self.local.session.get_redirect_target = lambda answer: None
        for _ in range(HOPS + 1):
            if fault := self.fault(url):
                raise _Failure("dead", fault)
            self.take_turn(url)
            try:
                answer = _get(self.local.session, url, headers=self.headers, timeout=self.timeout)
            except _Failure as failure:
                if failure.asked and self.gap:  # with the limit lifted the row alone waits
                    self.take_turn(url, hold=failure.asked)
                raise
            with answer:
                if not answer.is_redirect:
                    return self._read(answer), url
                try:
                    url = urljoin(url, answer.headers["location"])
                except ValueError as error:
                    raise _Failure("dead", f"redirected to a malformed address: {error}") from error
        raise _Failure("dead", f"more than {HOPS} redirects")

    def _read(self, answer):
        length, blocks, size = answer.headers.get("Content-Length", ""), [], 0
        start = time.monotonic()
        if length.isdigit() and int(length) > self.max_bytes:
            raise _Failure("too large", f"{int(length):,} bytes")
        for block in _blocks(answer):
            size += len(block)
            blocks.append(block)
            if size > self.max_bytes:
                raise _Failure("too large", f"more than {self.max_bytes:,} bytes")
            seconds = time.monotonic() - start
            if seconds > self.timeout + size / SLOWEST or self.stop.is_set():  # a body that drips never ends
                raise _Failure("truncated", f"too slow: {size:,} bytes in {seconds:.0f} s")
        if length.isdigit() and size < int(length) and "Content-Encoding" not in answer.headers:
            raise _Failure("truncated", f"{size:,} of {length} bytes", again=True)
        return b"".join(blocks)


def _picture(body, address, final):
    """Ending, bytes, hashes and size of a picture; `_Failure` where the body is no whole picture."""
    if urlsplit(final).path != urlsplit(address).path and PLACEHOLDER.search(final):
        raise _Failure("placeholder", f"redirected to {final}")
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        if image.width * image.height > (Image.MAX_IMAGE_PIXELS or float("inf")):
            raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _Failure("too large", str(error)) from error
    except UnidentifiedImageError as error:
        raise _Failure("not a picture", f"{len(body):,} bytes that begin {body[:16]!r}") from error
    except Exception as error:  # a picture that ends early makes its reader raise whatever it likes
        raise _Failure("truncated", f"{type(error).__name__}: {error}"[:200]) from error
    pixels = (image.convert("RGBA") if image.mode == "P" else image).tobytes()
    return {"ending": {"JPEG": "jpg", "MPO": "jpg"}.get(image.format, image.format.lower()),
            "bytes": len(body), "width": image.width, "height": image.height,
            "sha256": hashlib.sha256(body).hexdigest(),
            "pixels": hashlib.sha256(f"{image.mode}{image.size}".encode() + pixels).hexdigest()[:32]}


def _try_row(client, source, which, attempt):
    """One attempt at a row's `which`-th address.

    Returns (manifest row, bytes or None, None), or (None, None, seconds to wait, which, attempt) where
    another attempt is due.
    """
    url, fallback = source["downloadurl"], source.get("fallbackurl")
    row = dict.fromkeys(FIELDS, "") | {
        "id": source["photoid"], "url": url, "bytes": 0, "license": source.get("licenseurl", ""),
        "page": source.get("pageurl", ""), "fetched_at": datetime.now(UTC).isoformat(timespec="seconds")}
    if re.match(rf"http://([\w-]+\.)*({'|'.join(map(re.escape, UPGRADED))})/", url):
        url = url.replace("http", "https", 1)
    addresses = [url] + ([fallback] if fallback else [])
    try:
        body, final = client.body(addresses[which])
        found = _picture(body, addresses[which], final)
    except _Failure as failure:
        if (pause := failure.pause(attempt)) is not None:
            return None, None, pause, which, attempt + 1
        if which + 1 < len(addresses):
            return None, None, 0.0, which + 1, 0
        return row | {"state": failure.state, "detail": failure.detail}, None, None
    found["file"] = f"{row['id']}.{found.pop('ending')}"
    return row | found | {"state": "ok", "final_url": final}, body, None
