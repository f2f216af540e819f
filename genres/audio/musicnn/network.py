"""MSD_musicnn as an ONNX graph, from the variables of its published checkpoint.

Only the network belongs here; what goes in and how its answers are named is in the module `kernel`. It is the network
of Pons and Serra [1]_: batch normalisation of the log-mel bands; in front two *timbral* convolutions (7 frames by .4
and .7 of the bands) and three *temporal* ones (128, 64 and 32 frames of one band), of each the maximum over the bands;
in the middle three convolutions of 7 frames, two of them with residuals; at the back the maxima and means over time of
all their channels, a dense layer of 200, the *penultimate*, and one of 50 tags. All but the last are followed by ReLU,
then batch normalisation. `reference`, beside this module, computes the same as it stands in the paper.

What is done differently
------------------------
- **Dead filters are left out.** Weight decay has brought 497 of the 561 filters in front down to nothing: of a dead one
  the weights' magnitudes add up to 2e-5 at most, of a live one to .05 at least. A dead filter answers the same whatever
  is heard, and that constant goes into the layers that read it. A tenth of the work is left.
- **The maximum comes before ReLU and normalisation**, which do not change where it is. Where the normalisation's factor
  is negative it is the minimum that counts, so these filters change their sign.
- **Several frames at once.** A runtime computes 16 filters (on some machines 8) in the time of one. In a layer with too
  few to fill that, each filter is there several times, a frame later each time, and the layer takes as many frames a
  step.

References
----------
.. [1] J. Pons and X. Serra, "musicnn: pre-trained convolutional neural networks for music audio tagging",
   Late-Breaking/Demo of ISMIR, 2019, https://arxiv.org/abs/1909.06654
"""

from collections.abc import Mapping, Sequence
from math import fsum
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

BANDS, FRAMES = 96, 187
"""Mel bands, and frames of a patch: 3 s."""
DEAD = 1e-4
"""A filter is dead if its weights' magnitudes add up to less. Normalised bands stay between -4 and 4."""
_FRONT, _MIDDLE = range(5), range(5, 8)
"""The convolutions by the numbers of their variables."""
_PHASES = (2, 1, 4, 2, 3)
"""How many frames at once each convolution in front takes."""
_OPSET, _IR_VERSION = 18, 9
"""Those of ONNX 1.14: runtimes since 2023 read them."""
_VARIANCE_FLOOR = 1e-3
"""What TensorFlow's batch normalisation adds to a variance."""


def onnx_network(variables: Mapping[str, np.ndarray]) -> bytes:
    """Build the network.

    Sums do not depend on the order of their terms, so the same variables give the same bytes on every machine.

    Parameters
    ----------
    variables : mapping of str to np.ndarray
        By TensorFlow's names; kernels of shape (frames, bands, channels, filters).

    Returns
    -------
    bytes
        An ONNX model from ``mel``, float32 of shape (1, 1, 187, 96), to ``tags`` of shape (1, 50) and ``penultimate``
        of shape (1, 200).
    """
    graph = _Graph()
    mel = graph.normalised("mel", *_normalisation(variables, 0))
    front = [_front(graph, mel, _convolution(variables, number), phases=_PHASES[number]) for number in _FRONT]
    live = np.concatenate([layer.live for layer in front])
    constants = np.concatenate([layer.constants for layer in front])[~live]
    channels = [layer.output for layer in front]
    channels += _middle(graph, channels, [_convolution(variables, number) for number in _MIDDLE], live, constants)
    _back(graph, channels, variables, live, constants)
    return graph.model()


class _Convolution(NamedTuple):
    """A convolution, and the normalisation that follows its ReLU."""

    kernel: np.ndarray
    bias: np.ndarray
    scale: np.ndarray
    shift: np.ndarray


def _convolution(variables: Mapping[str, np.ndarray], number: int) -> _Convolution:
    name = "conv2d" + (f"_{number}" if number else "")
    kernel, bias = (variables[f"{name}/{part}"].astype(np.float64) for part in ("kernel", "bias"))
    return _Convolution(kernel, bias, *_normalisation(variables, number + 1))


