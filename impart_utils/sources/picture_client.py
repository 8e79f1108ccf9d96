"""One picture by address: whose turn it is, which addresses are refused, what its bytes are."""

import contextlib
import hashlib
import io
import ipaddress
import re
import socket
import threading
import time
from collections import defaultdict
from datetime import UTC, datetime
from urllib.parse import urljoin, urlsplit

import requests
from PIL import Image, UnidentifiedImageError

from impart_utils.sources.download import LONGEST_WAIT, _blocks, _Failure, _get

SLOWEST = 20_000      # bytes per second of a picture that is worth its place, after `timeout` seconds
HOPS = 5              # redirects followed
UPGRADED = ("flickr.com", "staticflickr.com", "amazonaws.com")  # old lists say http:, these speak https
PLACEHOLDER = re.compile(r"unavailable|placeholder|not[-_]?found|no[-_]image|removed", re.IGNORECASE)
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
FIELDS = ("id", "url", "state", "detail", "final_url", "bytes", "sha256", "pixels", "width", "height", "file",
          "license", "page", "fetched_at")


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
