"""What torch.Generator("cpu") gives beyond randn: its state bytes, negative and 64-bit seeds, wide integers.

    pip install torch safetensors
    python torch_generator_cases.py OUT.safetensors

Tensors are named "SEED/WHAT", in the order in which they are drawn from one generator.
"""

import sys

import torch
from safetensors.torch import save_file

out = {}
for seed in (0, -1, 2**63 + 11):
    g = torch.Generator("cpu").manual_seed(seed)
    out[f"{seed}/first"] = torch.randn(3, generator=g)
    out[f"{seed}/state"] = g.get_state()
    out[f"{seed}/randn"] = torch.randn(2, generator=g)
    out[f"{seed}/wide"] = torch.randint(-5, 2**28 + 7, (20,), generator=g, dtype=torch.int32)
    out[f"{seed}/narrow"] = torch.randint(-(2**27), 2**27 - 1, (20,), generator=g, dtype=torch.int32)
    out[f"{seed}/all"] = torch.randint(-(2**31), 2**31, (20,), generator=g, dtype=torch.int64).int()
    out[f"{seed}/rand"] = torch.rand(700, generator=g)
    out[f"{seed}/long"] = torch.randn(1009, generator=g)
save_file(out, sys.argv[1], metadata={"torch": torch.__version__})