def _normalisation(variables: Mapping[str, np.ndarray], number: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the factor and the summand that a batch normalisation is once it is trained."""
    name = "batch_normalization" + (f"_{number}" if number else "")
    gamma, beta, mean, variance = (
        variables[f"{name}/{part}"].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_variance")
    )
    scale = gamma / np.sqrt(variance + _VARIANCE_FLOOR)
    return scale, beta - scale * mean


class _Front(NamedTuple):
    """A layer in front."""

    output: str
    """Of the live filters, with shape (1, filters, 187)."""
    live: np.ndarray
    """Which of all filters these are."""
    constants: np.ndarray
    """What each filter would answer if it were dead."""


def _front(graph: "_Graph", mel: str, layer: _Convolution, *, phases: int) -> _Front:
    live = np.abs(layer.kernel).sum(axis=(0, 1, 2)) > DEAD
    constants = layer.scale * np.maximum(layer.bias, 0) + layer.shift
    sign, scale, shift = (
        values[live, np.newaxis] for values in (np.where(layer.scale < 0, -1.0, 1.0), layer.scale, layer.shift)
    )
    kernel = sign[:, :, np.newaxis, np.newaxis] * layer.kernel[..., live].transpose(3, 2, 0, 1)
    filters, _, frames, bands = kernel.shape
    steps = -(-FRAMES // phases)
    shifted = np.zeros((filters, phases, frames + phases - 1, bands))
    for phase in range(phases):
        shifted[:, phase, phase : phase + frames] = kernel[:, 0]
    ahead = (frames - 1) // 2
    answers = graph.add(
        "Conv",
        mel,
        graph.constant(shifted.reshape(filters * phases, 1, -1, bands)),
        graph.constant(np.repeat(sign[:, 0] * layer.bias[live], phases)),
        strides=[phases, 1],
        pads=[ahead, 0, steps * phases + frames - 1 - FRAMES - ahead, 0],
    )
    highest = graph.add("ReduceMax", answers, graph.constant(np.array([3])), keepdims=0)
    by_phase = graph.add("Reshape", highest, graph.constant(np.array([filters, phases, steps])))
    by_frame = graph.add(
        "Reshape", graph.add("Transpose", by_phase, perm=[0, 2, 1]), graph.constant(np.array([1, filters, -1]))
    )
    start, end, axis = (graph.constant(np.array([at])) for at in (0, FRAMES, 2))
    by_frame = graph.add("Slice", by_frame, start, end, axis)
    activated = graph.add("Relu", graph.add("Mul", by_frame, graph.constant(sign)))
    return _Front(graph.normalised(activated, scale, shift), live, constants)


def _middle(
    graph: "_Graph", front: Sequence[str], layers: Sequence[_Convolution], live: np.ndarray, constants: np.ndarray
) -> list[str]:
    """Add the layers in the middle, and return their outputs, of shape (1, filters, 187)."""
    # What the dead filters answer is read as one channel of ones. It is no constant: beyond the patch there are zeros.
    below = graph.add("Concat", *front, graph.constant(np.ones((1, 1, FRAMES))), axis=1)
    outputs: list[str] = []
    for layer in layers:
        # The bands of these kernels are channels.
        kernel = layer.kernel[:, :, 0]
        if not outputs:
            given = _sums(kernel[:, ~live] * constants[:, np.newaxis], axis=1)
            kernel = np.concatenate([kernel[:, live], given], axis=1)
        weights, bias = graph.constant(kernel.transpose(2, 1, 0)), graph.constant(layer.bias)
        activated = graph.add("Relu", graph.add("Conv", below, weights, bias, pads=[3, 3]))
        answers = graph.normalised(activated, layer.scale[:, np.newaxis], layer.shift[:, np.newaxis])
        below = graph.add("Add", answers, below) if outputs else answers
        outputs.append(below)
    return outputs


def _back(
    graph: "_Graph",
    channels: Sequence[str],
    variables: Mapping[str, np.ndarray],
    live: np.ndarray,
    constants: np.ndarray,
) -> None:
    """Add the pooling over time, the dense layers and the two outputs."""
    channel, time = graph.add("Concat", *channels, axis=1), graph.constant(np.array([2]))
    pooled = [graph.add(pool, channel, time, keepdims=0) for pool in ("ReduceMax", "ReduceMean")]

    # The checkpoint has the maximum and the mean of a channel side by side; a constant is both of its own.
    scale, shift = (values.reshape(-1, 2, 1) for values in _normalisation(variables, 9))
    kernel, bias = (variables[f"dense/{part}"].astype(np.float64) for part in ("kernel", "bias"))
    kernel = kernel.reshape(len(scale), 2, -1)
    live = np.pad(live, (0, len(kernel) - len(live)), constant_values=True)
    given = shift * kernel
    given[~live] += constants[:, np.newaxis, np.newaxis] * (scale * kernel)[~live]
    read = np.concatenate((scale * kernel)[live].transpose(1, 0, 2))
    (bias,) = _sums(np.concatenate([bias[np.newaxis], *given]), axis=0)

    dense = graph.add("Gemm", graph.add("Concat", *pooled, axis=1), graph.constant(read), graph.constant(bias))
    penultimate = graph.normalised(graph.add("Relu", dense), *_normalisation(variables, 10), output="penultimate")
    last = (graph.constant(variables[f"dense_1/{part}"]) for part in ("kernel", "bias"))
    graph.add("Sigmoid", graph.add("Gemm", penultimate, *last), output="tags")


def _sums(values: np.ndarray, axis: int) -> np.ndarray:
    """Return exact sums, rounded once, along an axis, which stays."""
    return np.apply_along_axis(lambda terms: [fsum(terms)], axis, values)


class _Graph:
    """An ONNX graph that grows."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def constant(self, values: np.ndarray) -> str:
        """Add a constant, in single precision if it is no integer, and return its name."""
        name = f"constant_{len(self._constants)}"
        kind = np.int64 if values.dtype.kind == "i" else np.float32
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(values, kind), name))
        return name

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        output = output or f"{operator.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def normalised(self, values: str, scale: np.ndarray, shift: np.ndarray, output: str = "") -> str:
        """Add a multiplication and an addition."""
        return self.add("Add", self.add("Mul", values, self.constant(scale)), self.constant(shift), output=output)

    def model(self) -> bytes:
        """Return the model, after ONNX has checked it."""
        shapes = {"mel": [1, 1, FRAMES, BANDS], "tags": [1, 50], "penultimate": [1, 200]}
        mel, *outputs = (
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()
        )
        graph = helper.make_graph(self._nodes, "MSD_musicnn", [mel], outputs, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)
