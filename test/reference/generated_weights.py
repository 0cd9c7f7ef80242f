"""Weights that a test can make again without a file: each tensor comes from torch's generator, seeded with its name.

`test/support/generated_weights.ts` gives the same numbers.
"""

import hashlib, math, zlib
import torch


def generated(name, shape):
    """Matrices and kernels of variance 1 / fan in, scales of normalisations near 1, biases near 0."""
    x = torch.randn(tuple(shape), generator=torch.Generator("cpu").manual_seed(zlib.crc32(name.encode())))
    if len(shape) > 1:
        return x * (1 / math.sqrt(math.prod(shape[1:])))
    return 1 + x * 0.1 if name.endswith("weight") else x * 0.1


def fill(model):
    """Gives every tensor of a model its generated numbers; returns a digest of the tensors' names and shapes."""
    state = {k: v for k, v in model.state_dict().items() if v.is_floating_point()}
    model.load_state_dict({k: generated(k, v.shape) for k, v in state.items()}, strict=False)
    lines = sorted(f"{k} {list(v.shape)}".replace(" ", "") for k, v in state.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def randn(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator("cpu").manual_seed(seed))
