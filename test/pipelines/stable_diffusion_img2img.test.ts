import { StableDiffusionImg2ImgPipeline } from '../../src/pipelines/index.js';
import { comparePipeline } from '../support/compare_pipeline.js';

comparePipeline('test/fixtures/pipeline_image_to_image.safetensors', StableDiffusionImg2ImgPipeline);
