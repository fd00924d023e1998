"""A stand-in for CuPy on machines without a GPU: NumPy underneath, and as strict as CuPy 14 where NumPy is lenient.

`StandIn` takes the place of the module `cupy` in backend.py, so that everything that asks `array_module` meets it. Its
arrays, in device_array.py, go nowhere by themselves: they do not mix with NumPy's, NumPy's functions refuse them and
theirs refuse NumPy's arrays and lists, and only `asnumpy` gets them back. What CuPy lacks it lacks: it knows the names
below and no others. Where CuPy is lenient, as in taking a NumPy array for an index, it is stricter, since that would
copy on the quiet.

It counts: every time the host would have to wait for the GPU to know a value, `waits` goes up by one.
"""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
from device_array import DeviceArray, names, on_device, plain

UFUNCS = names("""
    add subtract multiply divide true_divide negative power maximum minimum exp log sqrt tanh sin cos abs isfinite isnan
    equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not bitwise_and bitwise_or
    bitwise_xor invert matmul logaddexp
""")

# What makes arrays of nothing, and what makes them of one on the device, which is the first argument.
CREATION = names("arange empty full ones tri zeros")
FUNCTIONS = names("""
    argmax argmin argsort broadcast_to cumsum empty_like expand_dims full_like ones_like searchsorted sort sum
    swapaxes take zeros_like
""")

# What makes something whose size depends on values: the host has to wait for it.
WAITING = names("argwhere flatnonzero nonzero unique")

# What takes whole numbers in a row for a shape or for axes, beside CREATION; as data, lists and tuples are refused.
SHAPED = names("all any broadcast_to expand_dims max mean min reduce reshape squeeze sum transpose")


class Ufunc:
    """One of CuPy's ufuncs: of the methods that NumPy's have, it has few."""

    def __init__(self, name, gpu):
        self.name, self.gpu = name, gpu

    def __call__(self, *inputs, out=None, dtype=None):
        options = {} if dtype is None else {"dtype": dtype}
        if out is not None:
            options["out"] = on_device(out)._memory
        result = getattr(np, self.name)(*map(plain, inputs), **options)
        if self.name == "matmul" and result.dtype == np.float32 and self.gpu.tf32 is None:
            self.gpu.tf32 = os.environ.get("CUPY_TF32", "0")
        return DeviceArray(result, self.gpu) if out is None else out

    def reduce(self, array, axis=0, keepdims=False):
        if self.name not in ("add", "multiply"):
            raise NotImplementedError(f"`cupy_{self.name}.reduce` is not supported yet")
        return self.gpu.call(getattr(np, self.name).reduce, on_device(array), axis=axis, keepdims=keepdims)

    def reduceat(self, array, indices, axis=0):
        if self.name != "add":
            raise NotImplementedError(f"`cupy_{self.name}.reduceat` is not supported yet")
        return self.gpu.call(np.add.reduceat, on_device(array), on_device(indices), axis=axis)


class StandIn:
    """What `import cupy` would have brought.

    waits: how often the host had to wait for a value. tf32: what the environment said of it at the first product in
    float32; whatever it says later, for this process that stays.
    """

    ndarray = DeviceArray
    float32, float64, int64, uint8, bool_ = np.float32, np.float64, np.int64, np.uint8, np.bool_
    inf, nan, pi, newaxis, finfo = np.inf, np.nan, np.pi, None, np.finfo

    def __init__(self):
        self.waits, self.tf32 = 0, None
        runtime = SimpleNamespace(driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000)
        runtime.getDeviceCount = lambda: 1
        self.cuda = SimpleNamespace(runtime=runtime)
        for name in UFUNCS:
            setattr(self, name, Ufunc(name, self))
        for name in (*CREATION, *FUNCTIONS):
            setattr(self, name, self._function(name))
        for name in WAITING:
            setattr(self, name, self._waiting(name))

    def call(self, function, *arguments, **options):
        """Run NumPy's function on what lies under arrays of the device; its result is one, even if it is one number."""
        name, out = function.__name__, options.get("out")
        if name == "repeat" and any(isinstance(x, DeviceArray) for x in (*arguments, *options.values())):
            raise TypeError("cupy.repeat takes counts from the host alone: the size of its result depends on them")
        if name == "arange":
            self.waits += any(isinstance(x, DeviceArray) for x in arguments)
        rows = [name in SHAPED or (name in CREATION and i == 0) for i in range(len(arguments))]
        arguments = [x if row and _is_shape(x) else plain(x) for x, row in zip(arguments, rows, strict=True)]
        options = {key: x if key in ("axis", "shape") and _is_shape(x) else plain(x) for key, x in options.items()}
        result = function(*arguments, **options)
        return DeviceArray(result, self) if out is None else out

    def _function(self, name):
        def function(first, *arguments, **options):
            if name not in CREATION:
                on_device(first)
            if options.get("kind") not in (None, "stable"):
                raise ValueError("kind can only be None or 'stable'")
            return self.call(getattr(np, name), first, *arguments, **options)

        return function

    def concatenate(self, arrays, axis=0):
        return DeviceArray(np.concatenate([on_device(x)._memory for x in arrays], axis), self)

    def stack(self, arrays, axis=0):
        return DeviceArray(np.stack([on_device(x)._memory for x in arrays], axis), self)

    def copyto(self, to, x, where):
        np.copyto(on_device(to)._memory, plain(x), where=on_device(where)._memory)

    def take_along_axis(self, x, indices, axis):
        """Indices wrap around here too."""
        if indices.dtype.kind not in "iu":
            raise IndexError("`indices` must be an integer array")
        plain = on_device(indices)._memory % x.shape[axis]
        return DeviceArray(np.take_along_axis(on_device(x)._memory, plain, axis), self)

    def _waiting(self, name):
        def function(x):
            self.waits += 1
            found = getattr(np, name)(on_device(x)._memory)
            return tuple(DeviceArray(f, self) for f in found) if isinstance(found, tuple) else DeviceArray(found, self)

        return function

    def where(self, condition, *branches):
        """Without branches it is `nonzero`, which waits."""
        return self.call(np.where, on_device(condition), *branches) if branches else self.nonzero(condition)

    def argpartition(self, x, kth, axis=-1):
        """It sorts altogether."""
        return self.call(np.argsort, on_device(x), axis=axis, kind="stable")

    def asarray(self, x, dtype=None):
        """Copy from the host; this is no waiting."""
        if isinstance(x, DeviceArray):
            return x if dtype in (None, x.dtype) else x.astype(dtype)
        return DeviceArray(np.array(x, dtype=dtype), self)

    def asnumpy(self, x):
        return x.get() if isinstance(x, DeviceArray) else np.asarray(x)

    def get_array_module(self, *arrays):
        return self if any(isinstance(x, DeviceArray) for x in arrays) else np


def _is_shape(x):
    """Return whether `x` may be a shape, or axes: whole numbers in a row."""
    return isinstance(x, tuple | list) and all(isinstance(i, int) for i in x)
