"""The network's shapes, its weights in and out."""

import email.message
import hashlib
import http.client
import io
import re
import sys
import urllib.error
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision

from alignedreid_lib import devices
from alignedreid_lib.errors import InputError
from alignedreid_lib.evaluation import distances, full_run
from alignedreid_lib.evaluation.features import Features
from alignedreid_lib.model import AlignedReID, DepthwiseConv2d, build_backbone, load_weights
from alignedreid_lib.model.weights import load_imagenet, read_weights
from alignedreid_lib.training import TrainConfig
from alignedreid_lib.training.learner import check_fit


@pytest.mark.parametrize(("backbone", "channels"), [("resnet18", 512), ("mobilenet_v2", 1280), ("resnet50", 2048)])
def test_shapes(backbone, channels):
    network = AlignedReID(backbone, num_ids=5).eval()
    with torch.no_grad():
        embedding = network(torch.randn(2, 3, 256, 128))
    assert embedding.global_features.shape == (2, channels)
    assert embedding.local_features.shape == (2, 8, 128)
    assert embedding.logits.shape == (2, 5)
    assert AlignedReID("resnet18")(torch.randn(2, 3, 64, 32)).logits is None


@pytest.mark.arithmetic
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


@pytest.mark.arithmetic
@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_means_of_the_map_are_taken_in_float32(precision):
    """bfloat16 keeps 8 bits: rounded to it, a mean loses what the sum of 8 x 4 cells has gained."""
    network = AlignedReID("resnet18", local_channels=16, num_ids=3).eval()
    images, seen = torch.randn(2, 3, 128, 64), []
    network.base.register_forward_hook(lambda module, given, output: seen.append(output))
    network.local_conv.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    with torch.no_grad(), devices.autocast(images.device, precision):
        found = network(images).global_features
    feature_map, stripes = seen
    assert feature_map.dtype == devices.TYPES[precision] and found.dtype == stripes.dtype == torch.float32
    torch.testing.assert_close(found, feature_map.float().mean((2, 3)), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(stripes, feature_map.float().mean(3, keepdim=True), rtol=1e-6, atol=1e-6)


def test_means_of_a_float64_map_stay_float64():
    embedding = AlignedReID("resnet18", num_ids=3).double()(torch.randn(2, 3, 64, 64).double())
    assert {part.dtype for part in embedding} == {torch.float64}


@pytest.mark.arithmetic
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


@pytest.mark.parametrize("name", ["mobilenet_v2", "shufflenet_v2_x0_5", "densenet121", "vgg11.features"])
def test_every_family_with_a_last_halving_can_leave_it_out(name):
    """With the parameters, and so the weights files, of the whole network."""
    whole, doubled = (build_backbone(name, stride).eval() for stride in (2, 1))
    doubled.load_state_dict(whole.state_dict())
    images = torch.zeros(1, 3, 128, 64)
    with torch.no_grad():
        h, w = whole(images).shape[2:]
        assert doubled(images).shape[2:] == (2 * h, 2 * w)
    assert all(module.training for module in build_backbone(name, 1).modules())


@pytest.mark.parametrize("name", ["convnext_tiny", "vit_b_32"])
def test_a_network_whose_halving_cannot_be_left_out_is_refused(name):
    with pytest.raises(InputError, match=f"last_stride 1 is for a network whose .* left out, and {name} is not one"):
        build_backbone(name, 1)


@pytest.mark.arithmetic
def test_a_network_is_cut_after_a_child():
    torch.manual_seed(0)
    cut = AlignedReID("resnet18.layer3").eval()
    whole = torchvision.models.resnet18().eval()
    assert not whole.load_state_dict(cut.base.state_dict(), strict=False).unexpected_keys
    images = torch.randn(1, 3, 64, 32)
    seen = []
    whole.layer3.register_forward_hook(lambda module, given, output: seen.append(output))
    with torch.no_grad():
        whole(images)
        torch.testing.assert_close(cut.base(images), seen[0])
    assert seen[0].shape == (1, 256, 4, 2)
    assert AlignedReID("resnet18.layer3", last_stride=1)(torch.randn(2, 3, 64, 32)).local_features.shape[1] == 8


def test_identity_head_starts_small():
    weight = AlignedReID("resnet18", num_ids=200).fc.weight
    assert 0.0009 < weight.std() < 0.0011


@pytest.mark.parametrize("name", ["resnet19", "vit_b_32.encoder", "resnet18.layer5", "resnet18.", "resnet18.layer3.0"])
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
    with pytest.raises(InputError, match=r"w\.pth: the weights of a different network"):
        AlignedReID("mobilenet_v2", weights=tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"the weights of a different network"):
        AlignedReID("resnet34", weights=tmp_path / "w.pth")


def test_another_shape_is_refused_with_advice_and_nothing_changes(tmp_path):
    torch.save(state(2, local_channels=64), tmp_path / "narrow.pth")
    network = AlignedReID("resnet18")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(
        InputError, match=r"local_conv\.weight has shape \(64, 512, 1, 1\), .* set local_channels to 64"
    ):
        load_weights(network, tmp_path / "narrow.pth")
    torch.save(state(2) | {"base.conv1.weight": torch.zeros(64, 1, 7, 7)}, tmp_path / "grey.pth")
    with pytest.raises(InputError, match=r"base\.conv1\.weight has shape .*; choose the backbone"):
        load_weights(network, tmp_path / "grey.pth")
    torch.save(state(2) | {"base.bn1.bias": torch.zeros(64, dtype=torch.int8)}, tmp_path / "int8.pth")
    with pytest.raises(
        InputError, match=r"base\.bn1\.bias is of type torch\.int8; give weights that are not quantized"
    ):
        load_weights(network, tmp_path / "int8.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_weights_of_a_backbone_cut_elsewhere_are_refused_with_what_differs(tmp_path):
    torch.save(state(1), tmp_path / "whole.pth")
    backbone = "choose the backbone it was made with, a different network or cut: its map has 512 channels, not 256"
    with pytest.raises(InputError, match=r"local_conv\.weight has shape \(128, 512, 1, 1\), .*" + backbone) as caught:
        AlignedReID("resnet18.layer3", weights=tmp_path / "whole.pth")
    assert "local_channels" not in str(caught.value)
    torch.save(state(1, local_channels=64), tmp_path / "narrow.pth")
    with pytest.raises(InputError, match=f"set local_channels to 64, with which it was made, and {backbone}"):
        AlignedReID("resnet18.layer3", weights=tmp_path / "narrow.pth")


@pytest.mark.parametrize("num_ids", [7, 5, None])
def test_a_classifier_of_other_people_is_left_out(tmp_path, num_ids):
    """`weights` may be a finished run's; a classifier of another number of people is reported, not loaded."""
    theirs = state(1, num_ids=5)
    torch.save(theirs, tmp_path / "weights.pth")
    network = AlignedReID("resnet18", num_ids=num_ids)
    own = {name: value.clone() for name, value in network.state_dict().items()}
    report = load_weights(network, tmp_path / "weights.pth")
    fits = num_ids == 5
    assert report.missing == (["fc.weight", "fc.bias"] if num_ids == 7 else [])
    assert report.unexpected == ([] if fits else ["fc.weight", "fc.bias"])
    for name, value in network.state_dict().items():
        source = own if name.startswith("fc.") and not fits else theirs
        assert torch.equal(value, source[name]), name
    AlignedReID("resnet18", tmp_path / "weights.pth", num_ids)


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Where torch keeps a ResNet-18 of ImageNet, in a home of its own that has no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    return tmp_path / "torch" / "hub" / "checkpoints" / "resnet18-f37072fd.pth"


def test_imagenet_weights_come_from_torch_s_cache(cached):
    cached.parent.mkdir(parents=True)
    torch.manual_seed(5)
    published = torchvision.models.resnet18().state_dict()
    torch.save(published, cached)
    for last_stride in (1, 2):
        for backbone in ("resnet18", "resnet18.layer3"):
            network = AlignedReID(backbone, "imagenet", 3, last_stride=last_stride)
            assert all(torch.equal(value, published[name]) for name, value in network.base.state_dict().items())


@pytest.mark.parametrize("kind", ["empty", "web page", "cut short", "a trap", "another network's", "a folder"])
def test_a_bad_file_in_torch_s_cache_is_named_and_nothing_in_it_runs(cached, monkeypatch, kind):
    cached.parent.mkdir(parents=True)
    monkeypatch.chdir(cached.parent)
    torch.save(torchvision.models.resnet18().state_dict(), cached)
    whole = cached.read_bytes()
    if kind == "a folder":
        cached.unlink()
        cached.mkdir()
    elif kind == "a trap":
        torch.save({"bomb": Bomb(), **torchvision.models.resnet18().state_dict()}, cached)
    elif kind == "another network's":
        torch.save(torchvision.models.squeezenet1_0().state_dict(), cached)
    else:
        cached.write_bytes({"empty": b"", "web page": b"<html>", "cut short": whole[:-5000]}[kind])
    with pytest.raises(
        InputError, match=r"resnet18-f37072fd\.pth: .*; delete this file, .* put a whole copy of https:"
    ) as e:
        AlignedReID("resnet18", "imagenet")
    assert "\n" not in str(e.value) and "weights_only" not in str(e.value)
    assert list(cached.parent.iterdir()) == [cached], "nothing has run"


class Response(io.BytesIO):
    """What a network brings."""

    def info(self):
        return email.message.Message()


def answer(kind):
    def urlopen(request):
        if kind == "hangs up":
            raise http.client.RemoteDisconnected("Remote end closed connection without response")
        if kind == "forbids":
            raise urllib.error.HTTPError(request.full_url, 403, "Forbidden", email.message.Message(), None)
        if kind == "stopped":
            raise KeyboardInterrupt
        return Response(b"<html>Sign in to this network</html>")

    return urlopen


@pytest.mark.parametrize("kind", ["no network", "hangs up", "forbids", "another page", "no folder", "stopped"])
def test_a_download_that_fails_says_where_to_put_the_file_and_leaves_none(cached, monkeypatch, kind):
    if kind == "no folder":
        cached.parents[2].write_text("a file")
    elif kind != "no network":
        monkeypatch.setattr(torch.hub, "urlopen", answer(kind))
    if kind == "stopped":
        with pytest.raises(KeyboardInterrupt):
            AlignedReID("resnet18", "imagenet")
    else:
        says = r"resnet18-f37072fd\.pth: not there, and cannot be downloaded .*; download https:.* TORCH_HOME"
        with pytest.raises(InputError, match=says) as raised:
            AlignedReID("resnet18", "imagenet")
        assert str(cached) in str(raised.value) and "\n" not in str(raised.value)
    assert kind == "no folder" or list(cached.parent.iterdir()) == []


def test_a_download_is_kept_if_its_hash_is_right(cached, monkeypatch):
    buffer = io.BytesIO()
    torch.save(torchvision.models.resnet18().state_dict(), buffer)
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    choice = SimpleNamespace(name="IMAGENET1K_V1", url=f"https://nowhere.invalid/models/resnet18-{digest[:8]}.pth")
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: [choice])
    monkeypatch.setattr(torch.hub, "urlopen", lambda request: Response(buffer.getvalue()))
    AlignedReID("resnet18", "imagenet")
    assert [path.name for path in cached.parent.iterdir()] == [f"resnet18-{digest[:8]}.pth"]


def test_a_network_without_imagenet_weights_is_refused_by_name(cached):
    with pytest.raises(InputError, match=r"no IMAGENET1K_V1 weights of regnet_y_128gf; give a file, or None"):
        load_imagenet(torch.nn.Linear(1, 1), "regnet_y_128gf")


def test_a_densenet_s_old_names_load(tmp_path):
    """torchvision's published DenseNets say `norm.1` where its networks say `norm1`."""
    published = torchvision.models.densenet121().state_dict()
    old = {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12]\.)", r"\1.\2", name): value for name, value in published.items()
    }
    assert len(old.keys() - published.keys()) > 100
    torch.save(old, tmp_path / "densenet.pth")
    network = AlignedReID("densenet121", tmp_path / "densenet.pth")
    assert all(torch.equal(value, published[name]) for name, value in network.base.state_dict().items())


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
    with pytest.raises(InputError, match=r"it refers to \w+\.open\)") as raised:
        load_weights(AlignedReID("resnet18"), tmp_path / "bad.pth")
    assert "weights_only" not in str(raised.value)


