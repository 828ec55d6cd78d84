"""A pair in JupyterLab, as a student meets it: it opens, its first cells run, saving keeps the two files one."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import executor
import nbformat
import pytest
from browsing import PATIENCE, launched
from test_moving_figures import State, check_the_points, data_of, press

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
CHAPTER = "04_alignment"  # needs neither data nor a trained model

# The first cells are run by the commands behind the buttons; what is returned is each one's kind, count and errors.
RUN = """async count => {
  const app = window.jupyterapp, panel = app.shell.currentWidget;
  await panel.context.ready;
  await panel.sessionContext.ready;
  panel.content.activeCellIndex = 0;
  for (let k = 0; k < count; k++) await app.commands.execute('notebook:run-cell-and-select-next');
  const cells = panel.context.model.toJSON().cells.slice(0, count);
  await app.commands.execute('docmanager:save');
  return cells.map(cell => ({
    kind: cell.cell_type,
    count: cell.execution_count,
    pictures: (cell.outputs || []).filter(output => (output.data || {})['image/svg+xml']).length,
    errors: (cell.outputs || []).filter(output => output.output_type === 'error').map(output => output.evalue),
  }));
}"""

LAST = """() => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  return notebook.scrollToItem(notebook.widgets.length - 1, 'start');
}"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """JupyterLab on a free port, over a copy of one pair."""
    for suffix in (".py", ".ipynb"):
        shutil.copy(NOTEBOOKS / f"{CHAPTER}{suffix}", tmp_path)
    shutil.copy(NOTEBOOKS / "matplotlibrc", tmp_path)
    options = ["--no-browser", "--allow-root", "--port=0", "--IdentityProvider.token=", "--expose-app-in-browser"]
    homes = {name: str(tmp_path / "home" / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "HOME")}
    command = [sys.executable, "-m", "jupyterlab", *options, f"--ServerApp.root_dir={tmp_path}"]
    log = tmp_path / "home" / "log"
    log.parent.mkdir()
    with open(log, "w") as file:  # not a pipe, which fills up and then stops the server
        server = subprocess.Popen(command, stderr=file, env=os.environ | homes)
    try:
        end = time.monotonic() + PATIENCE / 1000
        while not (found := re.search(r"http://(?:localhost|127\.0\.0\.1):(\d+)/lab", log.read_text())):
            assert server.poll() is None and time.monotonic() < end, f"JupyterLab did not start: {log.read_text()}"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{found[1]}"
    finally:
        server.terminate()
        server.wait()


def test_a_pair_opens_and_its_first_cells_run(lab: str, tmp_path: Path) -> None:
    source = (tmp_path / f"{CHAPTER}.py").read_text()
    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab}/lab/tree/{CHAPTER}.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        cells = page.evaluate(RUN, 9)
        page.evaluate(LAST)  # the exercises; a solution is folded, and no box's or role's syntax shows
        solution = page.locator(".jp-Notebook details", has_text="Solution").first
        solution.wait_for()
        folded = solution.get_attribute("open") is None
        answer = solution.locator(":scope > :not(summary)").first
        assert not answer.is_visible(), "a solution is folded until its reader opens it"
        solution.locator("summary").click()
        answer.wait_for()
        shown = page.locator(".jp-Notebook").first.inner_text()
    assert folded and ":::" not in shown and "{eq}" not in shown
    assert sum(cell["kind"] == "code" for cell in cells) >= 2
    assert [cell["errors"] for cell in cells if cell.get("errors")] == []
    assert any(cell["pictures"] for cell in cells), "a figure is drawn"
    counts = [cell["count"] for cell in cells if cell["kind"] == "code"]
    assert counts == list(range(1, len(counts) + 1)), "each code cell ran, in order"
    assert (tmp_path / f"{CHAPTER}.py").read_text() == source, "saving the notebook leaves its source as it was"
    assert json.loads((tmp_path / f"{CHAPTER}.ipynb").read_text())["cells"]


MAKE = """import torch
from alignedreid_lib import figures

fig = figures.Figure(figsize=(3, 1))
points = torch.tensor([[1.1, 1.4], [1.2, 0.4], [0.0, 0.9], [2.9, 0.9], [2.2, 2.0], [4.0, 1.1]])
people = torch.tensor([0, 0, 0, 1, 1, 1])
figures.pull_the_points(points, people, static=fig, words="six points")"""


def test_a_figure_that_moves(lab: str, tmp_path: Path) -> None:
    """The output moves once its cell has run; stored in a notebook that is not trusted, it is the static figure."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(MAKE)], metadata=executor.NOTEBOOK_METADATA)
    nbformat.write(notebook, tmp_path / "run.ipynb")
    scope: dict[str, Any] = {}
    exec(MAKE.rpartition("\n")[0], scope)
    made = eval(MAKE.rpartition("\n")[2], scope)
    html = nbformat.v4.new_output("execute_result", {"text/html": made._repr_html_()}, execution_count=1)
    notebook.cells[0].outputs = [html]
    nbformat.write(notebook, tmp_path / "stored.ipynb")
    with launched() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.goto(f"{lab}/lab/tree/run.ipynb")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.evaluate(RUN, 1)
        pull = page.locator(".jp-OutputArea .touch")
        pull.locator(".grip").first.wait_for()
        state = State(data_of(pull))
        check_the_points(pull, state)
        for key in ("ArrowDown", "ArrowRight", "ArrowUp"):
            press(pull, state, 1, key, 2)  # not JupyterLab's: it would select the next cell
        check_the_points(pull, state)
        colour = "figure => getComputedStyle(figure).getPropertyValue('--same')"
        light = pull.evaluate(colour)
        page.evaluate("() => { document.body.dataset.jpThemeLight = 'false'; }")
        assert pull.evaluate(colour) != light
        assert not pull.get_by_alt_text("six points").is_visible()
        page.goto(f"{lab}/lab/tree/stored.ipynb?reset")  # without the notebook that was open before
        page.get_by_alt_text("six points").wait_for()
        assert page.locator(".touch").count() == 1 and page.locator(".live").count() == 0
