"""A stand-in for torchsde.BrownianInterval, which diffusers' DPMSolverSDEScheduler draws its noise from.

Only what that scheduler uses: halfway_tree=True, no Levy area, increments W(tb) - W(ta). Seeds of the pieces come from
numpy's SeedSequence with the piece's place in the tree as spawn key, as in torchsde.
"""

import math
import sys
import types

import numpy as np
import torch


class BrownianInterval:
    def __init__(self, t0, t1, size, dtype, device, entropy, tol, pool_size, halfway_tree):
        assert halfway_tree
        self.digits = -int(math.log10(tol))
        self.size, self.dtype, self.device = size, dtype, device
        self.entropy, self.pool_size = entropy, pool_size
        self.start, self.end = self.round(float(t0)), self.round(float(t1))
        self.total = self.randn() * math.sqrt(float(t1) - float(t0))

    def round(self, time):
        return round(time, self.digits)

    def randn(self, *spawn_key):
        sequence = np.random.SeedSequence(self.entropy, spawn_key=spawn_key, pool_size=self.pool_size)
        generator = torch.Generator(self.device).manual_seed(int(sequence.generate_state(1)[0]))
        return torch.randn(self.size, dtype=self.dtype, device=self.device, generator=generator)

    def __call__(self, ta, tb):
        ta = self.round(min(max(float(ta), self.start), self.end))
        tb = self.round(min(max(float(tb), self.start), self.end))
        if ta == tb:
            return torch.zeros(self.size, dtype=self.dtype, device=self.device)
        pieces = []
        self.collect(self.start, self.end, 0, 0, self.total, ta, tb, pieces)
        return sum(pieces[1:], pieces[0])

    def collect(self, start, end, key, depth, increment, ta, tb, pieces):
        if (ta, tb) == (start, end):
            pieces.append(increment)
            return
        middle = self.round(0.5 * (end + start))
        reciprocal = 1 / (end - start)
        before, after = middle - start, end - middle
        deviation = math.sqrt(before * after * reciprocal)
        first = before * increment * reciprocal + deviation * self.randn(key, depth)
        if ta < middle:
            self.collect(start, middle, 2 * key, depth + 1, first, ta, min(tb, middle), pieces)
        if tb > middle:
            self.collect(middle, end, 2 * key + 1, depth + 1, increment - first, max(ta, middle), tb, pieces)


def install():
    """Makes `import torchsde` find this class, unless torchsde itself is there."""
    try:
        import torchsde  # noqa: F401
    except ImportError:
        module = types.ModuleType("torchsde")
        module.BrownianInterval = BrownianInterval
        sys.modules["torchsde"] = module