def test_truncated_weights_are_refused(tmp_path):
    torch.save(state(1), tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()
    (tmp_path / "w.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"w\.pth: not a file of weights"):
        load_weights(AlignedReID("resnet18"), tmp_path / "w.pth")


@pytest.mark.arithmetic
def test_the_mobilenet_with_imagenet_weights(shared):
    network = AlignedReID("mobilenet_v2", weights=shared / "weights" / "mobilenet_v2_imagenet.pth")
    assert network.base.features[0][0].weight.std() > 0.1


@pytest.mark.parametrize("name", ["shufflenet_v2_x0_5", "mobilenet_v2"])
def test_replaced_convolutions_change_nothing_but_their_class(name):
    """After the same seed, a backbone has torchvision's names, values, output and state of the random numbers."""
    torch.manual_seed(2)
    whole = torchvision.models.get_model(name)
    expected = torch.get_rng_state()
    torch.manual_seed(2)
    base = build_backbone(name)
    assert torch.equal(torch.get_rng_state(), expected)
    published = {key: value for key, value in whole.state_dict().items() if not key.startswith(("fc.", "classifier."))}
    assert list(base.state_dict()) == list(published)
    assert all(torch.equal(value, published[key]) for key, value in base.state_dict().items())
    replaced = [m for m in base.modules() if isinstance(m, DepthwiseConv2d)]
    assert len(replaced) == {"shufflenet_v2_x0_5": 19, "mobilenet_v2": 17}[name]
    kept = {key: module for key, module in whole.named_modules() if isinstance(module, torch.nn.Conv2d)}
    for key, module in base.named_modules():
        if isinstance(module, torch.nn.Conv2d):
            assert module.extra_repr() == kept[key].extra_repr()
    plain = torch.nn.Sequential(*[getattr(whole, child) for child, _ in base.named_children()]).eval()
    images = torch.randn(2, 3, 128, 64)
    with torch.no_grad():
        assert torch.equal(base.eval()(images), plain(images))


@pytest.mark.parametrize("local_channels", [0, -1, 10**12])
def test_channels_that_no_memory_holds_are_refused(local_channels):
    with pytest.raises(InputError, match=rf"local_channels is {local_channels}; it has to be from 1 to 65536"):
        AlignedReID("resnet18", local_channels=local_channels)


# Networks that are not torchvision's, and those without a map.


class Wrapped(torch.nn.Module):
    """A module of the user's own: a part of it gives the map, as in toolboxes whose forward gives more."""

    def __init__(self, net, give=lambda found: found):
        super().__init__()
        self.net, self.give = net, give

    def forward(self, images):
        return self.give(self.net(images))


def small_net():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 32), torch.nn.BatchNorm2d(8), torch.nn.ReLU())


