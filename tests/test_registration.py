"""Box errors measured by registration are those with which the boxes were drawn."""

import numpy as np
import pytest
import torch
from torch import Tensor

from alignedreid_lib import synthetic
from alignedreid_lib.datasets import registration
from alignedreid_lib.errors import InputError
from alignedreid_lib.synthetic.drawn_archives import TRUE_BOX


def drawn_pairs(people: range, misalignment: float) -> tuple[Tensor, Tensor, Tensor]:
    """Images in detected boxes and in perfect ones, uint8 [N, 3, h, w], and the true scales and shifts, [N, 4]."""
    cameras = synthetic.sample_cameras(6, 0)
    images, references, truth = [], [], []
    for person in people:
        for box, found in ((1, images), (0, references)):
            shot = synthetic.Shot(person, camera=person % 6, moment=0, box=box)
            found.append(torch.from_numpy(synthetic.take(shot, cameras, misalignment, 0)).permute(2, 0, 1))
        box = synthetic.detector_box(np.random.default_rng([0, synthetic.BOXES, person, 0, 1]), misalignment)
        down = ((TRUE_BOX.top - TRUE_BOX.height / 2) - (box.top - box.height / 2)) / TRUE_BOX.height
        right = ((box.left + box.width / 2) - (TRUE_BOX.left + TRUE_BOX.width / 2)) / TRUE_BOX.width
        truth.append([box.height / TRUE_BOX.height, box.width / TRUE_BOX.width, down, right])
    return torch.stack(images), torch.stack(references), torch.tensor(truth)


@pytest.mark.parametrize("misalignment", [0.25, 0.5, 1.0])
def test_the_known_errors_of_drawn_boxes_are_found(misalignment: float) -> None:
    images, references, truth = drawn_pairs(range(20), misalignment)
    found = registration.register(images, references, batch_size=8)
    assert (truth[:, 2].abs() > 1 / 16).any(), "some boxes are off by more than half a stripe"
    sure = found.correlation > 0.9
    assert sure.float().mean() >= 0.9
    assert (found.shift - truth[:, 2:])[sure, 0].abs().max() < 1 / 64, "an eighth of a stripe"
    assert (found.shift - truth[:, 2:])[sure, 1].abs().max() < 1 / 16
    assert (found.scale - truth[:, :2])[sure].abs().max() < 1 / 16


def test_an_image_lies_in_itself_and_two_people_do_not_match() -> None:
    images, references, _ = drawn_pairs(range(6), 0.5)
    itself = registration.register(references, references)
    assert torch.allclose(itself.shift, torch.zeros(6, 2), atol=1e-3)
    assert torch.allclose(itself.scale, torch.ones(6, 2), atol=1e-3)
    assert torch.allclose(itself.correlation, torch.ones(6), atol=1e-4)
    strangers = registration.register(images, references.roll(1, 0))
    assert (strangers.correlation < 0.9).all()


def test_an_edge_error_is_that_of_the_worse_edge():
    shift = torch.tensor([[0.1, 0.0], [0.1, 0.0], [0.0, 0.3]])
    scale = torch.tensor([[1.0, 1.0], [1.2, 1.0], [0.8, 1.0]])
    found = registration.Registration(shift, scale, torch.ones(3))
    assert torch.allclose(found.edge_errors, torch.tensor([0.1, 0.2, 0.1]))


def test_cross_correlation_equals_a_loop() -> None:
    rng = torch.Generator().manual_seed(0)
    images, references = 99 * torch.rand(2, 5, 4, generator=rng), 99 * torch.rand(2, 6, 3, generator=rng)
    fast = registration._cross_correlation(images, references)
    for down in range(-4, 6):
        for right in range(-3, 3):
            ours = images[:, max(0, -down) : 6 - down, max(0, -right) : 3 - right]
            theirs = references[:, max(0, down) : down + 5, max(0, right) : right + 4]
            if ours[0].numel() >= registration.LEAST_OVERLAP * 18:
                for k in range(2):
                    wanted = np.corrcoef(ours[k].flatten(), theirs[k].flatten())[0, 1]
                    assert float(fast[k, down + 4, right + 3]) == pytest.approx(wanted, abs=1e-4)
            else:
                assert (fast[:, down + 4, right + 3] == -1).all()


@pytest.mark.parametrize("shape", [(2, 3, 8), (2, 1, 8, 4), (3, 3, 8, 4)])
def test_shapes_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"give \[N, 3, h, w\] of each"):
        registration.register(torch.zeros(shape), torch.zeros(2, 3, 8, 4))
