import { StableDiffusionXLImg2ImgPipeline } from '../../src/pipelines/index.js';
import { comparePipeline } from '../support/compare_pipeline.js';

comparePipeline('test/fixtures/pipeline_xl_img2img.safetensors', StableDiffusionXLImg2ImgPipeline);
