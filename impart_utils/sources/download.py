"""Downloads: one file with resume and hash check; many pictures by address, politely, with a manifest."""

import contextlib
import csv
import hashlib
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

from impart_utils.config import MissingInput
from impart_utils.sources.features import atomic_path, progress_bar

USER_AGENT = "impart-kit/0.1 (reproduction kit for research; honours Retry-After)"
ATTEMPTS = 4          # per address, where another one may help
BACKOFF = 1.0         # seconds before the second attempt, then doubled
LONGEST_WAIT = 120.0  # seconds: where a server asks for more, we stop
HOPS = 5              # redirects followed
UPGRADED = ("flickr.com", "staticflickr.com", "amazonaws.com")  # old lists say http://, these hosts speak HTTPS
PLACEHOLDER = re.compile(r"unavailable|placeholder|not[-_]?found|no[-_]image|removed", re.IGNORECASE)
FORMATS = ("JPEG", "MPO", "PNG", "GIF", "WEBP", "BMP", "TIFF")
FIELDS = ("id", "url", "state", "detail", "final_url", "bytes", "sha256", "pixels", "width", "height", "file",
          "license", "page", "fetched_at")


class _Failure(Exception):
    """How an attempt ended: the row's state, why, whether another may help, seconds the server asked for."""

    def __init__(self, state, detail, *, again=False, asked=None):
        super().__init__(detail)
        self.state, self.detail, self.again, self.asked = state, detail, again, asked

    def pause(self, attempt):
        """Seconds until the next attempt, or None where there should be none."""
        if not self.again or attempt + 1 >= ATTEMPTS or (self.asked or 0) > LONGEST_WAIT:
            return None
        return self.asked if self.asked is not None else BACKOFF * 2**attempt * random.uniform(0.5, 1.5)


def _get(session, url, *, headers, timeout, redirects):
    """An answer whose status is fine or a redirect; `_Failure` otherwise."""
    try:
        response = session.get(url, headers=headers, timeout=timeout, stream=True, allow_redirects=redirects)
    except requests.RequestException as error:
        hopeless = isinstance(error, (ValueError, requests.TooManyRedirects))  # ValueError: not a sound address
        raise _Failure("dead", f"{type(error).__name__}: {error}"[:200], again=not hopeless) from error
    if response.status_code in (200, 206, 416) or response.is_redirect:
        return response
    response.close()
    code, asked = response.status_code, _seconds(response.headers.get("Retry-After", ""))
    state = "throttled" if code in (429, 503) else "dead"
    raise _Failure(state, f"HTTP {code}", again=code >= 500 or code in (408, 429), asked=asked)


def _seconds(retry_after):
    if retry_after.isdigit():
        return float(retry_after)
    with contextlib.suppress(ValueError):  # neither seconds nor a date: as if it weren't there
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    return None


