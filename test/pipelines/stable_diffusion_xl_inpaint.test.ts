import { StableDiffusionXLInpaintPipeline } from '../../src/pipelines/index.js';
import { comparePipeline } from '../support/compare_pipeline.js';

comparePipeline('test/fixtures/pipeline_xl_inpaint.safetensors', StableDiffusionXLInpaintPipeline);
