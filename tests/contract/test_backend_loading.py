"""What a backend refuses to be built from."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from model_store.reader import Bundle
from service.backends.base import FeatureRows, ModelKey, StageKey
from service.backends.onnx_runtime import OnnxRuntimeBackend, Placement
from service.backends.torchscript import TorchScriptBackend
from service.errors import BackendFailed

KEY = ModelKey("toy", "1")
BORDER = "(float[N,4,4,4] s0_a, float[N,5,2,2] s0_b)"
POOL = "p = AveragePool<kernel_shape=[2,2], strides=[2,2]>(pixels) s0_b = Conv(p, w0b)"
NO_CUDA = "CUDAExecutionProvider" not in onnxruntime.get_available_providers()


class Elsewhere(nn.Module):
    """Returns what no manifest promises."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return pixels, pixels


class OnlyOne(nn.Module):
    """Classifies one image, whatever its batch."""

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(dim=(2, 3)).view(1, 5)[:, :3]


class Narrow(nn.Module):
    """Reads images of one channel."""

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return (nn.functional.conv2d(pixels, torch.ones(1, 1, 1, 1)),)


def build(backend: type[Any], bundle: Bundle, **options: Any) -> Any:
    return backend({KEY: bundle}, **({"device": "cpu", "num_threads": 1} | options))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {
                "t0": f"(float[N,3,4,4] image) => {BORDER} "
                f"{{pixels = Relu(image) s0_a = Conv(image, w0a) {POOL}}}"
            },
            r"t0.onnx: reads \['image'\], the manifest says \['pixels'\]",
        ),
        (
            {"t0": f"(float[N,3,8,8] pixels) => {BORDER} {{s0_a = Conv(pixels, w0a) {POOL}}}"},
            r"t0.onnx: reads pixels as tensor\(float\) \['N', 3, 8, 8\]",
        ),
        (
            {"t0": f"(float[1,3,4,4] pixels) => {BORDER} {{s0_a = Conv(pixels, w0a) {POOL}}}"},
            r"t0.onnx: reads pixels as tensor\(float\) \[1, 3, 4, 4\], .* \(any batch size",
        ),
        (
            {"t0": "(float[N,3,4,4] pixels) => (float[N,4,4,4] s0_a) {s0_a = Conv(pixels, w0a)}"},
            r"t0.onnx: returns \['s0_a'\], the manifest says \['s0_a', 's0_b'\]",
        ),
        (
            {
                "c0": "(float[N,5,2,2] s0_b) => (float[N,5] logits)"
                "{g = GlobalAveragePool(s0_b) logits = Flatten(g)}"
            },
            r"c0.onnx: returns logits as tensor\(float\) \['N', 5\]",
        ),
        (
            {
                "c0": "(float16[N,5,2,2] s0_b) => (float[N,3] logits)"
                "{c = Cast<to=1>(s0_b) g = GlobalAveragePool(c) f = Flatten(g)"
                " logits = MatMul(f, v0)}"
            },
            r"c0.onnx: reads s0_b as tensor\(float16\)",
        ),
        ({"t1": f"{BORDER} => (float[N,6,4,4] s1_a) {{s1_a = Unheard(s0_a)}}"}, "t1.onnx: cannot"),
    ],
    ids=[
        "input name",
        "input shape",
        "fixed batch",
        "missing output",
        "output shape",
        "type",
        "unknown operator",
    ],
)
def test_a_graph_that_is_not_what_the_manifest_says_is_named(
    write_onnx_toy: Callable[..., Bundle], changed: dict[str, str], message: str
):
    bundle = write_onnx_toy(**changed)

    with pytest.raises(BackendFailed, match=message):
        build(OnnxRuntimeBackend, bundle)


@pytest.mark.parametrize(
    ("module", "message"),
    [(Elsewhere(), "t0.pt: returns .* the manifest says"), (Narrow(), "t0.pt: fails on one image")],
    ids=["other tensors", "other inputs"],
)
def test_an_archive_that_does_not_return_what_the_manifest_says_is_named(
    write_torchscript_toy: Callable[..., Bundle], module: nn.Module, message: str
):
    channels = 3 if isinstance(module, Elsewhere) else 1
    bundle = write_torchscript_toy(t0=(module, (torch.zeros(2, channels, 4, 4),)))

    with pytest.raises(BackendFailed, match=message):
        build(TorchScriptBackend, bundle)


