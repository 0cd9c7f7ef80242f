"""What diffusers' schedulers do, one safetensors file per case of CASES.json.

    pip install torch diffusers safetensors scipy
    python scheduler_cases.py ../fixtures/schedulers [NAME ...]

A case is [name, class, configuration, steps, arguments of step] and, instead of the steps, arguments of set_timesteps.
It runs the whole loop on a cheap fake denoiser, so that only the scheduler is under test:

    eps(x, t) = 0.3 x + 0.1 sin(7 x + t / 100)          (float32, t as a float)
    x_0 = randn(seed, [1, 4, 8, 8]) * init_noise_sigma
    x_{i+1} = step(eps(scale_model_input(x_i, t_i), t_i), t_i, x_i)

Tensors in a file: timesteps [S], sigmas [S+1] where the scheduler has them, x [S+1, 1, 4, 8, 8] in torch's order.
Metadata: scheduler (class), config (its constructor's arguments), steps or set_timesteps, step_kwargs, seed of x_0,
generator_seed of the noise inside step.

Without names, every case is written. "tau" among the arguments of step is SASolver's constant stochasticity.
"""

import inspect
import json
import os
import sys

import brownian_interval
import diffusers
import numpy as np
import torch
from safetensors.torch import save_file


def scheduler_class(name):
    if name == "DPMSolverSDEScheduler":
        brownian_interval.install()
        from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler

        return DPMSolverSDEScheduler
    return getattr(diffusers, name)


def eps(x, t):
    return 0.3 * x + 0.1 * torch.sin(7 * x + float(t) / 100)


def randn(seed, shape=(1, 4, 8, 8)):
    return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed))


def run(cls, config, steps, step_kwargs, set_timesteps=None, seed=0, generator_seed=1):
    scheduler = scheduler_class(cls)(**config)
    arguments = dict(set_timesteps or {"num_inference_steps": steps})
    if "sigmas" in arguments:
        arguments["sigmas"] = np.array(arguments["sigmas"])
    scheduler.set_timesteps(**arguments)
    options = dict(step_kwargs)
    if "tau" in options:
        tau = options.pop("tau")
        scheduler.tau_func = lambda t: tau
    if "generator" in inspect.signature(scheduler.step).parameters:
        options["generator"] = torch.Generator("cpu").manual_seed(generator_seed)
    x = randn(seed) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    xs = [x]
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(eps(model_input, t), t, x, **options).prev_sample
        xs.append(x)
    tensors = {"timesteps": scheduler.timesteps.float().contiguous(), "x": torch.stack(xs).float().contiguous()}
    if isinstance(getattr(scheduler, "sigmas", None), torch.Tensor):
        tensors["sigmas"] = scheduler.sigmas.float().contiguous()
    metadata = {
        "scheduler": cls,
        "config": json.dumps(config),
        "steps": str(steps),
        "seed": str(seed),
        "generator_seed": str(generator_seed),
        "step_kwargs": json.dumps(step_kwargs),
        "diffusers": diffusers.__version__,
        "torch": torch.__version__,
    }
    if set_timesteps:
        metadata["set_timesteps"] = json.dumps(set_timesteps)
    return tensors, metadata


def main(directory, names):
    with open(os.path.join(directory, "CASES.json")) as file:
        cases = json.load(file)
    for name, cls, config, steps, step_kwargs, *rest in cases:
        if not names or name in names:
            tensors, metadata = run(cls, config, steps, step_kwargs, *rest)
            save_file(tensors, os.path.join(directory, f"{name}.safetensors"), metadata=metadata)
            print(name, len(tensors["timesteps"]), f"{tensors['x'][-1].std():.4f}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
