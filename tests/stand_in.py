"""A stand-in for CuPy on machines without a GPU: NumPy underneath, and as strict as CuPy 14 where NumPy is lenient.

`StandIn` takes the place of the module `cupy` in backend.py, so that everything that asks `array_module` meets it. Its
arrays go nowhere by themselves: they do not mix with NumPy's, NumPy's functions refuse them and theirs refuse NumPy's
arrays and lists, and only `asnumpy` gets them back. What CuPy lacks it lacks: it knows the names below and no others.
Where CuPy is lenient, as in taking a NumPy array for an index, it is stricter, since that would copy on the quiet.

It counts: every time the host would have to wait for the GPU to know a value, `waits` goes up by one.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np


def _names(text):
    return text.split()


UFUNCS = _names("""
    add subtract multiply divide true_divide negative power maximum minimum exp log sqrt tanh sin cos abs isfinite isnan
    equal not_equal less less_equal greater greater_equal logical_and logical_or logical_not bitwise_and bitwise_or
    bitwise_xor invert matmul
""")

# What makes arrays of nothing, and what makes them of one on the device, which is the first argument.
CREATION = _names("arange empty full ones tri zeros")
FUNCTIONS = _names("""
    argmax argmin argsort broadcast_to cumsum einsum empty_like expand_dims full_like ones_like searchsorted sort sum
    swapaxes take zeros_like
""")

# What makes something whose size depends on values: the host has to wait for it.
WAITING = _names("argwhere flatnonzero nonzero unique")

METHODS = _names("""
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
        key, value = _plain_key(key, self, writing=True), _plain(value)
        self._memory[key] = value
        now = self._memory[key]
        if not np.array_equal(now, np.broadcast_to(value, now.shape).astype(self.dtype), equal_nan=True):
            raise TypeError("an index is repeated with different values: on a GPU it is undefined which one stays")

    def fill(self, value):
        self._memory.fill(_plain(value))

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


def _plain(value):
    """Return what NumPy underneath may be given for `value`. Raises: TypeError for what CuPy does not take."""
    if isinstance(value, DeviceArray):
        return value._memory
    if isinstance(value, np.ndarray | list | tuple):
        raise TypeError(f"Unsupported type {type(value)}")
    return value


def _plain_key(key, array, writing=False):
    """Return an index for NumPy. Integer arrays wrap around in silence, boolean ones are waited for."""
    parts = []
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, list | np.ndarray):
            raise TypeError(f"an index on the host would be copied to the device: {type(part)}")
        plain = _plain(part)
        if isinstance(part, DeviceArray) and plain.dtype == bool:
            array._gpu.waits += not writing
        elif isinstance(part, DeviceArray):
            axis = sum(p is not None for p in parts)  # each part before it stands for one axis; "..." is not used so
            plain = plain % max(array.shape[axis], 1)
        parts.append(plain)
    return tuple(parts)


def _operator(name):
    return lambda self, other: getattr(self._gpu, name)(self, other)


def _reversed(name):
    return lambda self, other: getattr(self._gpu, name)(other, self)


def _in_place(name):
    return lambda self, other: getattr(self._gpu, name)(self, other, out=self)


def _method(name):
    def method(self, *arguments, **options):
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


class Ufunc:
    """One of CuPy's ufuncs: of the methods that NumPy's have, it has few."""

    def __init__(self, name, gpu):
        self.name, self.gpu = name, gpu

    def __call__(self, *inputs, out=None, dtype=None):
        options = {} if dtype is None else {"dtype": dtype}
        if out is not None:
            options["out"] = _device(out)._memory
        result = getattr(np, self.name)(*map(_plain, inputs), **options)
        return DeviceArray(result, self.gpu) if out is None else out

    def reduce(self, array, axis=0, keepdims=False):
        if self.name not in ("add", "multiply"):
            raise NotImplementedError(f"`cupy_{self.name}.reduce` is not supported yet")
        return self.gpu.call(getattr(np, self.name).reduce, _device(array), axis=axis, keepdims=keepdims)

    def reduceat(self, array, indices, axis=0):
        if self.name != "add":
            raise NotImplementedError(f"`cupy_{self.name}.reduceat` is not supported yet")
        return self.gpu.call(np.add.reduceat, _device(array), _device(indices), axis=axis)


def _device(x):
    if not isinstance(x, DeviceArray):
        raise TypeError(f"expected an array of the device, got {type(x)}")
    return x


class StandIn:
    """What `import cupy` would have brought. waits: how often the host had to wait for a value."""

    ndarray = DeviceArray
    float32, float64, int64, uint8, bool_ = np.float32, np.float64, np.int64, np.uint8, np.bool_
    inf, nan, pi, newaxis, finfo = np.inf, np.nan, np.pi, None, np.finfo

    def __init__(self):
        self.waits = 0
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
        out = options.get("out")
        options = {name: x if _is_shape(x) else _plain(x) for name, x in options.items()}
        result = function(*(x if _is_shape(x) else _plain(x) for x in arguments), **options)
        return DeviceArray(result, self) if out is None else out

    def _function(self, name):
        def function(first, *arguments, **options):
            if name not in ("einsum", *CREATION):
                _device(first)
            if options.get("kind") not in (None, "stable"):
                raise ValueError("kind can only be None or 'stable'")
            return self.call(getattr(np, name), first, *arguments, **options)

        return function

    def concatenate(self, arrays, axis=0):
        return DeviceArray(np.concatenate([_device(x)._memory for x in arrays], axis), self)

    def stack(self, arrays, axis=0):
        return DeviceArray(np.stack([_device(x)._memory for x in arrays], axis), self)

    def copyto(self, to, x, where):
        np.copyto(_device(to)._memory, _plain(x), where=_device(where)._memory)

    def take_along_axis(self, x, indices, axis):
        """Indices wrap around here too."""
        if indices.dtype.kind not in "iu":
            raise IndexError("`indices` must be an integer array")
        plain = _device(indices)._memory % x.shape[axis]
        return DeviceArray(np.take_along_axis(_device(x)._memory, plain, axis), self)

    def _waiting(self, name):
        def function(x):
            self.waits += 1
            found = getattr(np, name)(_device(x)._memory)
            return tuple(DeviceArray(f, self) for f in found) if isinstance(found, tuple) else DeviceArray(found, self)

        return function

    def where(self, condition, *branches):
        """Without branches it is `nonzero`, which waits."""
        return self.call(np.where, _device(condition), *branches) if branches else self.nonzero(condition)

    def argpartition(self, x, kth, axis=-1):
        """It sorts altogether."""
        return self.call(np.argsort, _device(x), axis=axis, kind="stable")

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
