import { StableDiffusionXLPipeline } from '../../src/pipelines/index.js';
import { comparePipeline } from '../support/compare_pipeline.js';

comparePipeline('test/fixtures/pipeline_xl.safetensors', StableDiffusionXLPipeline);
