"""Modules as the files of a bundle: ONNX graphs, or TorchScript archives."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from training.export_stages import ExportRefused

# What torch 2.13 writes by default and onnxruntime has read since 1.14; pinned so that a newer
# exporter does not silently ask for a newer runtime.
OPSET = 18
IR_VERSION = 10


class _Flat(nn.Module):
    """Gives every module the same signature, which dynamic shapes are spelt by."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        returned: Tensor | tuple[Tensor, ...] = self.module(*tensors)
        return returned


def onnx_graph(
    module: nn.Module,
    example: Sequence[Tensor],
    *,
    input_names: Sequence[str],
    output_names: Sequence[str],
) -> bytes:
    """Return a module as one ONNX file, weights within, for any batch from 1.

    Args:
        module: In evaluation mode, on the CPU.
        example: What it reads, of at least two images.
        input_names: One for each tensor of `example`.
        output_names: One for each tensor it returns.

    Raises:
        ExportRefused: A tensor was given another name, or a batch norm is left.
    """
    batch = torch.export.Dim("batch", min=1)
    with _exporter_noise_ignored():
        program = torch.onnx.export(
            _Flat(module).eval(),
            tuple(example),
            dynamo=True,
            dynamic_shapes={"tensors": tuple({0: batch} for _ in example)},
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise ExportRefused("the ONNX exporter returned nothing")
    proto = program.model_proto
    _strip(proto)
    _check(proto, input_names, output_names)
    return bytes(proto.SerializeToString(deterministic=True))


def torchscript_archive(module: nn.Module, example: Sequence[Tensor]) -> bytes:
    """Return a module as a TorchScript archive, which is code: whoever loads it runs it.

    It is saved as traced, neither frozen nor optimised, so that it loads on any device.
    """
    buffer = io.BytesIO()
    with torchscript_deprecation_ignored(), torch.inference_mode():
        traced = torch.jit.trace(module, tuple(example), check_trace=False)  # type: ignore[no-untyped-call]  # in torch
        torch.jit.save(traced, buffer)
    return buffer.getvalue()


def gather_graph() -> bytes:
    """Return the graph that picks rows: ``gather(x, rows) -> y`` on axis 0, for any rank."""
    node = helper.make_node("Gather", ["x", "rows"], ["y"], axis=0)
    rows = helper.make_tensor_value_info("rows", TensorProto.INT64, ["picked"])
    return _weightless("gather", node, [_any_rank("x"), rows])


def concat_graph() -> bytes:
    """Return the graph that joins two batches: ``concat(a, b) -> y`` on axis 0, for any rank."""
    node = helper.make_node("Concat", ["a", "b"], ["y"], axis=0)
    return _weightless("concat", node, [_any_rank("a"), _any_rank("b")])


@contextmanager
def torchscript_deprecation_ignored() -> Iterator[None]:
    """Silence what TorchScript says of itself at every call, and nothing else."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r".*torch\.jit\.", DeprecationWarning)
        yield


@contextmanager
def _exporter_noise_ignored() -> Iterator[None]:
    with warnings.catch_warnings():
        # torch's own use of its own deprecated names.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        # All inputs share one batch axis; that is meant.
        warnings.filterwarnings("ignore", r"# The axis name: batch will not be used", UserWarning)
        yield


def _any_rank(name: str) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def _weightless(name: str, node: onnx.NodeProto, inputs: list[onnx.ValueInfoProto]) -> bytes:
    graph = helper.make_graph([node], name, inputs, [_any_rank("y")])
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    return bytes(model.SerializeToString(deterministic=True))


def _strip(proto: onnx.ModelProto) -> None:
    # The exporter writes stack traces into every node: paths of this machine, and half the bytes
    # of a small graph. What is left depends on the network alone.
    del proto.metadata_props[:]
    graph = proto.graph
    del graph.metadata_props[:]
    for entry in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""


def _check(proto: onnx.ModelProto, input_names: Sequence[str], output_names: Sequence[str]) -> None:
    onnx.checker.check_model(proto)
    got = ([i.name for i in proto.graph.input], [o.name for o in proto.graph.output])
    if got != (list(input_names), list(output_names)):
        raise ExportRefused(f"asked for tensors {input_names} -> {output_names}, exported {got}")
    if any(node.op_type == "BatchNormalization" for node in proto.graph.node):
        raise ExportRefused("a batch norm was not folded into the convolution before it")
