"""How cells are executed: the settings that pairs, papermill, nbval and `make portable` share."""

KERNEL = "python3"
START_SECONDS = 180  # a kernel on a busy machine is slow to answer first
CELL_SECONDS = 600  # of one cell of a chapter; a full run has no limit
SAVE_SECONDS = 60  # for a kernel that is stopped: a training saves its last finished epoch
QUIET = ["--log-level=CRITICAL"]  # else each kernel warns that it listens on this machine's TCP
NBVAL = (
    "--nbval-lax --nbval-current-env"
    f" --nbval-cell-timeout={CELL_SECONDS} --nbval-kernel-startup-timeout={START_SECONDS}"
)
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": KERNEL},
    "language_info": {"name": "python", "pygments_lexer": "ipython3"},
}


def at_start(*lines: str) -> str:
    """The argument for a kernel that runs these lines before the first cell."""
    return "--IPKernelApp.exec_lines=" + "; ".join(lines)


def log_to(handler: str) -> str:
    """The argument for a kernel that gives the library's log to a handler, an expression of Python."""
    name = "logging.getLogger('alignedreid_lib')"
    return at_start("import logging, sys", f"{name}.addHandler({handler})", f"{name}.setLevel(logging.INFO)")


# Late in a training ever more numbers are smaller than 1e-38, and processors compute with those many times slower: a
# full run counts them as 0. It comes before anything else, since threads that exist already do not follow it.
FLUSH = at_start("import torch", "torch.set_flush_denormal(True)")
# A full run shows the library's log: one line per epoch.
LOG = log_to("logging.StreamHandler(sys.stdout)")
