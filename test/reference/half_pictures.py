"""How far PyTorch's own float16 pictures are from diffusers' float32 ones, for the cases in ../fixtures/tiny-shapes, as JSON:
relative L2 error of the image in 0..1.

    python half_pictures.py ../../weights/tiny-shapes ../fixtures/tiny-shapes > ../fixtures/tiny-shapes/float16_errors.json
"""
import ast, glob, json, os, sys
import numpy as np, torch, diffusers
from diffusers import DiffusionPipeline
from safetensors import safe_open

errors = {}
for path in sorted(glob.glob(os.path.join(sys.argv[2], "*.safetensors"))):
    with safe_open(path, "np") as file:
        meta, reference = file.metadata(), file.get_tensor("image")
    pipe = DiffusionPipeline.from_pretrained(sys.argv[1], safety_checker=None).to(torch.float16)
    if meta["scheduler"] != "None":
        pipe.scheduler = getattr(diffusers, meta["scheduler"]).from_config(pipe.scheduler.config, **json.loads(meta["scheduler_config"]))
    pipe.set_progress_bar_config(disable=True)
    prompts = ast.literal_eval(meta["prompt"])
    size = {k: None if meta[k] == "None" else int(meta[k]) for k in ("height", "width")}
    image = pipe(prompts, negative_prompt=[meta["negative"]] * len(prompts), num_inference_steps=int(meta["steps"]), guidance_scale=float(meta["guidance"]),
                 generator=torch.Generator("cpu").manual_seed(int(meta["seed"])), output_type="np", **size).images
    errors[os.path.basename(path)] = float(f"{np.linalg.norm(image - reference) / np.linalg.norm(reference):.4g}")
print(json.dumps(errors, indent=2))
