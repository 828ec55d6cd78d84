"""What stays between commands, the drawn data and the book's model: made again when its code has changed."""

import json
import shutil
from pathlib import Path

import made_from

RECORD = "runs/.made_from.json"
KEPT = {  # a folder, and the code that makes it
    "data/synthetic": "from alignedreid_lib import book\nbook.archive\nbook.dataset_folder",
    "runs/book/model": "from alignedreid_lib import book\nbook.model",
}


def refresh(root: Path) -> None:
    """Removes what was made by code that has changed since; the next chapter that needs it makes it again.

    A folder without a record, which JupyterLab may have made, is taken as made by the code that is there now.

    Raises:
        ValueError: such a folder is a link to a place outside of the project, which may have other users.
    """
    if not (root / made_from.LIBRARY).is_dir():
        return
    try:
        known = json.loads((root / RECORD).read_text("utf-8"))
    except (OSError, ValueError):
        known = {}
    found = {place: made_from.record(root, [code]) for place, code in KEPT.items()}
    for place, now in found.items():
        folder = root / place
        changed = made_from.difference(known[place], now) if place in known and folder.exists() else ""
        if not changed:
            continue
        if not folder.resolve().is_relative_to(root.resolve()):
            raise ValueError(f"{place}: made before {changed} changed, and is a link; remove what it leads to")
        shutil.rmtree(folder)
        print(f"{place} was made before {changed} changed; it is made again", flush=True)
    if found != known:
        (root / RECORD).parent.mkdir(exist_ok=True)
        (root / RECORD).write_text(json.dumps(found, indent=1) + "\n", "utf-8")
