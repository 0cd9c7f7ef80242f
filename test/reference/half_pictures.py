"""How far PyTorch's own float16 pictures are from diffusers' float32 ones, as JSON: relative L2 error of the image in 0..1. Takes
minutes for each case: a CPU has no fast float16.

    cd ../fixtures/tiny-shapes; python ../../reference/half_pictures.py ../../../weights/tiny-shapes dpm_wide.safetensors > float16_errors.json
"""

import ast, json, os, sys
import numpy as np, torch, diffusers
from diffusers import DiffusionPipeline
from safetensors import safe_open

errors = {}
for path in sys.argv[2:]:
    with safe_open(path, "np") as file:
        meta, reference = file.metadata(), file.get_tensor("image")
    pipe = DiffusionPipeline.from_pretrained(sys.argv[1], safety_checker=None).to(torch.float16)
    if meta["scheduler"] != "None":
        pipe.scheduler = getattr(diffusers, meta["scheduler"]).from_config(
            pipe.scheduler.config, **json.loads(meta["scheduler_config"])
        )
    pipe.set_progress_bar_config(disable=True)
    prompts = ast.literal_eval(meta["prompt"])
    size = {k: None if meta[k] == "None" else int(meta[k]) for k in ("height", "width")}
    image = pipe(
        prompts,
        negative_prompt=[meta["negative"]] * len(prompts),
        num_inference_steps=int(meta["steps"]),
        guidance_scale=float(meta["guidance"]),
        generator=torch.Generator("cpu").manual_seed(int(meta["seed"])),
        output_type="np",
        **size,
    ).images
    errors[os.path.basename(path)] = float(f"{np.linalg.norm(image - reference) / np.linalg.norm(reference):.4g}")
print(json.dumps(errors, indent=2))
