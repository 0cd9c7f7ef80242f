import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { comparePipeline } from '../support/compare_pipeline.js';

comparePipeline('test/fixtures/pipelines.safetensors', StableDiffusionPipeline);
