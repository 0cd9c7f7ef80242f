"""StableDiffusionPipeline of Python diffusers, stage by stage, with weights that generated_weights.py describes.

python pipeline_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures/pipelines.safetensors
"""

import sys

from pipelines import BETAS, END, TEXT, UNET, VAE, pipeline, run, save

KINDS = {
    "sd15": dict(
        unet=dict(UNET, attention_head_dim=1),
        vae=VAE,
        text_encoder=dict(TEXT, hidden_act="quick_gelu"),
        pad=END,
        scheduler=dict(_class_name="PNDMScheduler", skip_prk_steps=True, steps_offset=1, **BETAS),
    ),
    "sd21": dict(
        unet=dict(UNET, attention_head_dim=[2, 4], use_linear_projection=True, upcast_attention=True),
        vae=dict(VAE, scaling_factor=0.3),
        pad="!",
        text_encoder=dict(TEXT, hidden_act="gelu"),
        scheduler=dict(
            _class_name="DDIMScheduler",
            prediction_type="v_prediction",
            set_alpha_to_one=False,
            steps_offset=1,
            clip_sample=False,
            **BETAS,
        ),
    ),
    "attention mask, a schedule before Stable Diffusion": dict(
        unet=dict(UNET, attention_head_dim=4),
        vae=VAE,
        text_encoder=dict(TEXT, use_attention_mask=True),
        pad=END,
        scheduler=dict(_class_name="DDIMScheduler", clip_sample=True, **BETAS),
    ),
    "distilled guidance": dict(
        unet=dict(UNET, attention_head_dim=4, time_cond_proj_dim=12),
        vae=VAE,
        text_encoder=TEXT,
        pad=END,
        scheduler=dict(_class_name="EulerDiscreteScheduler", **BETAS),
    ),
}
SIZE = dict(height=16, width=24)
CASES = [
    (
        "sd15",
        "plain",
        {},
        dict(
            prompt="a red circle on a blue background",
            negative_prompt="a square",
            num_inference_steps=4,
            seed=7,
            **SIZE,
        ),
    ),
    (
        "sd15",
        "two prompts, two pictures each, a generator for each, DDIM with eta",
        dict(scheduler="DDIMScheduler"),
        dict(
            prompt=["a red circle", "it's 12 stars: ééé!"],
            negative_prompt=["", "low"],
            num_images_per_prompt=2,
            eta=0.6,
            num_inference_steps=3,
            seed=[1, 2, 3, 4],
            **SIZE,
        ),
    ),
    (
        "sd15",
        "clip_skip",
        {},
        dict(prompt="a red circle", negative_prompt="a square", clip_skip=2, num_inference_steps=2, seed=7, **SIZE),
    ),
    (
        "sd15",
        "embeddings of another length, a negative text",
        {},
        dict(prompt_embeds=[[2, 20, 16], 5], negative_prompt=["a square", "b"], num_inference_steps=2, seed=7, **SIZE),
    ),
    (
        "sd15",
        "embeddings and latents",
        {},
        dict(
            prompt_embeds=[[1, 80, 16], 5],
            negative_prompt_embeds=[[1, 80, 16], 6],
            latents=[[1, 4, 8, 12], 8],
            num_inference_steps=2,
            seed=7,
            **SIZE,
        ),
    ),
    (
        "sd15",
        "without guidance",
        {},
        dict(prompt="a red circle", guidance_scale=1.0, num_inference_steps=2, seed=7, **SIZE),
    ),
    (
        "sd15",
        "own timesteps",
        dict(scheduler="EulerDiscreteScheduler"),
        dict(prompt="a red circle", timesteps=[900, 500, 20], seed=7, **SIZE),
    ),
    (
        "sd15",
        "own sigmas",
        dict(scheduler="EulerDiscreteScheduler"),
        dict(prompt="a red circle", sigmas=[10.0, 2.0, 0.4], seed=7, **SIZE),
    ),
    (
        "sd15",
        "ancestral",
        dict(scheduler="EulerAncestralDiscreteScheduler"),
        dict(prompt="a red circle", num_inference_steps=3, seed=7, **SIZE),
    ),
    ("sd15", "float16", dict(dtype="float16"), dict(prompt="a red circle", num_inference_steps=3, seed=7, **SIZE)),
    ("sd15", "bfloat16", dict(dtype="bfloat16"), dict(prompt="a red circle", num_inference_steps=3, seed=7, **SIZE)),
    (
        "sd15",
        "guidance that a callback turns off",
        dict(callback="guidance off"),
        dict(prompt=["a red circle", "b"], num_inference_steps=4, seed=7, **SIZE),
    ),
    (
        "sd15",
        "embeddings that a callback halves",
        dict(callback="embeddings halved"),
        dict(prompt="a red circle", num_inference_steps=4, seed=7, **SIZE),
    ),
    ("sd21", "plain", {}, dict(prompt="a red circle on a blue background", num_inference_steps=4, seed=7, **SIZE)),
    (
        "sd21",
        "guidance rescaled",
        {},
        dict(
            prompt=["a", "b c"],
            guidance_scale=12.0,
            guidance_rescale=0.7,
            num_inference_steps=3,
            seed=7,
            height=24,
            width=8,
        ),
    ),
    (
        "attention mask, a schedule before Stable Diffusion",
        "plain",
        {},
        dict(prompt="a red circle", num_inference_steps=3, seed=7, **SIZE),
    ),
    (
        "distilled guidance",
        "plain",
        {},
        dict(prompt="a red circle", guidance_scale=6.0, num_inference_steps=3, seed=7, **SIZE),
    ),
]


def guidance_off(pipe, step, timestep, kwargs):
    if step == 1:
        pipe._guidance_scale = 0.0
        return {"prompt_embeds": kwargs["prompt_embeds"].chunk(2)[-1]}
    return {}


def embeddings_halved(pipe, step, timestep, kwargs):
    return {"prompt_embeds": kwargs["prompt_embeds"] * 0.5} if step == 1 else {}


CALLBACKS = {"guidance off": guidance_off, "embeddings halved": embeddings_halved}

cases = []
for kind, name, settings, args in CASES:
    pipe = pipeline(KINDS[kind], sys.argv[1])
    callback = CALLBACKS.get(settings.get("callback"))
    watched = ["latents", "prompt_embeds"]
    extra = dict(callback_on_step_end=callback, callback_on_step_end_tensor_inputs=watched) if callback else {}
    cases.append((dict(kind=kind, name=name, **settings, args=args), run(pipe, settings, {**args, **extra})))
save(sys.argv[2], cases, KINDS)
