"""Downloads of one file: byte-range resume, hash check, retries. `pictures` builds on the same parts."""

import contextlib
import hashlib
import os
import random
import re
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import requests
import urllib3

from impart_utils.config import MissingInput
from impart_utils.sources.features import progress_bar

USER_AGENT = "impart-kit/0.1 (reproduction kit for research; honours Retry-After)"
ATTEMPTS = 4          # per address, where another one may help
BACKOFF = 0.5         # seconds before the second attempt, then doubled
LONGEST_WAIT = 120.0  # seconds: where a server asks for more, we stop


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
          progress_bar(description=path.name, total=total, progress=progress, initial=start, unit="B",
                       unit_scale=True) as bar):
        for block in _blocks(answer):
            is_page |= not start and block.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html"))
            if is_page and path.suffix not in (".html", ".htm"):
                part.unlink()
                raise _Failure("dead", "the server sent a web page instead of the file")
            file.write(block)
            bar.update(len(block))
            start += len(block)
