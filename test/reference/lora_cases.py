"""Stable Diffusion with LoRA files in all their forms, as Python diffusers and PEFT draw with them.

LyCORIS's forms, which diffusers does not read, are the change of the weights that LyCORIS's papers and code describe, added
to the weights. The files are described by the names and shapes of their tensors, whose numbers generated_weights.py gives.

python lora_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures/lora.safetensors
"""

import json
import sys
import tempfile
from pathlib import Path

import diffusers.loaders.lora_pipeline as lora_pipeline
import torch
from diffusers.utils.peft_utils import _create_lora_config
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft
from peft import inject_adapter_in_model, set_peft_model_state_dict
from adapter_files import ARGS, KIND, File
from pipelines import pipeline, run, save
from safetensors.torch import save_file

RANK = 3


def load_into_text_encoder(
    state_dict, network_alphas, text_encoder, prefix=None, adapter_name=None, metadata=None, **_
):
    """What diffusers does, by PEFT alone: transformers 5 has moved the layers and loads adapters in another way."""
    prefix = (prefix or "text_encoder") + "."

    def own(names):
        return names and {
            k.removeprefix(prefix).removeprefix("text_model."): v for k, v in names.items() if k.startswith(prefix)
        }

    state = own(state_dict)
    if state:
        state = convert_state_dict_to_peft(convert_state_dict_to_diffusers(state))
        rank = {k: v.shape[1] for k, v in state.items() if "lora_B" in k}
        config = _create_lora_config(state, own(network_alphas), own(metadata), rank, is_unet=False)
        inject_adapter_in_model(config, text_encoder, adapter_name=adapter_name)
        result = set_peft_model_state_dict(text_encoder, state, adapter_name)
        assert not result.unexpected_keys, result.unexpected_keys


lora_pipeline._load_lora_into_text_encoder = load_into_text_encoder


def layers(model, choose):
    """Names and shapes of the weights of a model's layers that `choose` takes by name."""
    kept = {}
    for name, module in model.named_modules():
        if hasattr(module, "weight") and choose(name):
            kept[name] = list(module.weight.shape)
    return kept


def attention(name):
    return name.endswith(("to_q", "to_k", "to_v", "to_out.0")) or (
        name.endswith(("q_proj", "k_proj", "v_proj", "out_proj")) and "self_attn" in name
    )


def linear(name):
    return attention(name) or name.endswith(("net.0.proj", "net.2", "fc1", "fc2", "proj_in", "proj_out"))


def convolution(name):
    return name.endswith(
        ("conv1", "conv2", "conv_in", "conv_out", ".conv", "conv_shortcut", "time_emb_proj", "linear_1")
    )


def pair(file, stem, shape, rank=RANK, down="lora_A.weight", up="lora_B.weight"):
    file.add(f"{stem}.{down}", [rank, *shape[1:]])
    file.add(f"{stem}.{up}", [shape[0], rank] + [1] * (len(shape) - 2))


def text_name(name):
    return name if name.startswith("text_model.") else "text_model." + name


def peft(pipe, choose=attention, text=True, dora=False, metadata=None, bare=False):
    file = File(metadata)
    for name, shape in layers(pipe.unet, choose).items():
        pair(file, ("" if bare else "unet.") + name, shape)
        if dora:
            file.add(f"unet.{name}.lora_magnitude_vector", [shape[0]] if len(shape) == 2 else [1, shape[0], 1, 1])
    for name, shape in layers(pipe.text_encoder, choose).items() if text else ():
        pair(file, "text_encoder." + name, shape)
    return file


def diffusers_new(pipe):
    file = File()
    for name, shape in layers(pipe.unet, linear).items():
        pair(file, "unet." + name, shape, down="lora.down.weight", up="lora.up.weight")
    for name, shape in layers(pipe.text_encoder, linear).items():
        pair(
            file, "text_encoder." + name, shape, down="lora_linear_layer.down.weight", up="lora_linear_layer.up.weight"
        )
    return file


