"""Small Stable Diffusion pipelines of Python diffusers, stage by stage, with weights that generated_weights.py describes.

    python pipeline_cases.py ../../weights/tiny-shapes/tokenizer ../fixtures/pipelines.safetensors
"""
import functools, json, sys
import numpy as np, torch, diffusers
from diffusers import AutoencoderKL, DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from generated_weights import fill, generated, randn

CPU = "cpu"
BETAS = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
VAE = dict(block_out_channels=[8, 16], down_block_types=["DownEncoderBlock2D"] * 2, up_block_types=["UpDecoderBlock2D"] * 2, norm_num_groups=4)
UNET = dict(sample_size=8, block_out_channels=[8, 16], layers_per_block=1, cross_attention_dim=16, norm_num_groups=4,
            down_block_types=["CrossAttnDownBlock2D", "DownBlock2D"], up_block_types=["UpBlock2D", "CrossAttnUpBlock2D"])
TEXT = dict(vocab_size=658, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2, bos_token_id=656, eos_token_id=657)
KINDS = {
    "sd15": dict(unet=dict(UNET, attention_head_dim=1), vae=VAE, text_encoder=dict(TEXT, hidden_act="quick_gelu"), pad="<|endoftext|>",
                 scheduler=dict(_class_name="PNDMScheduler", skip_prk_steps=True, steps_offset=1, **BETAS)),
    "sd21": dict(unet=dict(UNET, attention_head_dim=[2, 4], use_linear_projection=True, upcast_attention=True), vae=dict(VAE, scaling_factor=0.3), pad="!",
                 text_encoder=dict(TEXT, hidden_act="gelu"),
                 scheduler=dict(_class_name="DDIMScheduler", prediction_type="v_prediction", set_alpha_to_one=False, steps_offset=1, clip_sample=False, **BETAS)),
    "attention mask, a schedule before Stable Diffusion": dict(unet=dict(UNET, attention_head_dim=4), vae=VAE, text_encoder=dict(TEXT, use_attention_mask=True), pad="<|endoftext|>",
                                                               scheduler=dict(_class_name="DDIMScheduler", clip_sample=True, **BETAS)),
    "distilled guidance": dict(unet=dict(UNET, attention_head_dim=4, time_cond_proj_dim=12), vae=VAE, text_encoder=TEXT, pad="<|endoftext|>",
                               scheduler=dict(_class_name="EulerDiscreteScheduler", **BETAS)),
}
SIZE = dict(height=16, width=24)
CASES = [
    ("sd15", "plain", {}, dict(prompt="a red circle on a blue background", negative_prompt="a square", num_inference_steps=4, seed=7, **SIZE)),
    ("sd15", "two prompts, two pictures each, a generator for each, DDIM with eta", dict(scheduler="DDIMScheduler"),
     dict(prompt=["a red circle", "it's 12 stars: ééé!"], negative_prompt=["", "low"], num_images_per_prompt=2, eta=0.6, num_inference_steps=3, seed=[1, 2, 3, 4], **SIZE)),
    ("sd15", "clip_skip", {}, dict(prompt="a red circle", negative_prompt="a square", clip_skip=2, num_inference_steps=2, seed=7, **SIZE)),
    ("sd15", "embeddings of another length, a negative text", {}, dict(prompt_embeds=[[2, 20, 16], 5], negative_prompt=["a square", "b"], num_inference_steps=2, seed=7, **SIZE)),
    ("sd15", "embeddings and latents", {}, dict(prompt_embeds=[[1, 80, 16], 5], negative_prompt_embeds=[[1, 80, 16], 6], latents=[[1, 4, 8, 12], 8], num_inference_steps=2, seed=7, **SIZE)),
    ("sd15", "without guidance", {}, dict(prompt="a red circle", guidance_scale=1.0, num_inference_steps=2, seed=7, **SIZE)),
    ("sd15", "own timesteps", dict(scheduler="EulerDiscreteScheduler"), dict(prompt="a red circle", timesteps=[900, 500, 20], seed=7, **SIZE)),
    ("sd15", "own sigmas", dict(scheduler="EulerDiscreteScheduler"), dict(prompt="a red circle", sigmas=[10.0, 2.0, 0.4], seed=7, **SIZE)),
    ("sd15", "ancestral", dict(scheduler="EulerAncestralDiscreteScheduler"), dict(prompt="a red circle", num_inference_steps=3, seed=7, **SIZE)),
    ("sd15", "float16", dict(dtype="float16"), dict(prompt="a red circle", num_inference_steps=3, seed=7, **SIZE)),
    ("sd15", "bfloat16", dict(dtype="bfloat16"), dict(prompt="a red circle", num_inference_steps=3, seed=7, **SIZE)),
    ("sd15", "guidance that a callback turns off", dict(callback="guidance off"), dict(prompt=["a red circle", "b"], num_inference_steps=4, seed=7, **SIZE)),
    ("sd15", "embeddings that a callback halves", dict(callback="embeddings halved"), dict(prompt="a red circle", num_inference_steps=4, seed=7, **SIZE)),
    ("sd21", "plain", {}, dict(prompt="a red circle on a blue background", num_inference_steps=4, seed=7, **SIZE)),
    ("sd21", "guidance rescaled", {}, dict(prompt=["a", "b c"], guidance_scale=12.0, guidance_rescale=0.7, num_inference_steps=3, seed=7, height=24, width=8)),
    ("attention mask, a schedule before Stable Diffusion", "plain", {}, dict(prompt="a red circle", num_inference_steps=3, seed=7, **SIZE)),
    ("distilled guidance", "plain", {}, dict(prompt="a red circle", guidance_scale=6.0, num_inference_steps=3, seed=7, **SIZE)),
]