def test_a_file_that_is_no_archive_is_named(write_torchscript_toy: Callable[..., Bundle]):
    bundle = write_torchscript_toy()
    archive = bundle.file("graphs/c1.pt")
    archive.chmod(0o644)
    archive.write_bytes(b"damaged after it was opened")

    with pytest.raises(BackendFailed, match=r"c1\.pt: cannot be opened on cpu"):
        build(TorchScriptBackend, bundle)


@pytest.mark.parametrize("backend", [OnnxRuntimeBackend, TorchScriptBackend])
def test_a_bundle_for_another_runtime_is_refused(
    toy_bundles: dict[str, Bundle], backend: type[Any]
):
    others = "torchscript" if backend is OnnxRuntimeBackend else "onnx"

    with pytest.raises(BackendFailed, match=f"is for {others}, not for {backend.name}"):
        build(backend, toy_bundles[others])


@pytest.mark.parametrize("backend", [OnnxRuntimeBackend, TorchScriptBackend])
@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "cpu:0", ""])
def test_an_unheard_of_device_is_refused(
    toy_bundles: dict[str, Bundle], backend: type[Any], name: str
):
    with pytest.raises(BackendFailed, match="no device"):
        build(backend, toy_bundles[backend.name.removesuffix("runtime")], device=name)


@pytest.mark.skipif(not NO_CUDA, reason="this build of onnxruntime has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_a_runtime_without_cuda_does_not_pretend(toy_bundles: dict[str, Bundle], name: str):
    with pytest.raises(BackendFailed, match="has no CUDAExecutionProvider"):
        build(OnnxRuntimeBackend, toy_bundles["onnx"], device=name)


@pytest.mark.parametrize("name", ["cuda:99"])
def test_torch_does_not_pretend_to_have_a_device(toy_bundles: dict[str, Bundle], name: str):
    with pytest.raises(BackendFailed, match="cuda:99: torch finds"):
        build(TorchScriptBackend, toy_bundles["torchscript"], device=name)


@pytest.mark.skipif(torch.cuda.is_available() or not NO_CUDA, reason="there is an accelerator")
@pytest.mark.parametrize("backend", [OnnxRuntimeBackend, TorchScriptBackend])
def test_auto_is_the_cpu_where_there_is_nothing_else(
    toy_bundles: dict[str, Bundle], backend: type[Any]
):
    built = build(backend, toy_bundles[backend.name.removesuffix("runtime")], device="auto")

    assert built.device == "cpu"


def test_features_cannot_lie_on_a_device_without_graphs_to_pick_rows(
    write_onnx_toy: Callable[..., Bundle],
):
    bundle = write_onnx_toy(without_compaction=True)

    with pytest.raises(BackendFailed, match="no bundle has graphs to pick and join rows with"):
        build(OnnxRuntimeBackend, bundle, placement=Placement.DEVICE)


def test_arrays_need_no_graphs_to_pick_rows(write_onnx_toy: Callable[..., Bundle]):
    backend = build(OnnxRuntimeBackend, write_onnx_toy(without_compaction=True))

    assert backend.device == "cpu"


def test_what_fails_while_it_runs_is_told_where_the_result_is_asked_for(
    write_torchscript_toy: Callable[..., Bundle],
):
    bundle = write_torchscript_toy(c0=(OnlyOne(), (torch.zeros(1, 5, 2, 2),)))
    backend = build(TorchScriptBackend, bundle)
    features = backend.put(KEY, np.zeros((2, 3, 4, 4), np.float32))
    parts = [FeatureRows(features, (0, 1))]

    one = backend.submit(StageKey(KEY, 0), parts, classify=(1,))
    two = backend.submit(StageKey(KEY, 0), parts, classify=(0, 1))

    assert one.result().logits.shape == (1, 3)
    with pytest.raises(BackendFailed, match="failed on 2 images"):
        two.result()


def test_one_pool_serves_a_process_and_cannot_be_resized(toy_bundles: dict[str, Bundle]):
    script = """
import sys
from pathlib import Path
from model_store.reader import open_bundle
from service.backends.base import ModelKey
from service.backends.onnx_runtime import IdleThreads, OnnxRuntimeBackend
from service.errors import BackendFailed

bundles = {ModelKey("toy", "1"): open_bundle(Path(sys.argv[1]))}
for num_threads in (2, 2, 3):
    try:
        OnnxRuntimeBackend(
            bundles, device="cpu", num_threads=num_threads, idle_threads=IdleThreads.SPIN
        )
    except BackendFailed as error:
        print(num_threads, error)
"""

    found = subprocess.run(
        [sys.executable, "-c", script, str(toy_bundles["onnx"].path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )

    assert found.stdout.startswith("3 a pool of 3 threads is not to be had")
    assert found.stdout.count("\n") == 1