def diffusers_old(pipe, text=True):
    file = File()
    for name, shape in layers(pipe.unet, attention).items():
        block, last = name.replace(".to_out.0", ".to_out").rsplit(".", 1)
        pair(file, f"unet.{block}.processor.{last}_lora", shape, down="down.weight", up="up.weight")
    names = dict(q_proj="to_q", k_proj="to_k", v_proj="to_v", out_proj="to_out")
    for name, shape in layers(pipe.text_encoder, attention).items() if text else ():
        block, last = name.rsplit(".", 1)
        pair(file, f"text_encoder.{block}.{names[last]}_lora", shape, down="down.weight", up="up.weight")
    return file


def stem(prefix, name):
    return prefix + name.replace(".", "_")


def kohya(pipe, choose=linear, text=True, alpha=2.0, rank=RANK):
    file = File()
    of = [("lora_unet_", n, s) for n, s in layers(pipe.unet, choose).items()]
    of += [("lora_te_", text_name(n), s) for n, s in layers(pipe.text_encoder, choose).items()] if text else []
    for prefix, name, shape in of:
        pair(file, stem(prefix, name), shape, rank, down="lora_down.weight", up="lora_up.weight")
        file.values[stem(prefix, name) + ".alpha"] = alpha
    return file


def dora_scales(pipe):
    file = kohya(pipe, attention, text=False)
    for name, shape in layers(pipe.unet, attention).items():
        file.add(stem("lora_unet_", name) + ".dora_scale", [shape[0], 1])
    return file


# LyCORIS: names of a layer's tensors with their shapes, and the change of its weight


def locon(o, i, k):
    return {"lora_down.weight": [3, i, 1, 1], "lora_mid.weight": [2, 3, *k], "lora_up.weight": [o, 2, 1, 1]}


def locon_delta(t, o, i, k, alpha):
    up, mid, down = t["lora_up.weight"], t["lora_mid.weight"], t["lora_down.weight"]
    return torch.einsum("ijkl,jr,pi->prkl", mid, down.flatten(1), up.flatten(1)) * alpha / 3


def loha(o, i, k):
    n = i * (k[0] * k[1] if k else 1)
    return {"hada_w1_a": [o, 3], "hada_w1_b": [3, n], "hada_w2_a": [o, 3], "hada_w2_b": [3, n]}


def loha_delta(t, o, i, k, alpha):
    return (t["hada_w1_a"] @ t["hada_w1_b"]) * (t["hada_w2_a"] @ t["hada_w2_b"]) * alpha / 3


def loha_tucker(o, i, k):
    return {
        f"hada_{n}": s for j in (1, 2) for n, s in {f"t{j}": [3, 3, *k], f"w{j}_a": [3, o], f"w{j}_b": [3, i]}.items()
    }


def loha_tucker_delta(t, o, i, k, alpha):
    one = [torch.einsum("ijkl,jr,ip->prkl", t[f"hada_t{j}"], t[f"hada_w{j}_b"], t[f"hada_w{j}_a"]) for j in (1, 2)]
    return one[0] * one[1] * alpha / 3


def halves(n):
    """Two factors of n, the smaller one first."""
    a = next(a for a in (4, 2, 1) if n % a == 0)
    return a, n // a


def lokr(o, i, k):
    (a, c), (b, d) = halves(o), halves(i)
    return {"lokr_w1": [a, b], "lokr_w2": [c, d, *k]}


def lokr_delta(t, o, i, k, alpha):
    w1, w2 = t["lokr_w1"], t["lokr_w2"]
    return torch.kron(w1.reshape(*w1.shape, *[1] * len(k)), w2)


def lokr_factored(o, i, k):
    (a, c), (b, d) = halves(o), halves(i)
    n = k[0] * k[1] if k else 1
    return {"lokr_w1_a": [a, 2], "lokr_w1_b": [2, b], "lokr_w2_a": [c, 3], "lokr_w2_b": [3, d * n]}


def lokr_factored_delta(t, o, i, k, alpha):
    w1, w2 = t["lokr_w1_a"] @ t["lokr_w1_b"], t["lokr_w2_a"] @ t["lokr_w2_b"]
    return torch.kron(w1, w2) * alpha / 3


def lokr_tucker(o, i, k):
    (a, c), (b, d) = halves(o), halves(i)
    return {"lokr_w1": [a, b], "lokr_t2": [3, 3, *k], "lokr_w2_a": [3, c], "lokr_w2_b": [3, d]}


