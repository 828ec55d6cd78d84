"""What a chapter's outputs were made from: which changes of the library and of files make a notebook stale."""

import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import cells
import kept
import made_from
import nbformat
import pairs
import pytest

ROOT = Path(__file__).resolve().parents[1]
CODE = "from alignedreid_lib import tools\nfrom alignedreid_lib.tools import shapes\ntools.area(shapes.Square(2))"
FILES = {
    "alignedreid_lib/__init__.py": '"""A library."""\n',
    "alignedreid_lib/tools/__init__.py": "from alignedreid_lib.tools.areas import area, unused\n",
    "alignedreid_lib/tools/areas.py": '''"""Areas."""
import math

from alignedreid_lib.tools import constants

def area(shape):
    """The area."""
    from alignedreid_lib.tools.late import rounded
    return rounded(shape.side() ** 2 * constants.UNIT)  # squared

def unused():
    return math.pi
''',
    "alignedreid_lib/tools/constants.py": "UNIT = 1\nOTHER = 2\n",
    "alignedreid_lib/tools/late.py": "def rounded(x):\n    return round(x)\n",
    "alignedreid_lib/tools/shapes.py": '''class Shape:
    def side(self):
        return self.a

class Square(Shape):
    """A square."""
    def __init__(self, a):
        self.a = a

class Circle(Shape):
    pass
''',
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "notebooks" / "results").mkdir(parents=True)
    return tmp_path


def changed(project: Path, file: str, old: str, new: str, code: str = CODE) -> str:
    """What has changed, in words, after an edit of a file."""
    before = made_from.record(project, [code])
    text = (project / file).read_text()
    assert old in text
    (project / file).write_text(text.replace(old, new))
    return made_from.difference(before, made_from.record(project, [code]))


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("areas", "# squared", "# to the power of two"),
        ("areas", "The area.", "The area of a shape."),
        ("areas", "shape.side() ** 2", "(shape.side()\n        ** 2)"),
        ("areas", "math.pi", "3"),
        ("areas", "def unused", "def more():\n    pass\n\ndef unused"),
        ("constants", "OTHER = 2", "OTHER = 3"),
        ("shapes", "    pass", "    radius = 1"),
        ("__init__", ", unused", ""),
    ],
)
def test_what_a_chapter_does_not_reach_changes_nothing(project: Path, file: str, old: str, new: str) -> None:
    assert changed(project, f"alignedreid_lib/tools/{file}.py", old, new) == ""


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("areas", "** 2", "** 3"),
        ("areas", "import math", "import math\nmath.tau = 6"),  # at import
        ("constants", "UNIT = 1", "UNIT = 2"),
        ("late", "round(x)", "round(x, 1)"),
        ("shapes", "self.a = a", "self.a = a + 1"),
        ("shapes", "return self.a", "return 2 * self.a"),
    ],
)
def test_what_a_chapter_reaches_is_named(project: Path, file: str, old: str, new: str) -> None:
    path = f"alignedreid_lib/tools/{file}.py"
    assert changed(project, path, old, new) == path


def test_files_that_a_chapter_names_count(project: Path) -> None:
    results = project / "notebooks" / "results"
    for name in ("a", "b"):
        (results / f"{name}.json").write_text("{}")
    (results.parent / "00_x.py").touch()
    one, all_of_them = 'read("notebooks/results/a.json")', 'read(f"notebooks/results/{name}.json")'
    folder = 'here / "results"'
    assert list(made_from.record(project, [one])) == ["notebooks/results/a.json"]
    for code in (all_of_them, folder):
        assert len(made_from.record(project, [code])) == 2
        assert changed(project, "notebooks/results/b.json", "", "1", code) == "notebooks/results/b.json"
    before = made_from.record(project, [folder])
    for name in "cdef":
        (results / f"{name}.json").touch()
    shown = "notebooks/results/c.json, notebooks/results/d.json, notebooks/results/e.json and 1 more"
    assert made_from.difference(before, made_from.record(project, [folder])) == shown
    assert made_from.record(project, ["%matplotlib inline\nx = 1", "a ="]) == {}


