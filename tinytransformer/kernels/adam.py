"""The step of Adam."""

from __future__ import annotations

from typing import Any

from tinytransformer.backend import array_module
from tinytransformer.kernels.launch import launch_elements


def move(optimizer: Any, start: int, stop: int, numbers: Any) -> None:
    """`Adam.move`; where `numbers.sound` is False gradients are zeroed, and nothing else is done."""
    xp, flat = array_module(optimizer.m), optimizer.parameters
    arrays = [x[start:stop] for x in (flat.data, flat.grad, optimizer.m, optimizer.v)]
    take_m = xp.asarray(numbers.take_m, dtype=optimizer.m.dtype)
    sound = xp.ones((), bool) if numbers.sound is None else numbers.sound
    decayed = 0 if numbers.fade is None else max(0, flat.decayed - start)
    fade = 1.0 if numbers.fade is None else numbers.fade
    factors = (numbers.fade_m, numbers.take_v, numbers.fade_v, numbers.rate, numbers.eps, fade)
    counts = (stop - start, decayed)
    launch_elements("adam", -(-(stop - start) // 4), optimizer.m, *arrays, take_m, sound, *counts, *map(float, factors))
