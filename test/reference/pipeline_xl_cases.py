"""Pipelines of Stable Diffusion XL of Python diffusers, stage by stage: text, image and masked image to picture.

python pipeline_xl_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures
"""

import os
import sys

from pipelines import BETAS, END, TEXT, UNET, VAE, pipeline, run, save

SCHEDULER = dict(_class_name="EulerDiscreteScheduler", timestep_spacing="leading", steps_offset=1, **BETAS)
SECOND = dict(TEXT, hidden_size=24, intermediate_size=40, num_hidden_layers=4, num_attention_heads=3, hidden_act="gelu", projection_dim=20)


def unet(cross, ids, **more):
    common = dict(attention_head_dim=[2, 4], use_linear_projection=True, transformer_layers_per_block=[1, 2])
    sizes = dict(addition_embed_type="text_time", addition_time_embed_dim=8, projection_class_embeddings_input_dim=20 + 8 * ids)
    return dict(UNET, cross_attention_dim=cross, **common, **sizes, **more)


BASE = dict(vae=dict(VAE, scaling_factor=0.13025), text_encoder=TEXT, text_encoder_2=SECOND, pad=END, scheduler=SCHEDULER, unet=unet(40, 6))
ZEROS, TEXTS = dict(force_zeros_for_empty_prompt=True), dict(force_zeros_for_empty_prompt=False)
REFINER = dict(BASE, text_encoder=None, unet=unet(24, 5))
SIZE = dict(height=16, width=24)
PROMPT = dict(prompt="a red circle", seed=7)
EMBEDS = dict(prompt_embeds=[[1, 77, 40], 5], negative_prompt_embeds=[[1, 77, 40], 6], pooled_prompt_embeds=[[1, 20], 7], negative_pooled_prompt_embeds=[[1, 20], 8])
SIZES = dict(original_size=[30, 40], crops_coords_top_left=[2, 5], target_size=[32, 48])
NEGATIVE = dict(negative_original_size=[10, 12], negative_crops_coords_top_left=[1, 3], negative_target_size=[20, 24])
IMAGE, MASK = {"picture": [[1, 16, 24]]}, {"mask": [[16, 24, 3, 12, 5, 17]]}
HEUN, DPM, ANCESTRAL = dict(scheduler="HeunDiscreteScheduler"), dict(scheduler="DPMSolverMultistepScheduler"), dict(scheduler="EulerAncestralDiscreteScheduler")
TURBO = dict(scheduler="EulerAncestralDiscreteScheduler", scheduler_config=dict(timestep_spacing="trailing"))
LIGHTNING = dict(scheduler="EulerDiscreteScheduler", scheduler_config=dict(timestep_spacing="trailing"))

