"""Explanations add up: cells to the global distance, stripes to the local one."""

import numpy as np
import pytest
import torch
from torch import nn

from alignedreid_lib import alignment, figures, losses
from alignedreid_lib.errors import InputError
from alignedreid_lib.figures import why
from alignedreid_lib.model import AlignedReID
from alignedreid_lib.search import embed, explain

pytestmark = pytest.mark.arithmetic

SIZE = {"height": 64, "width": 32}


def pair():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (70, 30, 3), dtype=np.uint8) for _ in range(2)]


def network_of(backbone):
    """Random weights, and batch norms that have seen images: else MobileNetV2 gives all images the same features."""
    network = AlignedReID(backbone)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.randn(8, 3, 64, 32))
    return network


@pytest.mark.parametrize("backbone", ["resnet50", "mobilenet_v2"])
@pytest.mark.parametrize("unit", [False, True], ids=["features", "unit features"])
def test_cells_add_up_to_the_distance(backbone, unit):
    network = network_of(backbone)
    a, b = pair()
    found = explain.similarity_map(network, a, b, normalize_features=unit, **SIZE)
    features = embed(network, [a, b], precision="float32", **SIZE).global_features.double()
    features = losses.unit_length(features) if unit else features
    wanted = float(losses.euclidean_distances(features[:1], features[1:]))
    assert found.first.shape == found.second.shape == (2, 1)
    assert wanted > 0.1 and abs(float(found.first.sum() + found.second.sum()) - wanted) < 1e-5
    assert found.distance == pytest.approx(wanted, abs=1e-5) and network.training
    same = explain.similarity_map(network, a, a, normalize_features=unit, **SIZE)
    assert same.distance == 0 and not same.first.any() and not same.second.any()


class Cells(nn.Module):
    """A network whose map is the image's: red, green and blue of blocks of 8 x 8 pixels, nothing where all is black."""

    def __init__(self, head=1.0):
        super().__init__()
        self.weight, self.head = nn.Parameter(torch.ones(())), head

    def base(self, images):
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.486, 0.459, 0.408), (0.229, 0.224, 0.225)))
        return nn.functional.avg_pool2d(images * std + mean, 8) * self.weight

    def forward(self, images):
        from alignedreid_lib.model import Embedding

        maps = self.base(images)
        return Embedding(self.head * maps.mean(dim=(2, 3)), maps.mean(dim=3).transpose(1, 2), None)


def test_a_cell_that_is_zero_in_both_maps_adds_nothing_and_others_what_eye_and_hand_find():
    a, b = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    a[:8, :8, 0] = 255  # one red cell of four; the second image is black
    found = explain.similarity_map(Cells(), a, b, height=16, width=16)
    np.testing.assert_allclose(found.first, [[0.25, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.second, 0, atol=1e-6)
    b[8:, 8:, 1] = 255  # and a green one: g = (1/4, 0), (0, 1/4), so D = sqrt(2) / 4 and each adds half of it
    found = explain.similarity_map(Cells(), a, b, height=16, width=16)
    np.testing.assert_allclose(found.first, [[0.125 * 2**0.5, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(found.second, [[0, 0], [0, 0.125 * 2**0.5]], atol=1e-6)


def test_stripes_add_up_to_the_local_distance():
    network = AlignedReID("resnet18.layer1", local_channels=4)
    a, b = pair()
    found = explain.path_costs(network, a, b, **SIZE)
    features = embed(network, [a, b], precision="float32", **SIZE).local_features.double()
    wanted = float(alignment.local_distances(features[:1], features[1:]))
    assert found.distance == pytest.approx(wanted, abs=1e-5) and len(found.path) == 31
    assert found.distance == pytest.approx(sum(float(found.costs[cell]) for cell in found.path))


class Square(nn.Module):
    """A transformer's habit: one size, and one vector per image."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 16, 16)

    def forward(self, images):
        assert images.shape[2:] == (224, 224), "wrong size"
        return self.conv(images).mean((2, 3))


def test_what_cannot_be_explained_is_refused():
    a, b = pair()
    for explained in (explain.similarity_map, explain.path_costs):
        with pytest.raises(InputError, match="Square takes images of 224 x 224, not of 256 x 128"):
            explained(AlignedReID(Square()), a, b)
    with pytest.raises(InputError, match="the path needs local features, and this network has none"):
        explain.path_costs(AlignedReID(Square()), a, b, height=224, width=224)
    with pytest.raises(InputError, match="needs a network whose global feature is the mean of its last feature map"):
        explain.similarity_map(Cells(head=2.0), a, b, height=16, width=16)
    for features in (torch.zeros(1, 3), torch.zeros(3), torch.full((2, 2), torch.nan)):
        with pytest.raises(InputError, match="features have shape"):
            explain.plane(features)


def test_the_plane_shows_the_largest_directions():
    line = torch.tensor([[0.0, 0, 0], [3, 4, 0], [6, 8, 0], [9, 12, 1e-3]])
    found = explain.plane(line)
    np.testing.assert_allclose(found.points[:, 0].abs(), [7.5, 2.5, 2.5, 7.5], atol=1e-3)
    assert found.shares[0] > 0.999 and found.points[found.points[:, 0].abs().argmax(), 0] > 0
    distances = losses.euclidean_distances(line.double(), line.double())
    torch.testing.assert_close(losses.euclidean_distances(found.points, found.points), distances, atol=1e-3, rtol=0)
    assert explain.plane(torch.ones(3, 1)).points.shape == (3, 2)


def test_figures():
    grown = why.grow(np.array([[0.0, 1.0]]), (4, 8))
    assert grown.shape == (4, 8) and grown[0, 0] == 0 and grown[0, -1] == 1 and (np.diff(grown[0]) >= 0).all()
    a, b = pair()
    cells = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    shown = figures.similarity(a, b, explain.SimilarityMap(-0.5, cells, 0 * cells))
    assert "global distance -0.500" in shown.get_suptitle() and len(shown.axes) == 5
    path = explain.PathCosts(1.0, torch.tensor([[0.2, 1.0], [0.5, 0.3]]), [(0, 0), (1, 0), (1, 1)])
    (ax,) = figures.matched_stripes(a, b, path).axes
    assert len(ax.lines) == 3 and [text.get_text() for text in ax.texts] == ["0.20", "0.30"]
    assert ax.lines[0].get_linewidth() > ax.lines[1].get_linewidth(), "a match that costs little is thick"
    found = explain.plane(torch.rand(6, 4))
    shown = figures.feature_map(found, [1, 1, 2, 2, 3, 3], [0, 1] * 3)
    assert [len(ax.collections) for ax in shown.axes] == [3, 2]
    with pytest.raises(InputError, match="6 points"):
        figures.feature_map(found, [1], [0])
