"""Where ONNX Runtime's tensors lie: in arrays, or on a device that Python cannot index."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.backends.devices import Device
from service.backends.host_rows import HostArray, pick
from service.backends.selection import Selection

DeviceValue: TypeAlias = onnxruntime.OrtValue
Session: TypeAlias = onnxruntime.InferenceSession


class HostFeatures:
    """Arrays, as NumPy has them."""

    def put(self, array: HostArray) -> HostArray:
        """Return the array itself."""
        return array

    def fetch(self, tensor: HostArray) -> HostArray:
        """Return the array itself."""
        return tensor

    def pick(self, tensors: Sequence[HostArray], selections: Sequence[Selection]) -> HostArray:
        """Return the selected rows; see `TensorStore.pick`."""
        return pick(tensors, selections)

    def graph(
        self, session: Session, inputs: Sequence[str], outputs: Sequence[str]
    ) -> Callable[[Sequence[HostArray]], tuple[HostArray, ...]]:
        """Return a session as a function of arrays, in the order of the names."""
        asked = list(outputs)

        def run(tensors: Sequence[HostArray]) -> tuple[HostArray, ...]:
            return tuple(session.run(asked, dict(zip(inputs, tensors, strict=True))))

        return run


class DeviceFeatures:
    """Values in a device's memory; rows are picked and joined there, by the bundle's own graphs.

    Args:
        device: Where the values lie. The CPU will do: it takes the same path.
        gather: Session of the graph that picks rows.
        concat: Session of the graph that joins two batches.
    """

    def __init__(self, device: Device, *, gather: Session, concat: Session) -> None:
        self._device = device
        self._gather = self.graph(gather, ["x", "rows"], ["y"])
        self._concat = self.graph(concat, ["a", "b"], ["y"])

    def put(self, array: HostArray) -> DeviceValue:
        """Copy an array to the device."""
        return self._value(array)

    def fetch(self, tensor: DeviceValue) -> HostArray:
        """Copy a value from the device."""
        array: HostArray = tensor.numpy()
        return array

    def pick(self, tensors: Sequence[DeviceValue], selections: Sequence[Selection]) -> DeviceValue:
        """Return the selected rows; see `TensorStore.pick`."""
        values = [
            tensor if selection.is_whole else self._gathered(tensor, selection)
            for tensor, selection in zip(tensors, selections, strict=True)
            if selection.rows
        ]
        # Neighbours first, then what came of them: n parts are copied log2 n times, not n times.
        while len(values) > 1:
            pairs = [values[i : i + 2] for i in range(0, len(values), 2)]
            values = [self._concat(pair)[0] if pair[1:] else pair[0] for pair in pairs]
        return values[0]

    def graph(
        self, session: Session, inputs: Sequence[str], outputs: Sequence[str]
    ) -> Callable[[Sequence[DeviceValue]], tuple[DeviceValue, ...]]:
        """Return a session as a function of values that leave and enter no device."""
        kind, index = self._device.kind, self._device.index

        def run(tensors: Sequence[DeviceValue]) -> tuple[DeviceValue, ...]:
            binding = session.io_binding()
            for name, tensor in zip(inputs, tensors, strict=True):
                binding.bind_ortvalue_input(name, tensor)
            for name in outputs:
                binding.bind_output(name, kind, index)
            session.run_with_iobinding(binding)
            return tuple(binding.get_outputs())

        return run

    def _gathered(self, tensor: DeviceValue, selection: Selection) -> DeviceValue:
        rows = self._value(selection.indices)
        return self._gather([tensor, rows])[0]

    def _value(self, array: NDArray[np.float32] | NDArray[np.int64]) -> DeviceValue:
        return onnxruntime.OrtValue.ortvalue_from_numpy(
            array, self._device.kind, self._device.index
        )
