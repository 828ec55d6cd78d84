"""One training step of one model or several. Derived in notebooks/06_training and 07_mutual_learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from alignedreid_lib import devices, losses
from alignedreid_lib.batches import images
from alignedreid_lib.training import centres, distributed
from alignedreid_lib.training.config import TrainConfig
from alignedreid_lib.training.learner import Learner


def train_step(learner: Learner, batch: Tensor, labels: Tensor, config: TrainConfig) -> dict[str, Tensor]:
    """Forward, loss, backward, step of one model: `mutual_step` without partners."""
    return mutual_step([learner], batch, labels, config)[0]


def mutual_step(
    learners: Sequence[Learner], batch: Tensor | Sequence[Tensor], labels: Tensor, config: TrainConfig
) -> list[dict[str, Tensor]]:
    """One step of several models on one batch: each also learns from the others' outputs.

    All forwards come first; then each model's own losses and its mutual terms, whose partners are detached, so that
    every backward is the model's own.

    Args:
        batch: uint8 [N, 3, h, w], or one for each model, of the same images; with several processes, this one's share.
        labels: int64 [N]; with several processes, of the whole batch.

    Returns:
        the figures of each model, [] each, still on its device: reading them would make the host wait.

    Source: AlignedReID section 3.3; Zhang et al. 2018. Derived in notebooks/07_mutual_learning.
    """
    for learner in learners:  # before the forwards: memory of a CUDA graph must be free when the next step begins
        learner.optimizer.zero_grad(set_to_none=True)
    batches = [batch] * len(learners) if isinstance(batch, Tensor) else batch
    given = zip(learners, batches, strict=True)
    outputs = [forward_terms(learner, own, labels, config) for learner, own in given]
    figures = []
    for k, (learner, output) in enumerate(zip(learners, outputs, strict=True)):
        terms = mutual_terms(output, outputs[:k] + outputs[k + 1 :], config)
        loss = output.loss
        for weight, term in terms.values():
            loss = loss + weight * term
        found = backward_step(learner, output, loss, config)
        figures.append({name: term.detach() for name, (_, term) in terms.items()} | found)
    return figures


class StepOutput(NamedTuple):
    """The results of a model's forward pass, for its own loss and for its partners."""

    loss: Tensor  # the model's own, []
    terms: dict[str, losses.TripletTerm]  # global and local triplets
    others: dict[str, Tensor]  # the losses without triplets, by the name of their figure: [], detached
    logits: Tensor | None  # [N, ids]


def forward_terms(learner: Learner, batch: Tensor, labels: Tensor, config: TrainConfig) -> StepOutput:
    """Forward and the model's own losses; args are those of `mutual_step`."""
    batch, labels = devices.send(batch, learner.device), devices.send(labels, learner.device)
    with devices.autocast(learner.device, learner.precision):
        own = learner.forward(images.normalize(batch))
    # From here everything is of the whole batch, also with several processes.
    logits = None if own.logits is None else distributed.gather(own.logits)
    features = distributed.gather(own.global_features)
    how = (config.margin, config.normalize)
    # No checks: the sampler guarantees triplets, and a NaN is found at the end of the epoch, when figures are read.
    terms = {"global": losses.global_triplet(features, labels, *how, check=False)}
    loss = config.global_weight * terms["global"].loss
    if config.local_weight > 0:
        mined = terms["global"].mined if config.local_mining == "global" else None
        terms["local"] = losses.local_triplet(distributed.gather(own.local_features), labels, *how, mined, check=False)
        loss = loss + config.local_weight * terms["local"].loss
    others: dict[str, Tensor] = {}
    if logits is not None:
        others["id_loss"] = losses.identification(logits, labels, config.label_smoothing)
        loss = loss + config.id_weight * others["id_loss"]
    if (held := learner.network.centres) is not None:
        others["centre_loss"] = centres.centre_loss(features, labels, held)
        loss = loss + config.centre_weight * others["centre_loss"]
        centres.move_centres(held, features, labels, config.centre_rate)  # each process moves its own, all alike
    return StepOutput(loss, terms, {name: term.detach() for name, term in others.items()}, logits)


def mutual_terms(
    output: StepOutput, partners: Sequence[StepOutput], config: TrainConfig
) -> dict[str, tuple[float, Tensor]]:
    """(weight, term []) of each mutual term that is switched on, by name; none without partners."""
    terms: dict[str, tuple[float, Tensor]] = {}
    if partners and config.probability_weight > 0:
        assert output.logits is not None  # the config requires the classifier
        logits = [partner.logits for partner in partners if partner.logits is not None]
        terms["probability_loss"] = config.probability_weight, losses.mutual_probability(output.logits, logits)
    for name, weight in (("global", config.global_mutual_weight), ("local", config.local_mutual_weight)):
        if partners and weight > 0:
            matrices = [partner.terms[name].distances for partner in partners]
            terms[f"{name}_mutual_loss"] = weight, losses.mutual_distance(output.terms[name].distances, matrices)
    return terms


def backward_step(learner: Learner, output: StepOutput, loss: Tensor, config: TrainConfig) -> dict[str, Tensor]:
    """Backward, step, and the figures of the step, the terms before their sum; the gradients are empty before."""
    # The scaler skips a step whose gradients overflow, and lowers the scale. With a fused optimiser the device decides,
    # and the host does not wait. The loss is float32: it is finite, unless the forward pass itself overflows.
    learner.scaler.scale(loss).backward()
    if learner.exchange is not None:
        learner.exchange.finish()
    else:
        distributed.sum_gradients(learner.network.parameters())
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    figures = dict(output.others)
    for name, term in output.terms.items():
        figures |= {f"{name}_{figure}": value for figure, value in term_figures(term, config.margin).items()}
    return {**figures, "loss": loss.detach()}


def term_figures(term: losses.TripletTerm, margin: float | None) -> dict[str, Tensor]:
    """The logged figures of a triplet loss, [] each, as in the original reproduction."""
    with torch.no_grad():
        return {
            "loss": term.loss.detach(),
            "precision": losses.satisfied(term.mined),
            "satisfaction": losses.satisfied(term.mined, margin or 0.0),
            "positive_distance": term.mined.positive_distance.mean(),
            "negative_distance": term.mined.negative_distance.mean(),
        }
