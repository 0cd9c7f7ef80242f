"""Files of adapters, described by the names and shapes of their tensors, and the pipeline that they are for."""

import torch
from generated_weights import generated
from pipelines import BETAS, END, TEXT, UNET, VAE

KIND = dict(
    unet=dict(UNET, attention_head_dim=4),
    vae=VAE,
    text_encoder=TEXT,
    pad=END,
    scheduler=dict(_class_name="DDIMScheduler", set_alpha_to_one=False, steps_offset=1, clip_sample=False, **BETAS),
)
ARGS = dict(prompt="a red circle", negative_prompt="a square", num_inference_steps=2, seed=7, height=16, width=24)


class File:
    """A file of named tensors; those of 0 axes have values, the others are generated and scaled."""

    def __init__(self, metadata=None):
        self.tensors, self.values, self.metadata = {}, {}, metadata or {}

    def add(self, name, shape):
        self.tensors[name] = shape

    def state(self):
        made = {k: generated(k, v) * (0.7 if len(v) > 1 else 1) for k, v in self.tensors.items()}
        return {**made, **{k: torch.tensor(v) for k, v in self.values.items()}}

    def describe(self):
        return dict(tensors=self.tensors, values=self.values, metadata=self.metadata)
