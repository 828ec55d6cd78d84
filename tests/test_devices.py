"""Where to compute, and how precisely."""

import os
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from alignedreid_lib import devices
from alignedreid_lib.errors import InputError
from alignedreid_lib.model import DepthwiseConv2d, build_backbone

pytestmark = pytest.mark.arithmetic

CPU = torch.device("cpu")


def claims(monkeypatch, avx512_bf16, amx):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


@pytest.mark.parametrize(
    ("avx512_bf16", "amx", "width", "wanted"),
    [
        (False, False, 128, "float32"),
        (True, False, 128, "bfloat16"),
        (True, True, 128, "bfloat16"),
        (True, True, 64, "bfloat16"),
        (True, True, 32, "float32"),
        (True, False, 32, "bfloat16"),
    ],
)
def test_auto_takes_bfloat16_where_the_processor_has_it(monkeypatch, avx512_bf16, amx, width, wanted):
    claims(monkeypatch, avx512_bf16, amx)
    assert devices.choose_precision("auto", CPU, width) == wanted
    assert devices.choose_precision("float32", CPU, width) == "float32"


def test_auto_follows_who_forbids_the_wide_instructions(monkeypatch):
    claims(monkeypatch, True, False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # as ATEN_CPU_CAPABILITY=avx2 does
    assert devices.choose_precision("auto", CPU, 128) == "float32"


@pytest.mark.parametrize(
    ("cuda", "mps", "wanted"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_auto_takes_the_fastest_device_there_is(monkeypatch, cuda, mps, wanted):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert devices.choose_device("auto") == torch.device(wanted)


def test_auto_takes_float32_on_mps():
    """And the autocast of that device is made, though none is here."""
    mps = torch.device("mps")
    assert devices.choose_precision("auto", mps, 128) == "float32"
    with devices.autocast(mps, "float32"):
        assert not torch.is_autocast_enabled("mps")


def test_only_an_accelerator_runs_beside_the_host():
    assert not devices.is_accelerator(CPU)
    assert all(devices.is_accelerator(torch.device(name)) for name in ("cuda", "cuda:1", "mps"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.int64, torch.bool])
def test_fetched_values_are_numpy(dtype):
    fetched = devices.fetch(torch.tensor([0, 1, 1], dtype=dtype, requires_grad=dtype.is_floating_point))
    assert fetched.tolist() == [0, 1, 1] and fetched.dtype.kind == {torch.bool: "b", torch.int64: "i"}.get(dtype, "f")


def test_bfloat16_by_name_is_refused_only_where_it_computes_nonsense(monkeypatch):
    claims(monkeypatch, False, False)
    assert devices.choose_precision("bfloat16", CPU, 32) == "bfloat16"
    claims(monkeypatch, True, True)
    with pytest.raises(InputError, match="images 32 pixels wide; use float32"):
        devices.choose_precision("bfloat16", CPU, 32)


def gpus(monkeypatch, *capabilities):
    """GPUs of these capabilities as torch tells of them, without any; the first is the current one."""
    current = [0]

    class At:  # torch.cuda.device
        def __init__(self, device):
            self.index = device.index

        def __enter__(self):
            self.before, current[0] = current[0], current[0] if self.index is None else self.index

        def __exit__(self, *_):
            current[0] = self.before

    monkeypatch.setattr(torch.cuda, "device", At)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda k=0: SimpleNamespace(major=capabilities[k][0]))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capabilities[device.index or 0])


@pytest.mark.parametrize(
    ("capability", "wanted"),
    [((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")],
)
def test_auto_takes_what_a_gpu_multiplies_fast(monkeypatch, capability, wanted):
    gpus(monkeypatch, capability)
    assert devices.choose_precision("auto", torch.device("cuda"), 128) == wanted


def test_the_learner_s_own_gpu_is_asked_not_the_current_one(monkeypatch):
    gpus(monkeypatch, (7, 5), (8, 0))
    found = [devices.choose_precision("auto", torch.device("cuda", k), 128) for k in (0, 1)]
    assert found == ["float16", "bfloat16"]
    assert devices.choose_precision("tf32", torch.device("cuda", 1), 128) == "tf32"
    for device in (torch.device("cuda", 0), CPU):
        with pytest.raises(InputError, match=f"^precision tf32 needs an NVIDIA GPU since Ampere, not {device}; use"):
            devices.choose_precision("tf32", device, 128)


@pytest.mark.parametrize("products", ["highest", "high", "medium"])
@pytest.mark.parametrize("convolutions", [False, True])
def test_float32_is_what_it_says_and_the_state_comes_back(convolutions, products):
    """GPUs read these flags; their default is TF32 in convolutions."""

    def flags():
        return torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()

    before = flags()
    try:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)
        for precision, wanted in (("float32", False), ("tf32", True), ("bfloat16", False), ("float16", False)):
            with pytest.raises(ZeroDivisionError), devices.arithmetic(precision):
                assert flags() == (wanted, "highest")
                raise ZeroDivisionError
            assert flags() == (convolutions, products)
        torch.backends.cudnn.conv.fp32_precision = "ieee"  # torch's newer interface; it forbids the older one
        torch.backends.cuda.matmul.fp32_precision = "ieee"
        with devices.arithmetic("tf32"):
            assert flags() == (True, "highest")
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.set_float32_matmul_precision(before[1])


@pytest.mark.parametrize("name", ["bfloat16", "float16", "float32", "tf32"])
def test_autocast_computes_in_the_type_of_the_name(name):
    with devices.autocast(CPU, name):
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert product.dtype == devices.TYPES[name]


@pytest.mark.parametrize("width", [64, 128])
def test_bfloat16_convolutions_are_right_at_the_widths_that_are_allowed(width):
    """Every strided convolution of ResNet-18 against float32, on this processor: the reason for the rule above."""
    torch.manual_seed(0)
    base, seen = build_backbone("resnet18"), 0

    def compare(module, given, _):
        nonlocal seen
        if module.stride == (2, 2):
            x, weight = given[0].bfloat16(), module.weight.bfloat16()
            for _ in range(3):
                got = F.conv2d(x, weight, None, module.stride, module.padding).float()
                wanted = F.conv2d(x.float(), weight.float(), None, module.stride, module.padding)
                assert (got - wanted).abs().max() < 0.02 * wanted.abs().max(), tuple(x.shape)
            seen += 1

    for module in base.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(compare)
    with torch.no_grad():
        base(torch.randn(4, 3, 2 * width, width))
    assert seen == 7


def test_the_peak_memory_of_a_gpu_starts_at_its_reset(monkeypatch):
    """A stand-in for a GPU; the memory of a process has no reset."""
    peaks = {torch.device("cuda:1"): 7e6}
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peaks.update({device: 0.0}))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.__getitem__)
    assert devices.peak_memory(torch.device("cuda:1")) == 7.0
    devices.reset_peak_memory(CPU)
    devices.reset_peak_memory(torch.device("cuda:1"))
    assert peaks == {torch.device("cuda:1"): 0.0} and devices.peak_memory(CPU) > 0


def test_depthwise_convolutions_stay_float32_under_autocast():
    base = build_backbone("mobilenet_v2")
    depthwise = [m for m in base.modules() if isinstance(m, DepthwiseConv2d)]
    assert len(depthwise) == 17
    seen = []
    depthwise[0].register_forward_hook(lambda module, given, output: seen.append(output.dtype))
    with devices.autocast(CPU, "bfloat16"), torch.no_grad():
        base(torch.randn(1, 3, 64, 64))
    assert seen == [torch.float32]


@pytest.mark.parametrize("before", [False, True])
def test_cudnn_chooses_by_time_unless_something_asks_for_determinism(monkeypatch, before):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    with devices.deterministic(False):
        assert torch.backends.cudnn.benchmark
    with devices.deterministic(True):
        assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.benchmark == before
    torch.use_deterministic_algorithms(True)
    try:
        with devices.deterministic(False):
            assert not torch.backends.cudnn.benchmark
    finally:
        torch.use_deterministic_algorithms(False)


def test_determinism_fixes_the_workspace_of_products_on_gpus(monkeypatch):
    """Older versions of torch refuse products of matrices on a GPU without it; it is read at the first product."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "of somebody else")
    with devices.deterministic(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == "of somebody else"
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    with devices.deterministic(False):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with devices.deterministic(True):
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
