"""The network's shapes, its weights in and out."""

import numpy as np
import pytest
import torch
import torchvision

from alignedreid_lib.errors import InputError
from alignedreid_lib.model import AlignedReID, load_weights


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 512), ("mobilenet_v2", 1280), ("resnet50", 2048)])
def test_shapes(backbone, channels):
    network = AlignedReID(backbone, num_ids=5).eval()
    with torch.no_grad():
        embedding = network(torch.randn(2, 3, 256, 128))
    assert embedding.global_features.shape == (2, channels)
    assert embedding.local_features.shape == (2, 8, 128)
    assert embedding.logits.shape == (2, 5)
    assert AlignedReID("resnet18")(torch.randn(2, 3, 64, 32)).logits is None


def test_branches_are_what_the_paper_says():
    network = AlignedReID("resnet18", local_channels=16).eval()
    images = torch.randn(2, 3, 128, 64)
    with torch.no_grad():
        feature_map = network.base(images)
        embedding = network(images)
    torch.testing.assert_close(embedding.global_features, feature_map.mean((2, 3)))
    by_hand = torch.einsum("nchw,oc->noh", feature_map / feature_map.shape[3], network.local_conv.weight[:, :, 0, 0])
    by_hand = by_hand + network.local_conv.bias[None, :, None]
    by_hand = (by_hand / torch.sqrt(torch.tensor(1 + network.local_bn.eps))).clamp(min=0)  # fresh statistics: 0 and 1
    torch.testing.assert_close(embedding.local_features, by_hand.transpose(1, 2), rtol=1e-4, atol=1e-5)


def test_the_map_is_torchvision_s():
    torch.manual_seed(0)
    network = AlignedReID("resnet18").eval()
    whole = torchvision.models.resnet18()
    whole.load_state_dict(network.base.state_dict(), strict=False)
    whole.fc = torch.nn.Identity()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(network(images).global_features, whole.eval()(images))


def test_last_stride_one_doubles_the_map():
    stripes = AlignedReID("resnet18", last_stride=1)(torch.randn(2, 3, 128, 64)).local_features
    assert stripes.shape[1] == 8
    with pytest.raises(InputError, match="last_stride 1 is for the ResNet family"):
        AlignedReID("mobilenet_v2", last_stride=1)


def test_identity_head_starts_small():
    weight = AlignedReID("resnet18", num_ids=200).fc.weight
    assert 0.0009 < weight.std() < 0.0011


@pytest.mark.parametrize("name", ["resnet19", "vit_b_32"])
def test_unfit_backbones_are_refused(name):
    with pytest.raises(InputError, match=name):
        AlignedReID(name)


def state(seed, **settings):
    torch.manual_seed(seed)
    return AlignedReID("resnet18", **settings).state_dict()


@pytest.mark.parametrize("old_format", [False, True])
def test_the_original_s_files_load(tmp_path, old_format):
    """Its names are `base.*`, `local_conv.*`, ...; PyTorch 0.3 wrote no batch counters and no zip."""
    original = {name: value for name, value in state(1, num_ids=7).items() if "num_batches" not in name}
    torch.save(original, tmp_path / "w.pth", _use_new_zipfile_serialization=not old_format)
    network = AlignedReID("resnet18", num_ids=7)
    report = load_weights(network, tmp_path / "w.pth")
    assert report.missing == report.unexpected == []
    assert all(torch.equal(network.state_dict()[name], value) for name, value in original.items())


def test_the_original_s_checkpoints_and_parallel_names_load(tmp_path):
    weights = {f"module.{name}": value for name, value in state(1).items()}
    torch.save({"state_dicts": [weights, {"state": {}}], "ep": 3, "scores": 0.5}, tmp_path / "ckpt.pth")
    assert load_weights(AlignedReID("resnet18"), tmp_path / "ckpt.pth") == ([], [])


def test_backbone_files_load_and_the_rest_is_listed(tmp_path):
    backbone = torchvision.models.resnet18().state_dict()
    torch.save(backbone, tmp_path / "backbone.pth")
    network = AlignedReID("resnet18", num_ids=3)
    report = load_weights(network, tmp_path / "backbone.pth")
    assert "local_conv.weight" in report.missing and "fc.bias" in report.missing
    assert report.unexpected == ["base.fc.weight", "base.fc.bias"]
    assert torch.equal(network.base.conv1.weight, backbone["conv1.weight"])
    assert "2 left over: base.fc.weight" in str(report)


def test_another_network_s_weights_are_refused_and_nothing_changes(tmp_path):
    torch.save(state(1), tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: the weights of another network"):
        AlignedReID("mobilenet_v2", weights=tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"the weights of another network"):
        AlignedReID("resnet34", weights=tmp_path / "w.pth")
    network = AlignedReID("resnet18", num_ids=4)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save(state(2, num_ids=5), tmp_path / "five.pth")
    with pytest.raises(InputError, match=r"fc\.weight has shape \(5, 512\), this model's has \(4, 512\)"):
        load_weights(network, tmp_path / "five.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Bomb:
    def __reduce__(self):
        return (open, ("bomb-went-off", "w"))


@pytest.mark.parametrize("content", [b"", b"hello", None, Bomb(), {"a": 1}, [1, 2], np.zeros(3)])
def test_what_is_no_weights_file_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "bad.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=r"bad\.pth: "):
        load_weights(AlignedReID("resnet18"), path)
    assert not (tmp_path / "bomb-went-off").exists()


def test_a_file_that_would_run_code_is_named_and_not_advised(tmp_path):
    torch.save(Bomb(), tmp_path / "bad.pth")
    with pytest.raises(InputError, match=r"it asks for \w+\.open\)") as raised:
        load_weights(AlignedReID("resnet18"), tmp_path / "bad.pth")
    assert "weights_only" not in str(raised.value)


def test_truncated_weights_are_refused(tmp_path):
    torch.save(state(1), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"w\.pth: not a file of weights"):
        load_weights(AlignedReID("resnet18"), tmp_path / "w.pth")


def test_the_mobilenet_with_imagenet_weights(shared):
    network = AlignedReID("mobilenet_v2", weights=shared / "weights" / "mobilenet_v2_imagenet.pth")
    assert network.base.features[0][0].weight.std() > 0.1