def text_encoder(config):
    model = CLIPTextModel(CLIPTextConfig(**config)).eval()
    model.load_state_dict({k: generated("text_model." + k, v.shape) for k, v in model.state_dict().items() if v.is_floating_point()}, strict=False)
    return model


def pipeline(kind):
    tokenizer = CLIPTokenizer.from_pretrained(sys.argv[1], pad_token=kind["pad"])
    scheduler = dict(kind["scheduler"])
    unet, vae = UNet2DConditionModel(**kind["unet"]).eval(), AutoencoderKL(**kind["vae"]).eval()
    fill(unet), fill(vae)
    return StableDiffusionPipeline(unet=unet, vae=vae, text_encoder=text_encoder(kind["text_encoder"]), tokenizer=tokenizer, safety_checker=None, feature_extractor=None,
                                   requires_safety_checker=False, scheduler=getattr(diffusers, scheduler.pop("_class_name")).from_config(scheduler))


def guidance_off(pipe, step, timestep, kwargs):
    if step == 1:
        pipe._guidance_scale = 0.0
        return {"prompt_embeds": kwargs["prompt_embeds"].chunk(2)[-1]}
    return {}


def embeddings_halved(pipe, step, timestep, kwargs):
    return {"prompt_embeds": kwargs["prompt_embeds"] * 0.5} if step == 1 else {}


CALLBACKS = {"guidance off": guidance_off, "embeddings halved": embeddings_halved}

# diffusers' clip_skip expects the layers of transformers' text encoder where they were before its release 5
if not hasattr(CLIPTextModel, "text_model"):
    CLIPTextModel.text_model = property(lambda self: self)
tensors, cases = {}, []
for i, (kind, name, settings, args) in enumerate(CASES):
    pipe = pipeline(KINDS[kind])
    pipe.to(getattr(torch, settings.get("dtype", "float32"))).to(torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if "scheduler" in settings:
        pipe.scheduler = getattr(diffusers, settings["scheduler"]).from_config(pipe.scheduler.config)
    kept = {"latents": []}

    def unet(sample, timestep, *rest, forward=pipe.unet.forward, kept=kept, **kw):
        out = forward(sample, timestep, *rest, **kw)
        kept.setdefault("unet_out", out[0])
        kept.setdefault("text_embeds", kw["encoder_hidden_states"])
        return out

    inner = pipe.scheduler.step

    @functools.wraps(inner)
    def step(model_output, t, sample, *rest, inner=inner, kept=kept, **kw):
        out = inner(model_output, t, sample, *rest, **kw)
        kept["latents"].append(out[0])
        return out

    pipe.unet.forward, pipe.scheduler.step = unet, step
    call = dict(args)
    seeds = call.pop("seed")
    generators = [torch.Generator(CPU).manual_seed(s) for s in np.atleast_1d(seeds).tolist()]
    for key in ("prompt_embeds", "negative_prompt_embeds", "latents"):
        if key in call:
            shape, seed = call.pop(key)
            kept["given_" + key] = call[key] = randn(seed, *shape)
    if "callback" in settings:
        call.update(callback_on_step_end=CALLBACKS[settings["callback"]], callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])
    images = pipe(call.pop("prompt", None), generator=generators if isinstance(seeds, list) else generators[0], output_type="np", **call).images
    kept["latents"] = torch.stack(kept["latents"])
    kept["image"] = torch.from_numpy(images).permute(0, 3, 1, 2)
    tensors.update({f"{i}.{k}": v.detach().float().contiguous().clone() for k, v in kept.items()})
    cases.append({"kind": kind, "name": name, **settings, "args": args})
save_file(tensors, sys.argv[2], metadata={"cases": json.dumps(cases), "kinds": json.dumps(KINDS)})
print(len(cases), "cases")
