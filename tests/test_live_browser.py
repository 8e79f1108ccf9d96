"""Notebook 02 in a real JupyterLab, driven by a headless Chromium: the controls redraw the figure."""

import json
import os
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from browser import chromium, fetch, find_chromium, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="no $CHROMIUM, and no Chromium or Chrome on the PATH")]

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "02_retrieval_and_eq1.ipynb"
SMALL = {"references": 200, "limit": 150}
SETTINGS = {  # every cell in the page, so that a script finds it; and no news from the web
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}
CELLS = "window.jupyterapp.shell.currentWidget.model.sharedModel.toJSON().cells"
KERNEL = "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel"
CELL = "[...document.querySelectorAll('.jp-CodeCell')].find(cell => cell.innerText.includes('explore(draw'))"
PICTURE = f"{CELL}.querySelector('.jp-OutputArea-output img')"
# 64 numbers stand for the picture's bytes: short enough for a message
PRINT = (f"crypto.subtle.digest('SHA-256', new TextEncoder().encode({PICTURE}.src))"
         ".then(found => [...new Uint8Array(found)].join(' '))")


@contextmanager
def jupyterlab(folder):
    """JupyterLab on `folder`, without a password, seen from this machine only; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = folder / "settings"
    for name, values in SETTINGS.items():
        path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    own = {"IMPART_OUTPUT": str(folder / "out"), "JUPYTERLAB_SETTINGS_DIR": str(settings),
           "JUPYTER_CONFIG_DIR": str(folder / "config"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
           "IPYTHONDIR": str(folder / "ipython")}
    environment = {name: value for name, value in os.environ.items() if name != "IMPART_RUN_ID"} | own
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}",
               "--port-retries=0", "--allow-root", "--IdentityProvider.token=",
               f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    with (folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}"
        until(lambda: answers(f"{address}/api/status"), 60, "JupyterLab")
        yield address
    finally:
        for number in (signal.SIGINT, signal.SIGINT):  # the second confirms; kernels end with the server
            server.send_signal(number)
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def answers(address):
    try:
        return fetch(address)
    except OSError:
        return None


def small_copy(folder):
    """Notebook 02 with the smallest sizes in its parameters."""
    notebook = json.loads(NOTEBOOK.read_text())
    (cell,) = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    lines = "".join(cell["source"]).splitlines()
    cell["source"] = "\n".join([*lines, *(f"{name} = {value}" for name, value in SMALL.items())])
    (folder / NOTEBOOK.name).write_text(json.dumps(notebook))


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The notebook in JupyterLab with every cell run."""
    pytest.importorskip("websocket", reason="JupyterLab's own dependency, websocket-client, is missing")
    folder = tmp_path_factory.mktemp("lab")
    small_copy(folder)
    with jupyterlab(folder) as address, chromium(folder / "chromium") as page:
        page.open(f"{address}/lab/tree/{NOTEBOOK.name}?reset")
        page.wait_for("document.querySelectorAll('.jp-CodeCell').length > 15")
        page.wait_for(f"{KERNEL}.status === 'idle'", 120)
        page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for(f"{PICTURE}.src.startsWith('data:image/png')", 300)
        page.wait_for(f"{CELLS}.every(cell => cell.cell_type !== 'code' || cell.execution_count)", 60)
        yield page


def control(page, name):
    """Scroll a slider into sight and say where its handle and track are, its range and what it reads."""
    return page.evaluate(f"""(() => {{
        const labels = [...{CELL}.querySelectorAll('.widget-label')];
        const slider = labels.find(label => label.textContent === '{name}').parentElement;
        slider.scrollIntoView({{block: 'center'}});
        const handle = slider.querySelector('.noUi-handle'), box = handle.getBoundingClientRect();
        const track = slider.querySelector('.noUi-base').getBoundingClientRect();
        return {{x: box.x + box.width / 2, y: box.y + box.height / 2, left: track.x, width: track.width,
                 low: Number(handle.getAttribute('aria-valuemin')),
                 high: Number(handle.getAttribute('aria-valuemax')),
                 value: Number(slider.querySelector('.widget-readout').textContent)}}; }})()""")


def slide(page, name, value):
    """Drag a slider's handle to a value and wait for the figure that follows; returns where it was before."""
    at, before = control(page, name), page.evaluate(PRINT)
    target = at["left"] + at["width"] * (value - at["low"]) / (at["high"] - at["low"])
    page.drag((at["x"], at["y"]), (target, at["y"]))
    until(lambda: page.evaluate(PRINT) != before, 60, f"another figure after {name} = {value}")
    return at["value"]


def choose(page, place):
    """Choose an entry of the menu and wait for the figure that follows."""
    before = page.evaluate(PRINT)
    page.evaluate(f"(() => {{ const menu = {CELL}.querySelector('select'); menu.selectedIndex = {place};"
                  "menu.dispatchEvent(new Event('change', {bubbles: true})); })()")
    until(lambda: page.evaluate(PRINT) != before, 60, f"another figure after choosing {place}")


@pytest.mark.parametrize(("name", "value"), [("top k", 3), ("image weight", 0.0), ("text weight", 1.0)])
def test_a_slider_redraws_and_the_way_back_gives_the_same_figure(lab, name, value):
    first = lab.evaluate(PRINT)
    start = slide(lab, name, value)
    assert control(lab, name)["value"] == value != start
    slide(lab, name, start)
    assert lab.evaluate(PRINT) == first


def test_the_menu_changes_the_query(lab):
    first = lab.evaluate(PRINT)
    choose(lab, 1)
    choose(lab, 0)
    assert lab.evaluate(PRINT) == first


def test_no_cell_failed(lab):
    assert lab.evaluate(f"{CELLS}.flatMap(cell => cell.outputs || []).map(output => output.output_type)"
                        ".filter(kind => kind === 'error').length") == 0
    assert lab.evaluate(f"{CELL}.innerText.includes('Traceback')") is False
    assert lab.evaluate(f"{CELL}.querySelectorAll('.jp-OutputArea-output img').length") == 1