def test_any_module_that_gives_a_map_is_a_backbone():
    net = small_net().train()
    net[1].eval()  # frozen by its owner
    network = AlignedReID(net, num_ids=3)
    assert network.base is net and net.training and not net[1].training, "it stays as it is"
    with torch.no_grad():
        found = network.eval()(torch.randn(2, 3, 256, 128))
    assert [tuple(part.shape) for part in found] == [(2, 8), (2, 8, 128), (2, 3)]


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "swin_t"])
def test_newer_networks_of_torchvision_give_maps(name):
    with torch.device("meta"):
        assert AlignedReID(name)(torch.zeros(1, 3, 256, 128)).local_features.shape[1:] == (8, 128)


def test_without_a_map_there_is_only_the_global_feature():
    vectors = AlignedReID(Wrapped(small_net(), lambda found: found.mean((2, 3))), num_ids=5).eval()
    assert not vectors.has_map and not [name for name in vectors.state_dict() if name.startswith("local")]
    images = torch.randn(2, 3, 64, 32)
    found = vectors(images)
    assert torch.equal(found.global_features, vectors.base(images))
    assert found.local_features.shape == (2, 0, 0) and found.logits.shape == (2, 5)
    with torch.device("meta"):
        transformer = AlignedReID("vit_b_32")
        assert transformer(torch.zeros(2, 3, 224, 224)).global_features.shape == (2, 768)
        with pytest.raises(InputError, match="vit_b_32 takes images of 224 x 224, not of 256 x 128"):
            transformer(torch.zeros(2, 3, 256, 128))


