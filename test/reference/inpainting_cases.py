"""StableDiffusionInpaintPipeline of Python diffusers, with UNets of 4 and of 9 input channels.

python inpainting_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures/inpainting.safetensors
"""

import sys

import numpy as np
import torch
from PIL import Image
from pipelines import BETAS, END, TEXT, UNET, VAE, pipeline, run, save

COMMON = dict(
    vae=VAE,
    text_encoder=TEXT,
    pad=END,
    scheduler=dict(_class_name="EulerAncestralDiscreteScheduler", **BETAS),
)
KINDS = {
    "4 channels": dict(COMMON, unet=dict(UNET, attention_head_dim=1)),
    "9 channels": dict(COMMON, unet=dict(UNET, attention_head_dim=1, in_channels=9)),
}
# the picture, and the rows and columns that are drawn anew
IMAGE, MASK = {"picture": [[1, 16, 24]]}, [3, 12, 5, 17]
CALL = dict(prompt="a red circle", negative_prompt="low", seed=7, image=IMAGE, height=16, width=24)
CASES = [
    ("4 channels", "the whole schedule", dict(CALL, strength=1.0, num_inference_steps=4)),
    ("4 channels", "the last part of it", dict(CALL, strength=0.6, num_inference_steps=5)),
    ("9 channels", "the whole schedule", dict(CALL, strength=1.0, num_inference_steps=4)),
    ("9 channels", "the last part of it", dict(CALL, strength=0.6, num_inference_steps=5)),
]

top, bottom, left, right = MASK
mask = np.zeros((16, 24), np.uint8)
mask[top:bottom, left:right] = 255
cases = []
for kind, name, args in CASES:
    pipe = pipeline(KINDS[kind], sys.argv[1], "StableDiffusionInpaintPipeline")
    kept = run(pipe, {}, dict(args, mask_image=Image.fromarray(mask)))
    kept["given_mask"] = torch.from_numpy(mask)[None, ..., None]
    cases.append((dict(kind=kind, name=name, args=args), kept))
save(sys.argv[2], cases, KINDS)
