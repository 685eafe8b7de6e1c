"""JupyterLab as `make lab` starts it, and Debian's Chromium, which Playwright moves."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import NamedTuple

import pytest
from helpers import make_run, write_goals
from playwright.sync_api import expect, sync_playwright

from octkit.common.language import VARIABLE as LANGUAGE
from octkit.common.settings import PROJECT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 600_000  # ms that a condition may take on a busy machine


class Lab(NamedTuple):
    folder: Path  # with notebooks/, reports/, data/, and zh/ with the same in Chinese
    runtime: Path  # where the kernels are found
    url: str


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("needs the browser Chromium: apt-get install chromium")
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])  # root can have none
        context = browser.new_context(bypass_csp=True)  # axe is a script of ours in the report's page
        context.set_default_timeout(PATIENCE)
        yield context
        browser.close()


@pytest.fixture(scope="module")
def lab(browser, tmp_path_factory):  # noqa: ARG001 - without a browser it need not start
    """`make lab` in a folder of its own, with a run that is planned and not trained.

    Of Jupyter's settings those change that make another port free and the process one without a screen.
    """
    root = tmp_path_factory.mktemp("lab")
    news = root / "config/lab/user-settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text('{"fetchNews": "false"}')
    (root / "config/jupyter_server_config.json").write_text(json.dumps({
        "ServerApp": {"allow_root": True, "open_browser": False, "port": 0},
        "LabApp": {"expose_app_in_browser": True}}))
    make_run(root / "lab/reports/demo", write_goals(root / "goals"))
    here = os.environ | {"JUPYTER_CONFIG_DIR": str(root / "config"), "PYTHONPATH": str(PROJECT), LANGUAGE: "en"}
    octkit = Path(sys.executable).parent
    subprocess.run([octkit / "octkit", "lessons", "lab/zh"], cwd=root, env=here | {LANGUAGE: "zh"}, check=True)
    shutil.copytree(root / "lab/reports", root / "lab/zh/reports", dirs_exist_ok=True)
    server = subprocess.Popen(["make", "-f", PROJECT / "Makefile", "-o", ".venv/ready", "lab", f"BIN={octkit}"],
                              cwd=root, env=here, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              start_new_session=True)
    said = []
    for line in server.stdout:
        said.append(line)
        if found := re.search(r"http://\S+token=\S+", line):
            break
    else:
        pytest.fail("JupyterLab did not start:\n" + "".join(said))
    reader = threading.Thread(target=lambda: said.extend(server.stdout), daemon=True)  # a full pipe would stop it
    reader.start()
    runtime = Path(re.findall(r"/tmp/octkit\.\w+/", "".join(said))[-1])  # not of the command that make shows
    yield Lab(root / "lab", runtime, found[0])
    for page in browser.pages:
        page.close()
    os.killpg(server.pid, signal.SIGTERM)  # with the kernels; Jupyter may then wait for a thread that never ends
    reader.join(20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    shutil.rmtree(runtime, ignore_errors=True)