text = dict(PROMPT, num_inference_steps=3, **SIZE)
TEXT_CASES = [
    ("base", "no negative prompt: zeros", {}, text),
    ("base", "second prompts", {}, dict(text, negative_prompt="low", prompt_2="b c", negative_prompt_2="square")),
    ("base", "the size that the model was trained on, rescaled guidance", {}, dict(PROMPT, negative_prompt="", guidance_rescale=0.7, num_inference_steps=2)),
    ("base", "two prompts, two pictures each, a generator for each", ANCESTRAL, dict(text, prompt=["a", "b c"], negative_prompt=["", "low"], num_images_per_prompt=2, seed=[1, 2, 3, 4])),
    ("base", "sizes", {}, dict(text, **SIZES)),
    ("base", "sizes of both prompts", {}, dict(text, **SIZES, **NEGATIVE)),
    ("base", "clip_skip", {}, dict(text, negative_prompt="low", clip_skip=1)),
    ("base", "embeddings", {}, dict(num_inference_steps=2, seed=7, **SIZE, **EMBEDS)),
    ("base", "the first part of the schedule", {}, dict(text, num_inference_steps=5, denoising_end=0.6)),
    ("base", "the first part of the schedule, second order", HEUN, dict(text, num_inference_steps=5, denoising_end=0.6)),
    ("base", "without guidance", {}, dict(text, guidance_scale=1.0)),
    ("base", "Turbo: one trailing step without guidance", TURBO, dict(text, num_inference_steps=1, guidance_scale=0.0)),
    ("base", "Lightning: four trailing steps without guidance", LIGHTNING, dict(text, num_inference_steps=4, guidance_scale=0.0)),
    ("texts for zeros", "no negative prompt: the empty text", {}, text),
]
image = dict(PROMPT, image=IMAGE, num_inference_steps=6, strength=0.5)
IMAGE_CASES = [
    ("base", "the last part of it", {}, image),
    ("base", "sizes of both prompts", ANCESTRAL, dict(image, **SIZES, **NEGATIVE)),
    ("base", "one size of the negative prompt", {}, dict(image, negative_target_size=[20, 24])),
    ("base", "the middle of the schedule, of latents", {}, dict(image, image=[[1, 4, 8, 12], 9], denoising_start=0.4, denoising_end=0.8)),
    ("refiner", "from where the base model stopped", {}, dict(image, image=[[1, 4, 8, 12], 9], denoising_start=0.5)),
    ("refiner", "from where the base model stopped, second order", HEUN, dict(image, image=[[1, 4, 8, 12], 9], denoising_start=0.5)),
    ("refiner", "from where the base model stopped, multistep", DPM, dict(image, image=[[1, 4, 8, 12], 9], denoising_start=0.7)),
    ("refiner", "scores of a picture", {}, dict(image, negative_prompt="low", aesthetic_score=7.0, negative_aesthetic_score=1.5, **NEGATIVE)),
    ("refiner", "two pictures, two of each", {}, dict(image, prompt=["a", "b c"], num_images_per_prompt=2, image={"picture": [[1, 16, 24], [3, 16, 24]]})),
]
inpaint = dict(PROMPT, image=IMAGE, mask_image=MASK, num_inference_steps=4, **SIZE)
INPAINT_CASES = [
    (kind, name, settings, args)
    for kind in ("base", "9 channels")
    for name, settings, args in [
        ("the whole schedule", ANCESTRAL, dict(inpaint, strength=1.0)),
        ("as by default", {}, inpaint),
        ("the last part of it, sizes", ANCESTRAL, dict(inpaint, strength=0.6, negative_prompt="low", **SIZES, **NEGATIVE)),
        ("the masked region alone", {}, dict(inpaint, image={"picture": [[4, 45, 61]]}, mask_image={"mask": [[45, 61, 20, 33, 30, 41]]}, padding_mask_crop=3)),
        ("own noise", {}, dict(inpaint, latents=[[1, 4, 8, 12], 9], strength=0.7)),
        ("the second part, of a picture", {}, dict(inpaint, num_inference_steps=6, denoising_start=0.4)),
    ]
] + [
    ("base", "latents, the second part", {}, dict(inpaint, num_inference_steps=6, image=[[1, 4, 8, 12], 9], denoising_start=0.4, denoising_end=0.8)),
    ("base", "two pictures, a generator for each", {}, dict(inpaint, prompt=["a", "b c"], seed=[1, 2], image={"picture": [[1, 16, 24], [3, 16, 24]]}, mask_image={"mask": [[16, 24, 3, 12, 5, 17], [16, 24, 0, 16, 10, 24]]})),
]
SCORES = dict(ZEROS, requires_aesthetics_score=False)
GROUPS = {
    "pipeline_xl": ("StableDiffusionXLPipeline", dict(base=dict(BASE, config=ZEROS), **{"texts for zeros": dict(BASE, config=TEXTS)}), TEXT_CASES),
    "pipeline_xl_img2img": (
        "StableDiffusionXLImg2ImgPipeline",
        dict(base=dict(BASE, config=SCORES), refiner=dict(REFINER, config=dict(TEXTS, requires_aesthetics_score=True))),
        IMAGE_CASES,
    ),
    "pipeline_xl_inpaint": (
        "StableDiffusionXLInpaintPipeline",
        dict(base=dict(BASE, config=SCORES), **{"9 channels": dict(BASE, config=SCORES, unet=unet(40, 6, in_channels=9))}),
        INPAINT_CASES,
    ),
}
for file, (class_name, kinds, rows) in GROUPS.items():
    cases = []
    for kind, name, settings, args in rows:
        pipe = pipeline(kinds[kind], sys.argv[1], class_name)
        # Python takes pairs of numbers as tuples alone
        call = {k: tuple(v) if k.endswith(("_size", "_left")) else v for k, v in args.items()}
        cases.append((dict(kind=kind, name=name, **settings, args=args), run(pipe, settings, call)))
    save(os.path.join(sys.argv[2], file + ".safetensors"), cases, kinds)
