"""A headless Chromium for tests, driven by its own debugging protocol: no driver to install.

`websocket-client` comes with JupyterLab. A test that needs a browser calls `find_chromium()` first and skips
where there is none.
"""

import base64
import json
import os
import shutil
import subprocess
import time
import urllib.request
from contextlib import contextmanager

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_chromium():
    """The path of a Chromium or Chrome: $CHROMIUM, or the first on the PATH; None where there is none."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def chromium(profile, *, width=1400, height=1000):
    """Start Chromium with an empty `profile` folder; yields a `Page`, and ends the browser afterwards."""
    command = [find_chromium(), "--headless=new", "--no-first-run", "--no-proxy-server", "--disable-gpu",
               "--disable-dev-shm-usage", "--disable-background-networking", "--remote-debugging-port=0",
               "--remote-allow-origins=*", f"--user-data-dir={profile}", f"--window-size={width},{height}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--no-sandbox")  # Chromium refuses to be run by root otherwise
    process = subprocess.Popen([*command, "about:blank"], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL)
    try:
        written = profile / "DevToolsActivePort"
        until(lambda: written.exists() and written.read_text().strip(), 60, "Chromium's debugging port")
        port = written.read_text().split()[0]
        pages = json.loads(fetch(f"http://127.0.0.1:{port}/json/list"))
        page = Page(next(page for page in pages if page["type"] == "page")["webSocketDebuggerUrl"])
        yield page
        page.socket.close()
    finally:
        process.terminate()
        process.wait(30)


class Page:
    """One tab.

    Attributes
    ----------
    requests : list of addresses asked for;  errors : list of exceptions and console errors, as str
    """

    def __init__(self, address):
        import websocket

        self.socket = websocket.create_connection(address, timeout=60, http_no_proxy=["127.0.0.1"])
        self.requests, self.errors, self._count = [], [], 0
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a headless tab has no focus otherwise

    def call(self, method, **parameters):
        """Call the protocol and return its answer; events that come before it are taken down."""
        self._count += 1
        self.socket.send(json.dumps({"id": self._count, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self._count:
                assert "error" not in message, f"{method}: {message['error']['message']}"
                return message["result"]
            self._note(message.get("method"), message.get("params", {}))

    def _note(self, event, told):
        if event == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(told["exceptionDetails"])[:500])
        elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
            self.errors.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        elif event == "Runtime.consoleAPICalled" and told["type"] == "error":
            self.errors.append(" ".join(str(part.get("value", part.get("description")))
                                        for part in told["args"])[:500])

    def open(self, address):
        """Go to an address and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, script):
        """The value of a JavaScript expression; a promise is awaited."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, f"{script}: {found['exceptionDetails']}"
        return found["result"].get("value")

    def wait_for(self, script, seconds=60):
        """Wait until an expression is true, and return its value."""
        guarded = f"(() => {{ try {{ return {script}; }} catch {{ return null; }} }})()"
        return until(lambda: self.evaluate(guarded), seconds, script)

    def drag(self, start, end):
        """Press the mouse at `start` (x, y in the window), move to `end` and release it there."""
        for kind, (x, y) in (("mouseMoved", start), ("mousePressed", start), ("mouseMoved", end),
                             ("mouseReleased", end)):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def look(self, *, width=1400, height=1000, dark=False):
        """Show pages in a window of this size, to a reader whose system is set to light or dark."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=False)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def screenshot(self, path, *, whole=False):
        """Write what the window shows, or the whole page, as PNG."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))


def until(condition, seconds, what):
    """Call `condition` until it returns something true, and return that."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.2)
    raise TimeoutError(f"Waited {seconds} s in vain for: {what}")


def fetch(address):
    """The body of a local address, past any proxy."""
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(address, timeout=30) as answer:
        return answer.read()
