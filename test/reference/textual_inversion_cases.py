"""Stable Diffusion with textual inversions, as Python diffusers draws with them.

python textual_inversion_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures/textual_inversion.safetensors
"""

import sys
import tempfile
from pathlib import Path

from adapter_files import ARGS, KIND, File
from pipelines import pipeline, run, save
from safetensors.torch import save_file


def file(**tensors):
    made = File()
    for name, shape in tensors.items():
        made.add(name, shape)
    return made


# name, files in the order of loading, each with the token that is named, and the call
CASES = [
    ("one vector", [(file(**{"<cat>": [16]}), None)], dict(ARGS, prompt="a <cat> on a circle")),
    ("several vectors", [(file(**{"<cat>": [3, 16]}), None)], dict(ARGS, prompt="a<cat>,<cat> blue", negative_prompt="no <cat>")),
    ("the web UI's file, capital letters", [(file(emb_params=[2, 16]), "mystyle")], dict(ARGS, prompt="red mystyle circle")),
    ("two, one of the name of the other's begin", [(file(**{"<a>": [1, 16]}), "style"), (file(emb_params=[2, 16]), "style-two")],
     dict(ARGS, prompt=["style, style-two", "a"], negative_prompt=["style-two", ""])),
    ("not in the prompt", [(file(**{"<cat>": [3, 16]}), None)], dict(ARGS)),
]

cases = []
for name, files, args in CASES:
    pipe = pipeline(KIND, sys.argv[1])
    with tempfile.TemporaryDirectory() as directory:
        for i, (made, token) in enumerate(files):
            path = Path(directory) / f"{i}.safetensors"
            save_file(made.state(), path)
            pipe.load_textual_inversion(directory, weight_name=path.name, token=token)
    described = [dict(file=made.describe(), token=token) for made, token in files]
    cases.append((dict(kind="sd", name=name, files=described, args=args), run(pipe, {}, args)))
save(sys.argv[2], cases, dict(sd=KIND))
