"""LatentConsistencyModelPipeline of Python diffusers, stage by stage.

python pipeline_latent_consistency_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures/pipeline_latent_consistency.safetensors
"""

import sys

from pipelines import BETAS, END, TEXT, UNET, VAE, pipeline, run, save

KINDS = {
    "lcm": dict(
        unet=dict(UNET, attention_head_dim=4, time_cond_proj_dim=12),
        vae=VAE,
        text_encoder=TEXT,
        pad=END,
        scheduler=dict(_class_name="LCMScheduler", **BETAS),
    ),
}
SIZE = dict(height=16, width=24)
PROMPT = dict(prompt="a red circle", seed=7, **SIZE)
CASES = [
    ("four steps", {}, dict(PROMPT)),
    ("one step", {}, dict(PROMPT, num_inference_steps=1)),
    (
        "two of eight original steps, another guidance",
        {},
        dict(PROMPT, num_inference_steps=2, original_inference_steps=8, guidance_scale=2.5),
    ),
    ("guidance of 0", {}, dict(PROMPT, guidance_scale=0.0)),
    ("own timesteps", {}, dict(PROMPT, timesteps=[899, 499, 99])),
    (
        "two prompts, two pictures each, a generator for each",
        {},
        dict(prompt=["a", "b c"], num_images_per_prompt=2, seed=[1, 2, 3, 4], **SIZE),
    ),
    ("latents and embeddings", {}, dict(seed=7, prompt_embeds=[[1, 77, 16], 5], latents=[[1, 4, 8, 12], 8], **SIZE)),
    ("clip_skip", {}, dict(PROMPT, clip_skip=1)),
]

cases = []
for name, settings, args in CASES:
    pipe = pipeline(KINDS["lcm"], sys.argv[1], "LatentConsistencyModelPipeline")
    cases.append((dict(kind="lcm", name=name, **settings, args=args), run(pipe, settings, args)))
save(sys.argv[2], cases, KINDS)