def test_what_a_backbone_cannot_do_is_refused_by_name():
    refused = {
        "last_stride is 1, but Sequential is a module": (small_net(), {"last_stride": 1}),
        "last_stride 1 is for a network whose .*, and vit_b_32": ("vit_b_32", {"last_stride": 1}),
        'weights "imagenet" are torchvision\'s, and Sequential is not': (small_net(), {"weights": "imagenet"}),
        "backbone is 7; give the name of a network, or a module": (7, {}),
        "backbone Wrapped gives tuple and does not end in a map": (Wrapped(small_net(), lambda found: (found,)), {}),
        r"backbone Flatten gives a tensor of shape \(1, 3, 32768\)": (torch.nn.Flatten(2), {}),
        r"backbone Linear fails on images .*shapes cannot be multiplied.*such as resnet50": (torch.nn.Linear(9, 1), {}),
    }
    with torch.device("meta"):
        for message, (backbone, settings) in refused.items():
            with pytest.raises(InputError, match=message) as raised:
                AlignedReID(backbone, **settings)
            assert "\n" not in str(raised.value)


def test_a_training_and_a_test_ask_a_network_without_a_map_only_for_what_it_has(tmp_path):
    how = {"backbone": "vit_b_32", "weights": None, "height": 224, "width": 224}
    with torch.device("meta"):
        network = AlignedReID("vit_b_32")
        check_fit(network, TrainConfig(**how))
        with pytest.raises(InputError, match=r"local_weight is 1\.0, but vit_b_32 has no feature map; set it to 0"):
            check_fit(network, TrainConfig(**how, local_weight=1.0))
        with pytest.raises(InputError, match="height 256 x width 128 does not fit: vit_b_32 takes images of 224 x 224"):
            check_fit(network, TrainConfig(backbone="vit_b_32", weights=None))
    asked = {**how, "run_dir": str(tmp_path), "test_distances": ("global", "local")}
    with pytest.raises(InputError, match="test_distances has local, but vit_b_32 has no feature map"):
        full_run.read_settings(asked)
    features = Features(torch.zeros(2, 3), torch.zeros(2, 0, 0), *[np.arange(2)] * 3, ["a", "b"])
    with pytest.raises(InputError, match="distance local needs local features, and there are none: choose global"):
        distances.distance_matrix("global+local", features, features)


