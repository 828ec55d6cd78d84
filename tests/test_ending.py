"""A command ends with the process that started it, however that one ended."""

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import ending
import pytest

BOOK = Path(__file__).resolve().parents[1] / "notebooks" / "book"
WORK = """import os, pathlib, time
import ending
here = pathlib.Path(os.environ["HERE"])
try:
    with ending.stopped_softly():
        (here / "begun.tmp").write_text(str(os.getpid()))
        (here / "begun.tmp").rename(here / "begun")
        time.sleep(60)
except KeyboardInterrupt:
    (here / "saved").touch()
"""
RECIPE = "train:\n\t@STARTED_BY_MAKE=$$PPID exec {python} -c '{code}' {more}\nother:\n\t@sleep 60\n"


def wait_for(path: Path, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"no {path.name}"
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["make", "make -j2", "nohup make", "torchrun"])
def test_a_training_ends_when_what_started_it_is_killed(tmp_path: Path, kind: str) -> None:
    code = f"exec(open({str(tmp_path / 'work.py')!r}).read())".replace("'", '"')
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "Makefile").write_text(RECIPE.format(python=sys.executable, code=code, more=""))
    environment = os.environ | {"HERE": str(tmp_path), "PYTHONPATH": str(BOOK)}
    if kind == "torchrun":  # its agent starts the processes
        environment["TORCHELASTIC_RUN_ID"] = "one"
        agent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
        command = [sys.executable, "-c", agent]
    else:
        command = [*kind.split(), "train", *(["other"] if "-j" in kind else [])]
        if shutil.which("make") is None:
            pytest.skip("there is no make here")
    started = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(tmp_path / "begun")
        started.kill()
        started.wait()
        wait_for(tmp_path / "saved")
    finally:
        with suppress(ProcessLookupError):  # all have ended
            os.killpg(started.pid, signal.SIGKILL)


def test_a_make_that_is_gone_already_ends_the_command_at_once(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = os.environ | {"HERE": str(tmp_path), "PYTHONPATH": str(BOOK), ending.MAKE: str(gone.pid)}
    subprocess.run([sys.executable, "-c", WORK], env=environment, check=True, timeout=50)
    assert (tmp_path / "saved").exists()


def test_what_a_command_starts_has_no_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    for given, found in (("12", 12), ("", None), ("x", None)):
        monkeypatch.setenv(ending.MAKE, given)
        assert ending.starter() == found and ending.MAKE not in os.environ


def test_every_command_of_the_makefile_says_which_make_started_it() -> None:
    text = (BOOK.parents[1] / "Makefile").read_text()
    assert f"TOOL := {ending.MAKE}=$$PPID exec " in text and "exec $(TOOL)" not in text
    assert text.count("tool.py") == 1