def test_a_chapter_is_executed_again_when_the_library_has_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, times = project / "notebooks", []

    def execute(client: Any) -> None:
        times.append(1)
        for count, cell in enumerate(client.nb.cells, 1):
            cell.update(execution_count=count, outputs=[])

    monkeypatch.setattr(pairs.NotebookClient, "execute", execute)
    (folder / "10_x.py").write_text("".join(f"# %%\n{text}\nassert {k}\n\n" for k, text in enumerate([CODE] * 3, 1)))
    assert pairs.update(folder, "10_x") and not pairs.update(folder, "10_x") and pairs.problems(folder, "10_x") == []
    changed(project, "alignedreid_lib/tools/late.py", "round(x)", "round(x)  # to a whole number")
    assert not pairs.update(folder, "10_x") and pairs.problems(folder, "10_x") == []
    changed(project, "alignedreid_lib/tools/late.py", "round(x)", "int(x)")
    assert pairs.problems(folder, "10_x") == [
        "10_x.ipynb: stale: changed since it was executed: alignedreid_lib/tools/late.py; "
        "`make pairs ONLY=10_x` executes it again"
    ]
    assert pairs.update(folder, "10_x") and pairs.problems(folder, "10_x") == [] and len(times) == 2
    (project / "alignedreid_lib" / "tools" / "late.py").write_text("def rounded(")
    with pytest.raises(ValueError, match=r"alignedreid_lib cannot be read \('\(' was never closed"):
        pairs.update(folder, "10_x")


def test_what_stays_between_commands_is_made_again_when_its_code_has_changed(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        kept, "KEPT", {"data/drawn": CODE, "runs/book/model": "from alignedreid_lib.tools import unused"}
    )
    drawn, model = (project / place for place in kept.KEPT)
    for folder in (drawn, model):
        folder.mkdir(parents=True)
    for _ in range(2):
        kept.refresh(project)
    assert drawn.exists() and model.exists() and capsys.readouterr().out == ""
    changed(project, "alignedreid_lib/tools/late.py", "round(x)", "int(x)")
    kept.refresh(project)
    said = "data/drawn was made before alignedreid_lib/tools/late.py changed; it is made again\n"
    assert model.exists() and not drawn.exists() and capsys.readouterr().out == said
    (project.parent / "elsewhere").mkdir()
    drawn.symlink_to(project.parent / "elsewhere")
    changed(project, "alignedreid_lib/tools/late.py", "int(x)", "round(x)")
    with pytest.raises(
        ValueError, match=r"^data/drawn: made before alignedreid_lib/tools/late.py changed, and is a link"
    ):
        kept.refresh(project)
    assert (project.parent / "elsewhere").exists()


SNIPPET = """
import numpy as np
import torch

from alignedreid_lib import alignment, evaluation, losses, training
from alignedreid_lib.evaluation import ranking
from alignedreid_lib.model import AlignedReID

features = torch.randn(8, 4, requires_grad=True)
labels = torch.arange(8) // 2
losses.global_triplet(features, labels, 0.3, True).loss.backward()
losses.local_triplet(torch.randn(8, 3, 4), labels, 0.3, False)
ids, cameras = np.arange(8) // 2, np.arange(8) % 2
scores = ranking.score_ranking(np.random.rand(8, 8), ids, ids, cameras, cameras, "cuhk03")
config = training.TrainConfig(dataset="x", total_epochs=9, decay_at_epoch=5)
training.learning_rate(config, 7)
AlignedReID("shufflenet_v2_x0_5", None).eval()(torch.zeros(1, 3, 64, 32))
"""


def test_every_function_of_the_library_that_code_calls_is_reached() -> None:
    """The names are followed in the source; here they are compared with what is called."""
    called: set[tuple[str, str]] = set()
    library = str(ROOT / "alignedreid_lib")

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(library):
            called.add((frame.f_globals["__name__"], frame.f_code.co_qualname.partition(".")[0]))

    exec("import alignedreid_lib.evaluation, alignedreid_lib.training", {})  # what importing runs is not of interest
    threading.setprofile(note)
    sys.setprofile(note)
    try:
        exec(compile(SNIPPET, "snippet", "exec"), {})
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    known = made_from.library(ROOT)
    nodes, _ = known.reach(made_from.read_code([SNIPPET]))
    assert len(called) > 20
    assert {(module, name) for module, name in called if name in known.modules[module].bound} <= nodes


def test_a_change_of_the_losses_leaves_the_chapter_of_the_datasets_alone() -> None:
    folder = ROOT / "notebooks"
    code = {name: [c.source for c in nbformat.read(folder / f"{name}.ipynb", 4).cells if c.cell_type == "code"]
            for name in cells.chapters(folder)}  # fmt: skip
    using = [name for name, sources in code.items() if "alignedreid_lib/losses.py" in made_from.record(ROOT, sources)]
    assert {"05_losses", "06_training"} <= set(using) and not {"01_datasets", "02_batches", "04_alignment"} & set(using)