def test_a_network_of_timm_is_asked_for_by_its_prefix(monkeypatch):
    """The real package is tested where it is installed; this one records what is asked of it."""
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r"backbone timm:small needs the package timm .*pip install timm"):
        build_backbone("timm:small")
    asked = []

    def create_model(name, **how):
        asked.append(how)
        tokens = name == "tokens" and how.get("global_pool") == ""
        return Wrapped(small_net(), lambda found: found.flatten(2)) if tokens else small_net()

    fake = SimpleNamespace(list_models=lambda: ["small", "tokens"], create_model=create_model, __version__="1")
    monkeypatch.setitem(sys.modules, "timm", fake)
    assert AlignedReID("timm:small").has_map
    build_backbone("timm:tokens")
    assert asked[-1] == {"pretrained": False, "num_classes": 0}, "its own pooling, where its last layer is not a map"
    assert not any(how["pretrained"] for how in asked), "nothing is downloaded"
    with pytest.raises(InputError, match="timm 1 has no such network; try small"):
        build_backbone("timm:smal")
    with pytest.raises(InputError, match=r"last_stride 1 is for a network whose .*, and timm:small"):
        build_backbone("timm:small", 1)


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]
)
def test_networks_of_the_real_timm(name):
    pytest.importorskip("timm", reason="the optional package timm is not installed")
    with torch.device("meta"):
        network = AlignedReID(f"timm:{name}")
    assert network.has_map == (not name.startswith(("vit", "swin")))


