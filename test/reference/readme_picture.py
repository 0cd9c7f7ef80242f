"""The picture of README's program, drawn by Python diffusers; float32 on the CPU.

python readme_picture.py ../../weights/tiny-shapes ../fixtures/readme.png
"""

import sys

import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

directory, out = sys.argv[1:]
pipe = StableDiffusionPipeline.from_pretrained(directory, safety_checker=None)
pipe.scheduler = DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, use_karras_sigmas=True)
prompt = "a red circle left of a blue square on a white background"
settings = {"negative_prompt": "a heart", "num_inference_steps": 20, "guidance_scale": 7.5}
pipe(prompt, generator=torch.Generator("cpu").manual_seed(0), **settings).images[0].save(out)
