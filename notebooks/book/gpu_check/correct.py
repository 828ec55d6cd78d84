"""Does the device compute what the CPU computes? One step, twins, a resumed run, several processes, no memory left."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alignedreid_lib import devices, runs, training
from alignedreid_lib.batches import images
from alignedreid_lib.batches.sampling import IdentitySampler
from alignedreid_lib.datasets import open_dataset
from alignedreid_lib.errors import InputError
from alignedreid_lib.training import TrainConfig
from alignedreid_lib.training.epoch import train_epoch
from gpu_check import card
from gpu_check.made import Setup
from gpu_check.rows import ABSENT, FAILED, Row, attempt, compared

Step = tuple[dict[str, float], Tensor]  # the losses by name, and the gradient

# The largest relative difference of a term of the loss, and of the gradient, from those of the CPU in float32. Measured
# on a CPU over four seeds with a ResNet-18: float32 in a different order of sums 1e-5 and 2e-3, float16 4e-3 and 0.17,
# bfloat16 0.06 and 0.37 (a ResNet-50 0.35 and 1.4). A gradient of 0 differs by 1.
BOUNDS = {
    "float32": (2e-4, 0.02, "float32 differs by the order of sums"),
    "tf32": (0.03, 0.6, "tf32 keeps 11 bits of each factor"),
    "float16": (0.03, 0.6, "float16 keeps 11 bits"),
    "bfloat16": (0.3, 0.9, "bfloat16 keeps 8 bits"),
}
TERMS = {  # two models, and every term of the loss
    "num_models": 2,
    "global_weight": 1.0,
    "local_weight": 1.0,
    "id_weight": 1.0,
    "probability_weight": 1.0,
    "global_mutual_weight": 1.0,
    "local_mutual_weight": 1.0,
    "mirror_prob": 0.0,  # several processes mirror their images differently
    "weight_decay": 0.0,  # so that Adam's first moment is a tenth of the gradient
}

GLOBAL_ALONE = {"mirror_prob": 0.0, "weight_decay": 0.0}


def one_step(config: TrainConfig, folder: Path) -> Step:
    """A training of one step: its losses by name, and the gradient [parameters], from Adam's first moment."""
    result = training.train(config, folder)
    losses = {name: value for name, value in result.metrics[0].items() if name.endswith("loss")}
    state = runs.load_checkpoint(result.run_dir)
    assert state is not None
    moments = [entry["exp_avg"] for optimizer in state["optimizers"] for entry in optimizer["state"].values()]
    return losses, torch.cat([moment.double().cpu().flatten() for moment in moments]) * 10


def differences(found: Step, wanted: Step) -> dict[str, float]:
    """The relative difference of each term of the loss, the largest over the models, and of the gradient.

    A term below a hundredth of the whole loss is compared with that: the mutual terms are squares of differences
    between two models, and rounding decides those that are nearly 0.
    """
    largest: dict[str, float] = {}
    for name, value in wanted[0].items():
        model = next((start for start in ("model1_", "model2_") if name.startswith(start)), "")
        term = name.removeprefix(model)
        differs = abs(found[0][name] - value) / max(abs(value), abs(wanted[0][f"{model}loss"]) / 100)
        largest[term] = max(largest.get(term, 0.0), differs)
    largest["gradient"] = float((found[1] - wanted[1]).norm() / wanted[1].norm())
    return largest


def step_against_cpu(setup: Setup) -> list[Row]:
    """One step of two models with every term of the loss, in each precision, against float32 on the CPU."""
    wanted = one_step(setup.config("few", device="cpu", precision="float32", **TERMS), setup.folder / "step_cpu")
    names = [name for name in devices.PRECISIONS if name != "auto"]
    parts = [attempt("step", f"{name} against the CPU", partial(_in_precision, setup, name, wanted)) for name in names]
    return [row for rows in parts for row in rows]


def compiled_against_eager(setup: Setup) -> list[Row]:
    """The same step in float32, compiled and as CUDA graphs, against the eager one.

    Of two models with all terms, and of one without a local loss, whose local branch has to stay as it is.
    """
    if setup.device.type == "cpu":
        return [Row("compiled", "against eager", reason="compiling for a CPU takes minutes", verdict=ABSENT)]
    rows = []
    for what, terms in (("two models", TERMS), ("no local loss", GLOBAL_ALONE)):
        how = {"precision": "float32", **terms}
        wanted = one_step(setup.config("few", **how), setup.folder / f"eager_{len(terms)}")
        for form in (True, "reduce-overhead"):
            name = f"{what}, compiled {form}"
            rows += attempt("compiled", name, partial(_compiled, setup, name, form, how, wanted))
    return rows


def _compiled(setup: Setup, name: str, form: bool | str, how: dict[str, Any], wanted: Step) -> list[Row]:
    try:
        found = one_step(setup.config("few", compiled=form, **how), setup.folder / name.replace(" ", "_"))
    except InputError as error:
        return [Row("compiled", name, reason=str(error), verdict=ABSENT)]
    if found[1].shape != wanted[1].shape:
        return [Row("compiled", name, reason="other parameters are trained than without", verdict=FAILED)]
    return _compare("compiled", name, found, wanted, BOUNDS["float32"])