def lokr_tucker_delta(t, o, i, k, alpha):
    w2 = torch.einsum("ijkl,jr,ip->prkl", t["lokr_t2"], t["lokr_w2_b"], t["lokr_w2_a"])
    return torch.kron(t["lokr_w1"][:, :, None, None], w2.contiguous()) * alpha / 3


def full(o, i, k):
    return {"diff": [o, i, *k], "diff_b": [o]}


def full_delta(t, o, i, k, alpha):
    return t["diff"]


def lycoris(pipe, names, delta, choose, only=None):
    """A file of that form, and the pipeline with its change added to the weights at `weight`."""
    file, plan = File(), []
    for prefix, model in (("lora_unet_", pipe.unet), ("lora_te_", pipe.text_encoder)):
        modules = dict(model.named_modules())
        for name, shape in layers(model, choose).items():
            if only and len(shape) != only:
                continue
            o, i, *k = shape
            key = stem(prefix, name if prefix == "lora_unet_" else text_name(name))
            parts = names(o, i, k)
            for part, part_shape in parts.items():
                file.add(f"{key}.{part}", part_shape)
            file.values[f"{key}.alpha"] = 2.0
            plan.append((modules[name], key, list(parts), o, i, k))

    def apply(weight):
        state = file.state()
        for module, key, parts, o, i, k in plan:
            tensors = {part: state[f"{key}.{part}"] for part in parts}
            module.weight.data += weight * delta(tensors, o, i, k, 2.0).reshape(module.weight.shape)
            if "diff_b" in tensors:
                module.bias.data += weight * tensors["diff_b"]

    return file, apply


def norms(pipe):
    file = File()
    plan = []
    for name, module in pipe.unet.named_modules():
        if "norm" in name and hasattr(module, "weight"):
            file.add(stem("lora_unet_", name) + ".w_norm", list(module.weight.shape))
            file.add(stem("lora_unet_", name) + ".b_norm", list(module.bias.shape))
            plan.append((module, stem("lora_unet_", name)))

    def apply(weight):
        state = file.state()
        for module, key in plan:
            module.weight.data += weight * state[key + ".w_norm"]
            module.bias.data += weight * state[key + ".b_norm"]

    return file, apply


def biased(name):
    return name.endswith(("net.2", "proj_in", "fc2", "conv1", "conv2"))


def deep(name):
    return name.endswith(("conv1", "conv2", "conv"))


PEFT_CONFIG = {
    "unet.r": 3,
    "unet.lora_alpha": 6,
    "unet.alpha_pattern": {"attn2.to_k": 1.5},
    "unet.use_rslora": False,
    "unet.target_modules": ["to_q", "to_k", "to_v", "to_out.0"],
    "text_encoder.r": 3,
    "text_encoder.lora_alpha": 2,
    "text_encoder.use_rslora": True,
    "text_encoder.target_modules": ["q_proj", "k_proj", "v_proj", "out_proj"],
}

