"""StableDiffusionInpaintPipeline of Python diffusers, stage by stage, with UNets of 4 and of 9 input channels.

python pipeline_inpaint_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures/pipeline_inpaint.safetensors
"""

import sys

from pipelines import BETAS, END, TEXT, UNET, VAE, pipeline, run, save

COMMON = dict(
    vae=VAE, text_encoder=TEXT, pad=END, scheduler=dict(_class_name="EulerAncestralDiscreteScheduler", **BETAS)
)
KINDS = {
    "4 channels": dict(COMMON, unet=dict(UNET, attention_head_dim=1)),
    "9 channels": dict(COMMON, unet=dict(UNET, attention_head_dim=1, in_channels=9)),
}
IMAGE, MASK = {"picture": [[1, 16, 24]]}, {"mask": [[16, 24, 3, 12, 5, 17]]}
TWO, MASKS = {"picture": [[1, 16, 24], [3, 16, 24]]}, {"mask": [[16, 24, 3, 12, 5, 17], [16, 24, 0, 16, 10, 24]]}
LARGE, LARGE_MASK = {"picture": [[4, 45, 61]]}, {"mask": [[45, 61, 20, 33, 30, 41]]}
CALL = dict(
    prompt="a red circle",
    negative_prompt="low",
    seed=7,
    image=IMAGE,
    mask_image=MASK,
    height=16,
    width=24,
    num_inference_steps=4,
)
EULER = dict(scheduler="EulerDiscreteScheduler")
CASES = [
    ("the whole schedule", {}, dict(CALL, strength=1.0)),
    ("the last part of it", {}, dict(CALL, strength=0.6, num_inference_steps=5)),
    ("of another size than the picture", EULER, dict(CALL, image=LARGE, mask_image=LARGE_MASK, strength=0.75)),
    ("the size that the model was trained on", EULER, {k: v for k, v in CALL.items() if k not in ("height", "width")}),
    ("PNDM", dict(scheduler="PNDMScheduler", scheduler_config=dict(skip_prk_steps=True)), dict(CALL, strength=0.8)),
    ("DDIM with eta", dict(scheduler="DDIMScheduler"), dict(CALL, strength=0.75, eta=0.7)),
    ("second order: Heun", dict(scheduler="HeunDiscreteScheduler"), dict(CALL, strength=0.6, num_inference_steps=5)),
    (
        "multistep: DPM++ 2M",
        dict(scheduler="DPMSolverMultistepScheduler"),
        dict(CALL, strength=0.7, num_inference_steps=6),
    ),
    ("without guidance", {}, dict(CALL, guidance_scale=1.0)),
    ("own noise", EULER, dict(CALL, latents=[[1, 4, 8, 12], 9], strength=0.5)),
    (
        "two pictures and masks, two of each, one generator",
        {},
        dict(
            CALL,
            prompt=["a", "b c"],
            negative_prompt=["", "low"],
            num_images_per_prompt=2,
            image=TWO,
            mask_image=MASKS,
            strength=0.7,
        ),
    ),
    (
        "two pictures, a generator for each",
        {},
        dict(
            CALL,
            prompt=["a", "b c"],
            negative_prompt=["", "low"],
            seed=[1, 2],
            image=TWO,
            mask_image=MASKS,
            strength=0.7,
        ),
    ),
    (
        "one picture, two drawn, a generator for each",
        {},
        dict(CALL, num_images_per_prompt=2, seed=[1, 2], strength=0.7),
    ),
    ("latents of the masked picture", {}, dict(CALL, masked_image_latents=[[1, 4, 8, 12], 5], strength=0.7)),
    ("the masked region alone", {}, dict(CALL, image=LARGE, mask_image=LARGE_MASK, padding_mask_crop=3)),
    (
        "the masked region alone, at the edge",
        EULER,
        dict(
            CALL,
            image=LARGE,
            mask_image={"mask": [[45, 61, 1, 4, 40, 60]]},
            padding_mask_crop=8,
            height=24,
            width=16,
            strength=0.75,
        ),
    ),
    (
        "the masked region alone, tall",
        EULER,
        dict(CALL, image=LARGE, mask_image={"mask": [[45, 61, 5, 44, 2, 9]]}, padding_mask_crop=0, strength=0.75),
    ),
]

cases = []
for kind in KINDS:
    for name, settings, args in CASES:
        pipe = pipeline(KINDS[kind], sys.argv[1], "StableDiffusionInpaintPipeline")
        cases.append((dict(kind=kind, name=name, **settings, args=args), run(pipe, settings, args)))
save(sys.argv[2], cases, KINDS)
