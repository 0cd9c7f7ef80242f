"""Reference numbers for the fused ops, with gradients: python fused_ops_cases.py OUT.safetensors

Every case has inputs `CASE/in/NAME`, the output `CASE/out`, its gradient `CASE/dy` and the inputs' gradients
`CASE/grad/NAME`, all in the layout of this library (N,H,W,C; linear weights [in, out]; filters [kh,kw,in,out]). The metadata
field `cases` lists each case with its op and options.
"""

import json, sys
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_timestep_embedding
from safetensors.torch import save_file

torch.manual_seed(0)
tensors, cases = {}, []


def add(name, op, options, inputs, f):
    leaves = {key: value.clone().requires_grad_(True) for key, value in inputs.items()}
    out = f(leaves)
    dy = torch.randn_like(out)
    grads = torch.autograd.grad(out, list(leaves.values()), dy)
    for key, value in inputs.items():
        tensors[f"{name}/in/{key}"] = value.contiguous()
    for key, value in zip(leaves, grads):
        tensors[f"{name}/grad/{key}"] = value.clone(memory_format=torch.contiguous_format)
    tensors[f"{name}/out"] = out.detach().contiguous()
    tensors[f"{name}/dy"] = dy.contiguous()
    cases.append({"name": name, "op": op, "options": options})


def activate(x, name):
    if name == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return {"linear": lambda y: y, "silu": F.silu, "gelu": F.gelu}[name](x)


def linear(t, activation):
    y = t["x"] @ t["weight"]
    if "bias" in t:
        y = y + t["bias"]
    if activation == "geglu":
        hidden, gate = y.chunk(2, dim=-1)
        y = hidden * F.gelu(gate)
    else:
        y = activate(y, activation)
    return y + t["residual"] if "residual" in t else y


