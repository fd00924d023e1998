"""The arrays of the stand-in for CuPy, as strict as CuPy's where NumPy is lenient; see stand_in.py."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def names(text):
    """Return the words of a text."""
    return text.split()


METHODS = names("""
    all any argmax argmin astype copy cumsum max mean min ravel repeat reshape squeeze sum swapaxes take transpose view
""")

OPERATORS = {
    **{"add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "pow": "power"},
    **{"and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor"},
}
COMPARISONS = {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
}


class DeviceArray:
    """An array on the GPU that there is not. What is not defined here, no one can ask of it."""

    __slots__ = ("_gpu", "_memory")
    __array_ufunc__ = None  # so that NumPy's arrays leave the operators to this class, which refuses them
    __hash__ = None

    def __init__(self, memory, gpu):
        self._memory, self._gpu = np.asarray(memory), gpu

    def __array__(self, *_arguments, **_options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed; use asnumpy")

    def __array_function__(self, function, *_):
        raise TypeError(f"numpy.{function.__name__} was called with an array of the device")

    shape = property(lambda self: self._memory.shape)
    ndim = property(lambda self: self._memory.ndim)
    size = property(lambda self: self._memory.size)
    nbytes = property(lambda self: self._memory.nbytes)
    dtype = property(lambda self: self._memory.dtype)
    itemsize = property(lambda self: self._memory.itemsize)
    strides = property(lambda self: self._memory.strides)
    data = property(lambda self: SimpleNamespace(ptr=self._memory.ctypes.data))
    T = property(lambda self: DeviceArray(self._memory.T, self._gpu))

    @property
    def flags(self):
        """CuPy's flags know nothing of writeable."""
        return SimpleNamespace(
            c_contiguous=self._memory.flags.c_contiguous, f_contiguous=self._memory.flags.f_contiguous
        )

    def __len__(self):
        return len(self._memory)

    def __getitem__(self, key):
        key = _plain_key(key, self)
        return DeviceArray(self._memory[key], self._gpu)

    def __setitem__(self, key, value):
        key, value = _plain_key(key, self), plain(value)
        self._memory[key] = value
        now = self._memory[key]
        if not np.array_equal(now, np.broadcast_to(value, now.shape).astype(self.dtype), equal_nan=True):
            raise TypeError("an index is repeated with different values: on a GPU it is undefined which one stays")

    def fill(self, value):
        self._memory.fill(plain(value))

    def get(self):
        return self._wait().copy()

    def item(self):
        return self._wait().item()

    def tolist(self):
        return self._wait().tolist()

    def _wait(self):
        self._gpu.waits += 1
        return self._memory

    def __float__(self):
        return float(self._wait()[()])

    def __int__(self):
        return int(self._wait()[()])

    def __bool__(self):
        return bool(self._wait())

    def __repr__(self):
        return f"DeviceArray({self._wait()!r})"


def plain(value):
    """Return what NumPy underneath may be given for `value`. Raises: TypeError for what CuPy does not take."""
    if isinstance(value, DeviceArray):
        return value._memory
    if isinstance(value, np.ndarray | list | tuple):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _plain_key(key, array):
    """Return an index for NumPy. Integer arrays wrap around in silence, boolean ones are waited for."""
    key = key if isinstance(key, tuple) else (key,)
    parts = []
    for i, part in enumerate(key):
        if isinstance(part, list | np.ndarray):
            raise TypeError(f"an index on the host would be copied to the device: {type(part)}")
        below = plain(part)
        if _is_mask(part):
            array._gpu.waits += 1
        elif isinstance(part, DeviceArray):
            below = below % max(array.shape[_axis(key, i, array.ndim)], 1)
        parts.append(below)
    return tuple(parts)


def _is_mask(part):
    return isinstance(part, DeviceArray) and part.dtype == bool


def _axis(key, i, ndim):
    """Return which axis part i of an index stands for: behind "..." they are counted from the end."""

    def count(parts):
        return sum(part.ndim if _is_mask(part) else part is not None for part in parts)

    return ndim - count(key[i:]) if any(part is ... for part in key[:i]) else count(key[:i])


def _operator(name):
    return lambda self, other: getattr(self._gpu, name)(self, other)


def _reversed(name):
    return lambda self, other: getattr(self._gpu, name)(other, self)


def _in_place(name):
    return lambda self, other: getattr(self._gpu, name)(self, other, out=self)


def _method(name):
    def method(self, *arguments, **options):
        if "initial" in options or "where" in options:
            raise TypeError(f"{name}() got an unexpected keyword argument: CuPy has neither initial nor where")
        function = getattr(self._memory, name)
        return self._gpu.call(function, *arguments, **options)

    return method


for short, name in OPERATORS.items():
    setattr(DeviceArray, f"__{short}__", _operator(name))
    setattr(DeviceArray, f"__r{short}__", _reversed(name))
    setattr(DeviceArray, f"__i{short}__", _in_place(name))
for short, name in COMPARISONS.items():
    setattr(DeviceArray, f"__{short}__", _operator(name))
for name in METHODS:
    setattr(DeviceArray, name, _method(name))
DeviceArray.__matmul__, DeviceArray.__rmatmul__ = _operator("matmul"), _reversed("matmul")
DeviceArray.__neg__ = lambda self: self._gpu.negative(self)
DeviceArray.__invert__ = lambda self: self._gpu.invert(self)


def on_device(x):
    if not isinstance(x, DeviceArray):
        raise TypeError(f"expected an array of the device, got {type(x)}")
    return x
