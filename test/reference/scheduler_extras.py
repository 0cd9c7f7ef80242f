"""What diffusers' schedulers do beyond a plain loop: starts in the middle, training helpers, learned variances, batches
with a generator each, and configurations handed from class to class.

    pip install torch diffusers safetensors scipy
    python scheduler_extras.py ../fixtures/scheduler_extras.safetensors ../fixtures/scheduler_config_chains.json
"""

import json
import sys

import diffusers
import scheduler_cases as cases
import torch
from safetensors.torch import save_file

SD = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
LOOPS = [
    "DDIMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "UniPCMultistepScheduler",
]
NOISES = [
    "DDIMScheduler",
    "PNDMScheduler",
    "DDPMScheduler",
    "EulerDiscreteScheduler",
    "LMSDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "FlowMatchEulerDiscreteScheduler",
    "EDMEulerScheduler",
    "EDMDPMSolverMultistepScheduler",
    "SASolverScheduler",
    "DPMSolverSDEScheduler",
]
# Each chain starts from a constructor's arguments and goes through from_config of the other classes.
CHAINS = [
    [dict(SD, steps_offset=1, skip_prk_steps=True), "PNDMScheduler", "EulerDiscreteScheduler", "PNDMScheduler"],
    [
        dict(prediction_type="v_prediction", clip_sample=False),
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "LMSDiscreteScheduler",
        "DDIMScheduler",
    ],
    [
        dict(solver_order=3, use_karras_sigmas=True),
        "DEISMultistepScheduler",
        "DPMSolverMultistepScheduler",
        "UniPCMultistepScheduler",
        "EulerAncestralDiscreteScheduler",
    ],
    [
        dict(sigma_min=0.1, timestep_spacing="leading"),
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DDPMScheduler",
        "EulerDiscreteScheduler",
    ],
]
SHAPE = (2, 4, 8, 8)


def randn(seed, shape=SHAPE):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


extras_path, json_path = sys.argv[1:3]

extras = {}
for cls in LOOPS:
    # Image to image: the second half of the schedule from a noisy picture, for a batch of two with a generator each.
    scheduler = getattr(diffusers, cls)(**SD)
    scheduler.set_timesteps(6)
    begin = 3 * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)
    timesteps = scheduler.timesteps[begin:]
    x = scheduler.add_noise(randn(5), randn(6), timesteps[:1].repeat(2))
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in (7, 8)]
    xs = [x]
    for t in timesteps:
        output = cases.eps(scheduler.scale_model_input(x, t), t)
        options = {"eta": 0.6} if cls == "DDIMScheduler" else {}
        if "generator" in scheduler.step.__code__.co_varnames:
            options["generator"] = generators
        x = scheduler.step(output, t, x, **options).prev_sample
        xs.append(x)
    extras[f"img2img/{cls}"] = torch.stack(xs)

for cls in NOISES:
    scheduler = cases.scheduler_class(cls)(**({} if cls.startswith(("Flow", "EDM")) else SD))
    scheduler.set_timesteps(10)
    timesteps = scheduler.timesteps[[2, 7]]
    if hasattr(scheduler, "add_noise"):
        extras[f"add_noise/{cls}"] = scheduler.add_noise(randn(1), randn(2), timesteps)
        extras[f"add_noise_one/{cls}"] = scheduler.add_noise(randn(1), randn(2), timesteps[1:])
    else:
        extras[f"add_noise/{cls}"] = scheduler.scale_noise(randn(1), timesteps, randn(2))
        extras[f"add_noise_one/{cls}"] = scheduler.scale_noise(randn(1), timesteps[1:], randn(2))
    if hasattr(scheduler, "get_velocity"):
        extras[f"get_velocity/{cls}"] = scheduler.get_velocity(randn(1), randn(2), timesteps)

for variance_type in ("learned", "learned_range"):
    scheduler = diffusers.DDPMScheduler(variance_type=variance_type)
    scheduler.set_timesteps(3)
    output = torch.cat([randn(3), randn(4).abs()], dim=1)
    result = scheduler.step(output, scheduler.timesteps[1], randn(1), generator=torch.Generator("cpu").manual_seed(9))
    extras[f"learned/{variance_type}"] = result.prev_sample

scheduler = diffusers.DPMSolverMultistepScheduler(variance_type="learned_range", algorithm_type="sde-dpmsolver++")
scheduler.set_timesteps(3)
output = torch.cat([randn(3, (2, 3, 8, 8)), randn(4, (2, 3, 8, 8))], dim=1)
extras["learned/dpm"] = scheduler.step(
    output, scheduler.timesteps[0], randn(1, (2, 3, 8, 8)), variance_noise=randn(2, (2, 3, 8, 8))
).prev_sample

scheduler = diffusers.DDIMScheduler(**SD)
scheduler.set_timesteps(3)
result = scheduler.step(randn(3), scheduler.timesteps[1], randn(1), eta=1.0, variance_noise=randn(2))
extras["ddim/prev_sample"], extras["ddim/pred_original_sample"] = result.prev_sample, result.pred_original_sample

scheduler = diffusers.DDPMScheduler(num_train_timesteps=6, clip_sample=False)
x, generator = randn(1), torch.Generator("cpu").manual_seed(9)
for t in scheduler.timesteps:
    x = scheduler.step(cases.eps(x, t), t, x, generator=generator).prev_sample
extras["ddpm/all_training_steps"] = x

save_file({key: value.contiguous() for key, value in extras.items()}, extras_path)

chains = []
for arguments, first, *others in CHAINS:
    schedulers = [getattr(diffusers, first)(**arguments)]
    for cls in others:
        schedulers.append(getattr(diffusers, cls).from_config(schedulers[-1].config))
    configs = [json.loads(s.to_json_string()) for s in schedulers]
    reloaded = json.loads(getattr(diffusers, first).from_config(configs[-1]).to_json_string())
    for config in [*configs, reloaded]:
        del config["_diffusers_version"]
    chains.append(dict(arguments=arguments, classes=[first, *others], configs=configs, reloaded=reloaded))
with open(json_path, "w") as file:
    file.write(json.dumps(chains, indent=1).replace("-Infinity", '"-Infinity"') + "\n")
