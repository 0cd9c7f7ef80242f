import {
  StableDiffusionControlNetImg2ImgPipeline,
  StableDiffusionControlNetInpaintPipeline,
  StableDiffusionControlNetPipeline,
} from '../../src/pipelines/index.js';
import { comparePipeline } from '../support/compare_pipeline.js';

comparePipeline('test/fixtures/pipeline_controlnet.safetensors', StableDiffusionControlNetPipeline);
comparePipeline('test/fixtures/pipeline_controlnet_inpaint.safetensors', StableDiffusionControlNetInpaintPipeline);
comparePipeline('test/fixtures/pipeline_controlnet_img2img.safetensors', StableDiffusionControlNetImg2ImgPipeline);