for i, (shape, n, activation, bias, residual) in enumerate(
    [
        ((1, 5), 7, "linear", False, False),
        ((3, 11, 9), 13, "linear", True, True),
        ((2, 7, 6), 10, "geglu", True, False),
        ((3, 5, 3, 8), 6, "geglu", False, True),
        ((2, 17), 5, "silu", True, True),
        ((1, 9, 4), 3, "gelu", True, False),
        ((4, 3), 15, "quick_gelu", True, True),
    ]
):
    inputs = {"x": torch.randn(shape), "weight": torch.randn(shape[-1], n) * 0.6}
    if bias:
        inputs["bias"] = torch.randn(n)
    if residual:
        inputs["residual"] = torch.randn(*shape[:-1], n // 2 if activation == "geglu" else n)
    add(f"linear{i}", "linear", {"activation": activation}, inputs, lambda t: linear(t, activation))


def conv2d(t, o):
    x = t["x"].permute(0, 3, 1, 2)
    if o.get("upsample") == 2:
        x = F.interpolate(x, scale_factor=2.0, mode="nearest")
    padding = o.get("padding", 0)
    if isinstance(padding, int):
        padding = [[padding, padding], [padding, padding]]
    (top, bottom), (left, right) = padding
    y = F.conv2d(
        F.pad(x, (left, right, top, bottom)), t["filter"].permute(3, 2, 0, 1), t.get("bias"), stride=o.get("stride", 1)
    )
    if "timeEmbedding" in t:
        y = y + t["timeEmbedding"][:, :, None, None]
    y = activate(y, o.get("activation", "linear")).permute(0, 2, 3, 1)
    return y + t["residual"] if "residual" in t else y


for i, (shape, kernel, n, extras, options) in enumerate(
    [
        ((1, 5, 7, 3), 3, 4, [], {"padding": 1}),
        ((3, 9, 6, 5), 3, 7, ["bias", "residual"], {"padding": 1}),
        ((2, 7, 5, 4), 3, 6, ["bias", "timeEmbedding"], {"padding": 1, "activation": "silu"}),
        ((1, 8, 7, 6), 3, 5, ["bias"], {"padding": 1, "stride": 2}),
        ((2, 9, 8, 3), 3, 4, ["bias"], {"padding": [[0, 1], [0, 1]], "stride": 2}),
        ((3, 4, 5, 9), 1, 11, ["bias", "residual"], {}),
        ((1, 3, 5, 4), 3, 6, ["bias"], {"padding": 1, "upsample": 2}),
        (
            (2, 5, 3, 2),
            3,
            3,
            ["bias", "timeEmbedding", "residual"],
            {"padding": 1, "upsample": 2, "activation": "silu"},
        ),
        ((1, 1, 1, 8), 3, 2, ["bias"], {"padding": 1}),
    ]
):
    inputs = {"x": torch.randn(shape), "filter": torch.randn(kernel, kernel, shape[3], n) * 0.3}
    if "bias" in extras:
        inputs["bias"] = torch.randn(n)
    if "timeEmbedding" in extras:
        inputs["timeEmbedding"] = torch.randn(shape[0], n)
    if "residual" in extras:
        inputs["residual"] = torch.randn_like(conv2d(inputs, options))
    add(f"conv{i}", "conv2d", options, inputs, lambda t: conv2d(t, options))


def channels_first(x):
    return x.permute(0, -1, *range(1, x.dim() - 1))


def channels_last(x):
    return x.permute(0, *range(2, x.dim()), 1)


for i, (shape, options) in enumerate(
    [
        ((1, 5, 7, 8), {"groups": 4}),
        ((3, 3, 5, 6), {"groups": 3, "epsilon": 1e-6, "activation": "silu"}),
        ((2, 11, 10), {"groups": 1}),
        ((2, 4, 4, 5), {"groups": 5, "activation": "silu"}),
    ]
):
    inputs = {"x": torch.randn(shape) * 2 + 3, "gamma": torch.randn(shape[-1]), "beta": torch.randn(shape[-1])}

    def group_norm(t):
        y = F.group_norm(channels_first(t["x"]), options["groups"], t["gamma"], t["beta"], options.get("epsilon", 1e-5))
        return activate(channels_last(y), options.get("activation", "linear"))

    add(f"groupNorm{i}", "groupNorm", options, inputs, group_norm)

for i, (shape, options) in enumerate([((1, 7), {}), ((3, 5, 11), {}), ((2, 3, 5, 9), {"epsilon": 1e-3})]):
    inputs = {"x": torch.randn(shape) * 2 + 3, "gamma": torch.randn(shape[-1]), "beta": torch.randn(shape[-1])}
    add(
        f"layerNorm{i}",
        "layerNorm",
        options,
        inputs,
        lambda t: F.layer_norm(t["x"], shape[-1:], t["gamma"], t["beta"], options.get("epsilon", 1e-5)),
    )

for i, (shape, size) in enumerate([((2, 2, 3, 2), (3, 5)), ((3, 5, 4, 1), (10, 8)), ((1, 3, 3, 2), (7, 3))]):
    add(
        f"resize{i}",
        "resizeNearest",
        {"size": size},
        {"x": torch.randn(shape)},
        lambda t: channels_last(F.interpolate(channels_first(t["x"]), size=size, mode="nearest")),
    )

for i, options in enumerate(
    [
        {"dim": 320, "flipSinToCos": True, "downscaleFreqShift": 0},
        {"dim": 9},
        {"dim": 16, "scale": 3.5, "maxPeriod": 100},
    ]
):
    times = torch.tensor([0.0, 1.0, 37.25, 999.0])
    out = get_timestep_embedding(
        times,
        options["dim"],
        options.get("flipSinToCos", False),
        options.get("downscaleFreqShift", 1),
        options.get("scale", 1),
        options.get("maxPeriod", 10000),
    )
    tensors[f"time{i}/in/timesteps"], tensors[f"time{i}/out"] = times, out.contiguous()
    cases.append({"name": f"time{i}", "op": "timestepEmbedding", "options": options})

# Four different paddings. It comes last, so that the numbers of the other cases stay.
options = {"padding": [[2, 0], [1, 3]], "stride": 2}
inputs = {"x": torch.randn(2, 5, 7, 3), "filter": torch.randn(3, 2, 3, 4) * 0.3, "bias": torch.randn(4)}
add("conv9", "conv2d", options, inputs, lambda t: conv2d(t, options))

save_file(tensors, sys.argv[1], metadata={"cases": json.dumps(cases)})
print(len(cases), "cases,", sum(t.numel() for t in tensors.values()) * 4, "bytes")