def _in_precision(setup: Setup, precision: str, wanted: Step) -> list[Row]:
    try:
        devices.choose_precision(precision, setup.device, setup.sizes.few_image[1])
    except InputError as error:
        return [Row("step", f"{precision} against the CPU", reason=str(error), verdict=ABSENT)]
    found = one_step(setup.config("few", precision=precision, **TERMS), setup.folder / f"step_{precision}")
    return _compare("step", precision, found, wanted, BOUNDS[precision])


def _compare(check: str, what: str, found: Step, wanted: Step, bounds: tuple[float, float, str]) -> list[Row]:
    """A row for each term of the loss, and one for the gradient."""
    of_loss, of_gradient, reason = bounds
    rows = []
    for term, value in differences(found, wanted).items():
        name = f"{what}: {term.replace('_', ' ')}"
        if term == "gradient" and not found[1].any():
            skipped = "the loss scale was too large for the first step, which was skipped"
            rows.append(Row(check, name, reason=skipped, verdict=ABSENT))
        else:
            bound = of_gradient if term == "gradient" else of_loss
            rows.append(compared(check, name, value, "relative", bound, reason))
    return rows


def twins(setup: Setup) -> list[Row]:
    """How far two equal models with the global loss alone have parted: 0 on a CPU; on a GPU chance decides."""
    config = setup.config("few", backbone=setup.sizes.backbone, num_models=2, global_mutual_weight=1.0)
    learners = [training.make_learner(config, k, setup.sizes.few_people) for k in range(2)]
    learners[1].network.load_state_dict(learners[0].network.state_dict())
    dataset = open_dataset(config.folder, "trainval")
    batch = torch.stack(images.ImageStore(dataset.paths, (config.height, config.width)).fetch(range(len(dataset))))
    labels = torch.from_numpy(training.train_labels(dataset))
    for learner in learners:
        learner.network.train()
    for _ in range(setup.sizes.twin_steps):
        figures = training.mutual_step(learners, batch, labels, config)
    one, other = (
        torch.cat([parameter.detach().double().cpu().flatten() for parameter in learner.network.parameters()])
        for learner in learners
    )
    steps = f"after {setup.sizes.twin_steps} steps"
    mutual = float(figures[0]["global_mutual_loss"])
    return [
        Row("twins", f"relative difference of their parameters {steps}", float((one - other).norm() / one.norm())),
        Row("twins", f"their mutual loss {steps}", mutual),
    ]


class Cut(KeyboardInterrupt):
    """Stands for Ctrl-C."""


def resume(setup: Setup) -> list[Row]:
    """A run of two epochs, and one that is interrupted after the first: equal to the last bit with `deterministic`."""
    config = setup.config("few", total_epochs=2, local_weight=1.0, id_weight=1.0, deterministic=True)

    def interrupt(row: dict[str, Any]) -> None:
        if row["epoch"] == 1:
            raise Cut

    whole = training.train(config, setup.folder / "whole")
    with suppress(Cut):
        training.train(config, setup.folder / "cut", report=interrupt)
    resumed = training.train(config, setup.folder / "cut")
    weights = [torch.load(result.weights, weights_only=True) for result in (whole, resumed)]
    different = sum(not torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    return [
        compared("resume", "tensors that differ from those of a whole run", different, "tensors", 0, "deterministic"),
        compared("resume", "epochs that were lost", 1 - resumed.resumed_at, "epochs", 0, "the checkpoint at Ctrl-C"),
    ]


def processes(setup: Setup) -> list[Row]:
    """One step by two processes against one: two GPUs with NCCL if there are two, else the CPU with gloo."""
    several = card.gpus() >= 2
    device, backend = ("cuda", "NCCL, two GPUs") if several else ("cpu", "gloo, on the CPU")
    config = setup.config("few", device=device, precision="float32", **TERMS)
    shared = dataclasses.replace(config, processes=2, sync_batch_norm=True)
    one, two = (one_step(each, setup.folder / f"processes_{each.processes}") for each in (config, shared))
    return _compare("processes", backend, two, one, BOUNDS["float32"])


@contextmanager
def no_memory(learner: training.Learner) -> Iterator[None]:
    """Inside, the forward pass ends as it does without memory: on a GPU because there is none, on a CPU made up."""

    def fail(batch: Tensor) -> Any:
        raise torch.OutOfMemoryError("made up")

    forward: Callable[..., Any] = learner.forward
    if learner.device.type != "cuda":
        learner.forward = fail
    try:
        with card.too_small(learner.device):
            yield
    finally:
        learner.forward = forward


def out_of_memory(setup: Setup) -> list[Row]:
    """A step without enough memory ends in one line that names what to lower, and the next step works again."""
    config = setup.config("many")
    dataset = open_dataset(config.folder, "trainval")
    labels = training.train_labels(dataset)
    learner = training.make_learner(config, 0, setup.sizes.people)
    store = images.ImageStore(dataset.paths, (config.height, config.width))
    few = labels < config.ids_per_batch  # one batch
    sampler = IdentitySampler(labels[few], config.ids_per_batch, config.images_per_id, config.seed)
    words = "no error"
    with no_memory(learner):
        try:
            train_epoch(1, [learner], store, labels, sampler, config)
        except InputError as error:
            words = str(error)
    named = "out of memory" in words and "lower ids_per_batch" in words and "\n" not in words
    train_epoch(1, [learner], store, labels, sampler, config)
    return [compared("out of memory", "errors other than the one line", int(not named), "errors", 0, words)]