CONTAINERS = {
    "plain": lambda w: w,
    "torchreid": lambda w: {"state_dict": w, "epoch": 60, "rank1": 0.9, "optimizer": {"state": {}}},
    "timm": lambda w: {"arch": "resnet18", "model": "resnet18", "state_dict": w, "state_dict_ema": {}},
    "fast-reid": lambda w: {"model": {f"backbone.{k}": v for k, v in w.items()} | {"heads.weight": torch.ones(3)}},
    "lightning": lambda w: {"state_dict": {f"model.{k}": v for k, v in w.items()}, "callbacks": {}},
    "DINO": lambda w: {
        "student": {f"module.backbone.{k}": v + 1 for k, v in w.items()},
        "teacher": {f"backbone.{k}": v for k, v in w.items()},
    },
    "MoCo": lambda w: {
        "state_dict": {f"module.encoder_k.{k}": v + 1 for k, v in w.items()}
        | {f"module.encoder_q.{k}": v for k, v in w.items()}
    },
    "two deep": lambda w: {"model": {"params": w}},
    "a prefix of one's own": lambda w: {f"my.trunk.{k}": v for k, v in w.items()},
}


def test_the_prefixes_of_parallel_and_compiled_models_are_removed(tmp_path):
    for prefix in ("module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."):
        torch.save({f"{prefix}fc.weight": torch.ones(2)}, tmp_path / "w.pth")
        assert list(read_weights(tmp_path / "w.pth")) == ["fc.weight"], prefix


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_containers_and_prefixes_of_other_toolboxes(tmp_path, kind, wrapped):
    weights = small_net().state_dict()
    torch.save(CONTAINERS[kind](weights), tmp_path / "w.pth")
    network = AlignedReID(Wrapped(small_net()) if wrapped else small_net())
    report = load_weights(network, tmp_path / "w.pth")
    assert not [name for name in report.missing if name.startswith("base.")]
    base = network.base.net if wrapped else network.base
    assert all(torch.equal(value, weights[name]) for name, value in base.state_dict().items())


def test_a_whole_model_inside_a_wrapper_loads_with_its_local_branch(tmp_path):
    theirs = {f"net.{name}": value for name, value in AlignedReID(small_net()).state_dict().items()}
    torch.save(theirs, tmp_path / "w.pth")
    assert load_weights(AlignedReID(small_net()), tmp_path / "w.pth") == ([], [])
    twice = theirs | {name.replace("net.", "my."): value for name, value in theirs.items()}
    torch.save({name.replace("net.", "his."): value for name, value in twice.items()}, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"w\.pth: several networks in it fit, his\., my\.; give a file with one"):
        load_weights(AlignedReID(small_net()), tmp_path / "w.pth")