def _blocks(response):
    """The body as it comes in; read1 returns what has arrived, so nothing received is lost by a break."""
    try:
        while block := response.raw.read1(1 << 16, decode_content=True):
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
    path, part, attempt = Path(path), Path(f"{path}.part"), 0
    if path.is_file() and _hash_fault(path, sha256, md5) is None:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with requests.Session() as session:
        while True:
            size = _size(part)
            try:
                _fetch_rest(session, url, path, part, timeout, progress)
                break
            except _Failure as failure:
                attempt = 0 if _size(part) > size else attempt  # as long as bytes come it is no failure
                if (pause := failure.pause(attempt)) is None:
                    raise MissingInput(
                        f"{url} could not be fetched to {path}: {failure.detail} ({_size(part):,} bytes are kept in "
                        f"{part.name}). Check address and network and run the same again; it goes on from there. "
                        "Or get the file another way and put it there.") from failure
                time.sleep(pause)
                attempt += 1
    if fault := _hash_fault(part, sha256, md5):
        part.unlink()
        raise MissingInput(f"{url} gave {fault}, so {path} was not written. Run the same again; if that doesn't help, "
                           "the file was changed at its source.")
    os.replace(part, path)
    Path(f"{part}.version").unlink(missing_ok=True)
    return path


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
    """Append to `part` what it lacks, if the server still has the same version of the file; else all of it."""
    from tqdm import tqdm

    start, version = _size(part), Path(f"{part}.version")
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    with _get(session, url, headers=headers, timeout=timeout, redirects=True) as response:
        place = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+)", response.headers.get("Content-Range", ""))
        start = start if response.status_code != 200 else 0
        total = response.headers.get("Content-Length") if response.status_code == 200 else place and place[2]
        found = f"{response.headers.get('ETag', '')} {total}"
        if response.status_code == 416 and str(start) == total:
            return  # killed between the last byte and the rename
        if start and (not version.exists() or version.read_text() != found or place[1] != str(start)):
            part.unlink()
            raise _Failure("truncated", "the file at the source is another one than before", again=True, asked=0)
        version.write_text(found)
        is_page = response.headers.get("Content-Type", "").startswith("text/html")
        with (open(part, "ab" if start else "wb") as file,
              tqdm(total=total and int(total), initial=start, desc=path.name, unit="B", unit_scale=True,
                   file=sys.stdout, leave=False, mininterval=1.0, disable=not progress) as bar):
            for block in _blocks(response):
                is_page = is_page or (not start and block.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")))
                if is_page and path.suffix not in (".html", ".htm"):
                    part.unlink()
                    raise _Failure("dead", "the server sent a web page instead of the file")
                file.write(block)
                bar.update(len(block))
    if total and _size(part) != int(total):
        raise _Failure("truncated", f"it broke off after {_size(part):,} of {int(total):,} bytes", again=True)


class _Client:
    """What the threads of one run share: when each host may be asked again, sessions, the stop signal."""

    def __init__(self, *, per_host, timeout, allow_private, max_bytes, user_agent):
        self.gap = 1 / per_host if per_host else 0.0
        self.timeout, self.allow_private, self.max_bytes = timeout, allow_private, max_bytes
        self.headers = {"User-Agent": user_agent, "Accept-Encoding": "identity"}
        self.free_at, self.lock = defaultdict(float), threading.Lock()
        self.stop, self.local, self.public = threading.Event(), threading.local(), {}

    def take_turn(self, url, hold=None):
        """Wait until the host may be asked; with `hold` seconds, make all wait that long."""
        name = urlsplit(url).hostname or ""
        host = name if re.fullmatch(r"[\d.]+|.*:.*", name) else ".".join(name.split(".")[-2:])  # farm1., farm2. are one
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
            self.stop.wait(delay)

    def fault(self, url):
        """Why an address must not be asked, or None."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            return f"refused: not an http(s) address: {url[:100]}"
        if self.allow_private:
            return None
        if parts.hostname not in self.public:
            try:
                found = {info[4][0] for info in socket.getaddrinfo(parts.hostname, None)}
            except OSError as error:
                return f"host name not found: {error}"
            addresses = [ipaddress.ip_address(text.split("%")[0]) for text in found]
            self.public[parts.hostname] = all(each.is_global and not each.is_multicast for each in addresses)
        return None if self.public[parts.hostname] else f"refused: {parts.hostname} is in a private range"

    def body(self, url):
        """(bytes, final address) of one picture; each hop of a redirect is checked and takes its turn."""
        if not hasattr(self.local, "session"):
            self.local.session = requests.Session()
        for _ in range(HOPS + 1):
            if fault := self.fault(url):
                raise _Failure("dead", fault)
            self.take_turn(url)
            try:
                answer = _get(self.local.session, url, headers=self.headers, timeout=self.timeout, redirects=False)
            except _Failure as failure:
                if failure.state == "throttled" and failure.asked:
                    self.take_turn(url, hold=min(failure.asked, LONGEST_WAIT))
                raise
            with answer:
                if not answer.is_redirect:
                    return self._read(answer), url
                url = urljoin(url, answer.headers["location"])
        raise _Failure("dead", f"more than {HOPS} redirects")

    def _read(self, answer):
        length, blocks, size = answer.headers.get("Content-Length", ""), [], 0
        deadline = time.monotonic() + 3 * self.timeout  # a body that drips would hold its thread for ever
        if length.isdigit() and int(length) > self.max_bytes:
            raise _Failure("too large", f"{int(length):,} bytes")
        for block in _blocks(answer):
            size += len(block)
            blocks.append(block)
            if size > self.max_bytes:
                raise _Failure("too large", f"more than {self.max_bytes:,} bytes")
            if time.monotonic() > deadline or self.stop.is_set():
                raise _Failure("truncated", f"slower than {3 * self.timeout:g} s: {size:,} bytes by then")
        if length.isdigit() and size < int(length) and "Content-Encoding" not in answer.headers:
            raise _Failure("truncated", f"{size:,} of {length} bytes", again=True)
        return b"".join(blocks)
