"""ControlNet pipelines of Python diffusers, stage by stage.

python pipeline_controlnet_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures
"""

import sys

from pipelines import BETAS, END, TEXT, UNET, VAE, pipeline, run, save

NET = dict(
    block_out_channels=[8, 16],
    layers_per_block=1,
    cross_attention_dim=16,
    norm_num_groups=4,
    attention_head_dim=1,
    down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"],
    conditioning_embedding_out_channels=[4, 6],
)
SD15 = dict(
    unet=dict(UNET, attention_head_dim=1),
    vae=VAE,
    text_encoder=dict(TEXT, hidden_act="quick_gelu"),
    pad=END,
    scheduler=dict(_class_name="EulerDiscreteScheduler", **BETAS),
)
KINDS = {
    "one": dict(SD15, controlnet=NET),
    "two": dict(
        SD15,
        controlnet=[
            NET,
            dict(NET, controlnet_conditioning_channel_order="bgr", conditioning_embedding_out_channels=[6, 4]),
        ],
    ),
    "nine": dict(SD15, unet=dict(SD15["unet"], in_channels=9), controlnet=NET),
    "pooled": dict(SD15, controlnet=dict(NET, global_pool_conditions=True)),
}
SMALL = {"picture": [[1, 16, 24]]}
TWO = {"picture": [[1, 16, 24], [3, 16, 24]]}
PROMPT = dict(prompt="a red circle", seed=7, num_inference_steps=4)
TEXT_CASES = [
    ("one", "one", {}, dict(PROMPT, image=SMALL)),
    (
        "one",
        "resized, scale 0.6",
        {},
        dict(PROMPT, image={"picture": [[2, 25, 17]]}, height=16, width=24, controlnet_conditioning_scale=0.6),
    ),
    ("one", "a size that is cut to a multiple", {}, dict(PROMPT, image={"picture": [[2, 17, 25]]})),
    ("one", "guess mode", {}, dict(PROMPT, image=SMALL, guess_mode=True, guidance_scale=3.0)),
    ("one", "guess mode without guidance", {}, dict(PROMPT, image=SMALL, guess_mode=True, guidance_scale=1.0)),
    ("one", "start and end", {}, dict(PROMPT, image=SMALL, control_guidance_start=0.25, control_guidance_end=0.75)),
    (
        "one",
        "second order, end",
        dict(scheduler="HeunDiscreteScheduler"),
        dict(PROMPT, image=SMALL, control_guidance_end=0.5),
    ),
    (
        "one",
        "two prompts with a picture each, two of each",
        {},
        dict(prompt=["a", "b c"], num_images_per_prompt=2, seed=[1, 2, 3, 4], image=TWO, num_inference_steps=3),
    ),
    (
        "one",
        "latents and embeddings",
        {},
        dict(
            seed=7,
            num_inference_steps=3,
            image=SMALL,
            latents=[[1, 4, 8, 12], 9],
            prompt_embeds=[[1, 77, 16], 5],
            negative_prompt_embeds=[[1, 77, 16], 6],
        ),
    ),
    (
        "one",
        "another number of tokens, PNDM",
        dict(scheduler="PNDMScheduler", scheduler_config=dict(skip_prk_steps=True)),
        dict(PROMPT, image=SMALL, clip_skip=1, negative_prompt="low"),
    ),
    ("two", "two ControlNets", {}, dict(PROMPT, image=TWO)),
    (
        "two",
        "two ControlNets, scales, starts and ends",
        {},
        dict(
            PROMPT,
            image=TWO,
            controlnet_conditioning_scale=[0.5, 1.3],
            control_guidance_start=[0.0, 0.3],
            control_guidance_end=[0.6, 1.0],
        ),
    ),
    (
        "two",
        "two ControlNets, one number for both, guess mode",
        {},
        dict(PROMPT, image=TWO, controlnet_conditioning_scale=0.7, guess_mode=True),
    ),
    ("pooled", "global pool conditions", {}, dict(PROMPT, image=SMALL)),
]
INIT = {"picture": [[5, 16, 24]]}
IMAGE_CASES = [
    ("one", "strength and scale by default", {}, dict(PROMPT, image=INIT, control_image=SMALL)),
    (
        "one",
        "sizes that differ",
        {},
        dict(PROMPT, image={"picture": [[5, 33, 20]]}, control_image=SMALL, height=16, width=24, strength=0.5),
    ),
    (
        "one",
        "half of the steps, end",
        {},
        dict(
            PROMPT,
            image=INIT,
            control_image=SMALL,
            strength=0.75,
            control_guidance_end=0.5,
            controlnet_conditioning_scale=1.1,
        ),
    ),
    ("one", "guess mode", {}, dict(PROMPT, image=INIT, control_image=SMALL, guess_mode=True)),
    (
        "one",
        "two prompts, one picture",
        {},
        dict(prompt=["a", "b c"], seed=[3, 4], image=INIT, control_image=SMALL, num_inference_steps=3),
    ),
    ("two", "two ControlNets", {}, dict(PROMPT, image=INIT, control_image=TWO, strength=1.0)),
]
MASK = {"mask": [[16, 24, 4, 12, 5, 15]]}
INPAINT_CASES = [
    ("one", "defaults, four channels", {}, dict(PROMPT, image=INIT, mask_image=MASK, control_image=SMALL)),
    (
        "nine",
        "nine channels, half of the steps",
        {},
        dict(PROMPT, image=INIT, mask_image=MASK, control_image=SMALL, strength=0.75, control_guidance_start=0.2),
    ),
    (
        "one",
        "a size",
        {},
        dict(PROMPT, image=INIT, mask_image=MASK, control_image=SMALL, height=32, width=24, guess_mode=True),
    ),
    (
        "one",
        "the masked region alone",
        {},
        dict(PROMPT, image=INIT, mask_image=MASK, control_image=SMALL, padding_mask_crop=2),
    ),
    (
        "two",
        "two ControlNets",
        {},
        dict(PROMPT, image=INIT, mask_image=MASK, control_image=TWO, controlnet_conditioning_scale=[1.0, 0.4]),
    ),
]
FILES = [
    ("pipeline_controlnet_inpaint", "StableDiffusionControlNetInpaintPipeline", INPAINT_CASES),
    ("pipeline_controlnet", "StableDiffusionControlNetPipeline", TEXT_CASES),
    ("pipeline_controlnet_img2img", "StableDiffusionControlNetImg2ImgPipeline", IMAGE_CASES),
]
for file, name, rows in FILES:
    cases = []
    for kind, title, settings, args in rows:
        pipe = pipeline(KINDS[kind], sys.argv[1], name)
        cases.append((dict(kind=kind, name=title, **settings, args=args), run(pipe, settings, args)))
    save(f"{sys.argv[2]}/{file}.safetensors", cases, KINDS)
