"""StableDiffusionImg2ImgPipeline of Python diffusers, stage by stage.

python pipeline_image_to_image_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures/pipeline_image_to_image.safetensors
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
}
SMALL = {"picture": [[1, 16, 24]]}
PROMPT = dict(prompt="a red circle", seed=7)
EULER = dict(scheduler="EulerDiscreteScheduler")
CASES = [
    ("PNDM, strength 0.8", {}, dict(PROMPT, image=SMALL, num_inference_steps=5)),
    (
        "a picture that is resized",
        EULER,
        dict(PROMPT, image={"picture": [[2, 25, 17]]}, strength=0.5, num_inference_steps=4),
    ),
    ("strength 1", EULER, dict(PROMPT, image=SMALL, strength=1.0, num_inference_steps=3)),
    ("one step of ten", EULER, dict(PROMPT, image=SMALL, strength=0.1, num_inference_steps=10)),
    ("ancestral", dict(scheduler="EulerAncestralDiscreteScheduler"), dict(PROMPT, image=SMALL, num_inference_steps=4)),
    (
        "second order: Heun",
        dict(scheduler="HeunDiscreteScheduler"),
        dict(PROMPT, image=SMALL, strength=0.6, num_inference_steps=5),
    ),
    (
        "second order: KDPM2",
        dict(scheduler="KDPM2DiscreteScheduler"),
        dict(PROMPT, image=SMALL, strength=0.6, num_inference_steps=5),
    ),
    (
        "multistep: DPM++ 2M",
        dict(scheduler="DPMSolverMultistepScheduler", scheduler_config=dict(use_karras_sigmas=True)),
        dict(PROMPT, image=SMALL, num_inference_steps=6),
    ),
    (
        "DDIM with eta",
        dict(scheduler="DDIMScheduler"),
        dict(PROMPT, image=SMALL, strength=0.75, eta=0.7, num_inference_steps=4),
    ),
    ("own timesteps", EULER, dict(PROMPT, image=SMALL, strength=0.7, timesteps=[900, 700, 400, 100])),
    ("own sigmas", EULER, dict(PROMPT, image=SMALL, strength=0.7, sigmas=[10.0, 4.0, 1.0, 0.3])),
    (
        "two prompts for one picture, one generator",
        EULER,
        dict(prompt=["a", "b c"], negative_prompt=["", "low"], seed=3, image=SMALL, num_inference_steps=3),
    ),
    (
        "two pictures, two of each, a generator for each",
        EULER,
        dict(
            prompt=["a", "b c"],
            num_images_per_prompt=2,
            seed=[1, 2, 3, 4],
            image={"picture": [[1, 16, 24], [3, 16, 24]]},
            num_inference_steps=3,
        ),
    ),
    (
        "two pictures, two of each, one generator",
        EULER,
        dict(
            prompt=["a", "b c"],
            num_images_per_prompt=2,
            seed=5,
            image={"picture": [[1, 16, 24], [3, 16, 24]]},
            num_inference_steps=3,
        ),
    ),
    ("latents in place of a picture", EULER, dict(PROMPT, image=[[1, 4, 8, 12], 9], num_inference_steps=4)),
    ("without guidance", EULER, dict(PROMPT, image=SMALL, guidance_scale=1.0, num_inference_steps=4)),
    (
        "embeddings",
        EULER,
        dict(
            seed=7,
            prompt_embeds=[[1, 77, 16], 5],
            negative_prompt_embeds=[[1, 77, 16], 6],
            image=SMALL,
            num_inference_steps=4,
        ),
    ),
    ("clip_skip", EULER, dict(PROMPT, image=SMALL, clip_skip=1, num_inference_steps=3)),
]

cases = []
for name, settings, args in CASES:
    pipe = pipeline(KINDS["sd15"], sys.argv[1], "StableDiffusionImg2ImgPipeline")
    cases.append((dict(kind="sd15", name=name, **settings, args=args), run(pipe, settings, args)))
save(sys.argv[2], cases, KINDS)
