"""The forward pass of a network over any number of images, batch by batch. Explained in notebooks/08_evaluation."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

from alignedreid_lib import devices
from alignedreid_lib.batches import images
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.model.modes import evaluating

Item = TypeVar("Item")


def run_network(
    model: AlignedReID,
    batch: Callable[[Item], Tensor],
    items: Iterable[Item],
    device: torch.device,
    precision: str,
    work: str,
    total: int | None,
    progress: bool,
    flip: bool = False,
) -> list[Tensor]:
    """The global and the local features of all images, float32 [N, C] and [N, H, c] on the CPU.

    Args:
        model: used in evaluation mode; its device and the modes of its modules are restored on return or failure.
        batch: makes of each item the images that the network sees at a time, uint8 [n, 3, h, w].
        items: one per batch, at least one.
        precision: one that `devices.choose_precision` gave.
        work: what is computed, for the message of a device without enough memory.
        total: how many images there are, if it is known.
        progress: show a progress bar.
        flip: average the features of every image and its mirror image.
    """
    home = next(model.parameters()).device
    # From pinned memory a batch is copied while the host goes on; only CUDA has such memory.
    pinned = devices.is_accelerator(device) and torch.cuda.is_available()

    def made(item: Item) -> Tensor:
        stacked = batch(item)
        return stacked.pin_memory() if pinned and stacked.device.type == "cpu" else stacked

    # On a CPU, decoding while the network runs makes their threads wait for each other; taking turns is faster.
    batches = images.prefetch(made, items) if devices.is_accelerator(device) else map(made, items)
    parts = []
    try:
        model.to(device).to(memory_format=torch.channels_last)  # the layout that batches have
        with (
            evaluating(model),
            torch.inference_mode(),
            devices.arithmetic(precision),
            devices.autocast(device, precision),
            devices.out_of_memory(work),
            tqdm(total=total, unit="images", disable=not progress, desc="features") as bar,
        ):
            for pictures in batches:
                batch_images = images.normalize(devices.send(pictures, device))
                views = [model(view) for view in ((batch_images, batch_images.flip(3)) if flip else (batch_images,))]
                both = ([view.global_features for view in views], [view.local_features for view in views])
                # Kept on the device: a copy of each batch would make the GPU wait for the host.
                parts.append([sum(features.float() for features in same) / len(same) for same in both])
                bar.update(len(pictures))
    finally:
        model.to(home)
    # Joined outside of inference mode, so that the features are ordinary tensors.
    return [torch.from_numpy(devices.fetch(torch.cat(of_batches))) for of_batches in zip(*parts, strict=True)]