# name, files by adapter name, what is done after loading, more arguments of the call
LOADED = [
    ("PEFT", lambda p: dict(a=peft(p)), [], {}),
    (
        "PEFT without prefix, of linear layers and convolutions",
        lambda p: dict(a=peft(p, lambda n: linear(n) or convolution(n), text=False)),
        [],
        {},
    ),
    (
        "PEFT with alphas in the file's metadata",
        lambda p: dict(a=peft(p, metadata={"lora_adapter_metadata": json.dumps(PEFT_CONFIG)})),
        [],
        {},
    ),
    ("diffusers, new keys", lambda p: dict(a=diffusers_new(p)), [], {}),
    ("diffusers, first keys", lambda p: dict(a=diffusers_old(p)), [], {}),
    ("kohya", lambda p: dict(a=kohya(p)), [], {}),
    ("kohya with convolutions", lambda p: dict(a=kohya(p, lambda n: linear(n) or convolution(n))), [], {}),
    ("kohya with DoRA's scales, which are left out", lambda p: dict(a=dora_scales(p)), [], {}),
    (
        "DoRA",
        lambda p: dict(a=peft(p, lambda n: linear(n) or convolution(n), text=False, dora=True)),
        [["set_adapters", ["a"], [0.6]]],
        {},
    ),
    ("the last one that was loaded is at work", lambda p: dict(a=kohya(p), b=peft(p, text=False)), [], {}),
    ("two at once", lambda p: dict(a=kohya(p), b=peft(p)), [["set_adapters", ["a", "b"], [0.7, -0.4]]], {}),
    (
        "DoRA after another",
        lambda p: dict(a=kohya(p), b=peft(p, text=False, dora=True)),
        [["set_adapters", ["a", "b"], [0.7, 0.8]]],
        {},
    ),
    (
        "weights by model and block",
        lambda p: dict(a=kohya(p), b=peft(p)),
        [
            [
                "set_adapters",
                ["b", "a"],
                [{"unet": {"down": 0.3, "mid": 2.0, "up": {"block_1": [0.5, -1.0]}}, "text_encoder": 0.2}, 0.5],
            ]
        ],
        {},
    ),
    (
        "a scale for the call",
        lambda p: dict(a=kohya(p), b=peft(p)),
        [["set_adapters", ["a", "b"], [0.7, 0.4]]],
        dict(cross_attention_kwargs={"scale": 0.5}),
    ),
    (
        "one of two deleted",
        lambda p: dict(a=kohya(p), b=peft(p)),
        [["set_adapters", ["a", "b"], [0.7, 0.4]], ["delete_adapters", "b"]],
        {},
    ),
    ("the only one at work deleted", lambda p: dict(a=kohya(p), b=peft(p)), [["delete_adapters", "b"]], {}),
    ("switched off", lambda p: dict(a=kohya(p)), [["disable_lora"]], {}),
    (
        "fused and unloaded",
        lambda p: dict(a=kohya(p), b=peft(p)),
        [["set_adapters", ["a", "b"], [0.7, 0.4]], ["fuse_lora", dict(lora_scale=0.5)], ["unload_lora_weights"]],
        {},
    ),
    (
        "one of two fused",
        lambda p: dict(a=kohya(p), b=peft(p)),
        [["fuse_lora", dict(adapter_names=["a"])], ["unload_lora_weights"]],
        {},
    ),
]
LYCORIS = [
    ("LoCon with a core", locon, locon_delta, deep, 4),
    ("LoHa", loha, loha_delta, lambda n: linear(n) or convolution(n), None),
    ("LoHa, Tucker", loha_tucker, loha_tucker_delta, deep, 4),
    ("LoKr", lokr, lokr_delta, lambda n: linear(n) or convolution(n), None),
    ("LoKr of factors", lokr_factored, lokr_factored_delta, lambda n: linear(n) or convolution(n), None),
    ("LoKr, Tucker", lokr_tucker, lokr_tucker_delta, deep, 4),
    ("whole changes and biases", full, full_delta, biased, None),
]

cases = []


def keep(name, files, steps, args, result):
    # the first step's latents and the picture tell the rest
    cases.append((dict(kind="sd", name=name, files=files, steps=steps, args=args), result))


for name, make, steps, more in LOADED:
    pipe = pipeline(KIND, sys.argv[1])
    files = make(pipe)
    with tempfile.TemporaryDirectory() as directory:
        for adapter, file in files.items():
            path = Path(directory) / f"{adapter}.safetensors"
            save_file(file.state(), path, metadata={"format": "pt", **file.metadata})
            pipe.load_lora_weights(directory, weight_name=path.name, adapter_name=adapter)
    for method, *values in steps:
        keywords = values.pop() if values and isinstance(values[-1], dict) else {}
        getattr(pipe, method)(*values, **keywords)
    args = dict(ARGS, **more)
    keep(name, {k: f.describe() for k, f in files.items()}, steps, args, run(pipe, {}, args))
    print(name, pipe.get_active_adapters() if "unload_lora_weights" not in str(steps) else "")

for name, names, delta, choose, only in LYCORIS:
    pipe = pipeline(KIND, sys.argv[1])
    file, apply = lycoris(pipe, names, delta, choose, only)
    apply(0.6)
    keep(name, {"a": file.describe()}, [["set_adapters", ["a"], [0.6]]], dict(ARGS), run(pipe, {}, dict(ARGS)))

pipe = pipeline(KIND, sys.argv[1])
file, apply = norms(pipe)
apply(0.6)
keep("norms", {"a": file.describe()}, [["set_adapters", ["a"], [0.6]]], dict(ARGS), run(pipe, {}, dict(ARGS)))

save(sys.argv[2], cases, dict(sd=KIND))
