import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { LoraWeight } from '../../src/adapters/index.js';
import { StableDiffusionPipeline } from '../../src/pipelines/index.js';
import { comparePipeline, type PipelineCase } from '../support/compare_pipeline.js';
import { type DescribedFile, writeDescribed } from './lora_file.js';

type LoraCase = PipelineCase & { files: Record<string, DescribedFile>; steps: unknown[][] };

/** Python's names of models in weights are ours in camelCase. */
const weightsOf = (value: unknown): LoraWeight =>
  JSON.parse(JSON.stringify(value).replaceAll('"text_encoder"', '"textEncoder"'));

const METHODS: Record<string, (pipe: StableDiffusionPipeline, ...values: never[]) => void> = {
  set_adapters: (pipe, names: string[], weights: unknown) =>
    pipe.setAdapters(names, weightsOf(weights) as unknown as LoraWeight[]),
  delete_adapters: (pipe, name: string) => pipe.deleteAdapters(name),
  disable_lora: (pipe) => pipe.disableLora(),
  unload_lora_weights: (pipe) => pipe.unloadLoraWeights(),
  fuse_lora: (pipe, options: { lora_scale?: number; adapter_names?: string[] }) =>
    pipe.fuseLora({ loraScale: options.lora_scale, adapterNames: options.adapter_names }),
};

comparePipeline(
  'test/fixtures/lora.safetensors',
  StableDiffusionPipeline,
  async (pipe: StableDiffusionPipeline, reference) => {
    const { files, steps } = reference as LoraCase;
    const dir = await mkdtemp(join(tmpdir(), 'tfjs-diffusers-'));
    for (const [adapterName, file] of Object.entries(files)) {
      const path = join(dir, `${adapterName}.safetensors`);
      await writeDescribed(path, file);
      await pipe.loadLoraWeights(path, { adapterName });
    }
    await rm(dir, { recursive: true });
    for (const [method, ...values] of steps) {
      METHODS[method as string]!(pipe, ...(values as never[]));
    }
    return async () => {
      pipe.unloadLoraWeights();
      await pipe.unfuseLora();
      pipe.enableLora();
    };
  },
);
