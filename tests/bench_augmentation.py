"""What random views of a batch cost: images/s of one thread, of two, and of an accelerator if there is one.

    python tests/bench_augmentation.py

128 images, mirrored with probability 0.5, without and with a crop of each. The floor of a mirror is a copy of them,
that of a crop is torch's bilinear interpolation of the whole batch in one call, both on one thread. Measured in turns,
the best of the rounds.
"""

import torch
import torch.nn.functional as F
from timing import record, timed

from alignedreid_lib import devices
from alignedreid_lib.batches import images
from alignedreid_lib.batches.augmentation import PackedBatch, augment, draw_views

SIZE, COUNT, ROUNDS = (256, 128), 128, 9


def main() -> None:
    """Mirror alone and crops, each in every form."""
    torch.set_num_threads(1)
    device = devices.choose_device()
    store = torch.randint(0, 256, (COUNT, 3, *SIZE), dtype=torch.uint8)
    pools = {threads: images.helpers(threads, "bench") for threads in (1, 2)}
    pixels = store.permute(0, 2, 3, 1).reshape(-1, 3).to(device)
    starts, widths = [k * SIZE[0] * SIZE[1] for k in range(COUNT)], [SIZE[1]] * COUNT
    forms = (("mirror", 0.0, 0, 0.0), ("mirror and crops", 1.0, 0, 0.0), ("mirror, pad and erase", 0.0, 10, 0.5))
    for name, crop_prob, pad, erase_prob in forms:
        how = (0.5, crop_prob, 0.8, pad, erase_prob)

        def host(threads: int, how=how) -> None:
            augment(list(store), SIZE, torch.Generator().manual_seed(0), *how, pool=pools[threads])

        def packed(how=how) -> None:
            views = draw_views([SIZE] * COUNT, SIZE, torch.Generator().manual_seed(0), *how)
            PackedBatch.of(pixels, starts, widths, views, SIZE).to(device)

        def floor(crop_prob=crop_prob) -> None:
            if crop_prob:
                F.interpolate(store[:, :, 13:-13, 7:-7].float(), SIZE, mode="bilinear").round_().to(torch.uint8)
            else:
                store.clone()

        calls = {"floor": floor, "one thread": lambda host=host: host(1), "two threads": lambda host=host: host(2)}
        if devices.is_accelerator(device):
            calls[f"packed, {device.type}"] = packed
        rounds = [{form: timed(call, device) for form, call in calls.items()} for _ in range(ROUNDS)]
        best = {form: min(taken[form] for taken in rounds) for form in calls}
        speeds = ", ".join(f"{form} {COUNT / seconds:.0f}" for form, seconds in best.items())
        print(f"{name}, {SIZE[0]} x {SIZE[1]}, images/s: {speeds}")
        for form in list(best)[1:]:
            what = f"{COUNT} images {SIZE[0]} x {SIZE[1]}, {name}, {form}"
            floor_is = "interpolation in one call" if crop_prob else "a copy of the images"
            record("augmentation", what, best[form], best["floor"], floor_is, images_per_second=COUNT / best[form])


if __name__ == "__main__":
    main()
