/** What a pipeline is made of. `key` names everything that the code depends on. */
export interface PipelineSource {
  label: string;
  key: string;
  /** One letter per storage binding: r to read, w to write. */
  access: string;
  code(): string;
}

export interface Pipeline {
  /** Null until an asynchronous compilation has ended. */
  gpu: GPUComputePipeline | null;
  readonly label: string;
  /** WGSL, made when the pipeline is first asked for: tensors that it was made for may be gone when it is compiled. */
  readonly code: string;
  readonly layout: Layout;
}

export interface Layout {
  readonly id: number;
  readonly group: GPUBindGroupLayout;
  readonly pipeline: GPUPipelineLayout;
}

/** Bytes of the numbers that a dispatch is given. */
export const PARAMS_BYTES = 256;

/** Compiled shaders by key, and the layouts that they share. Binding 0 holds a dispatch's numbers, tensors follow. */
export class PipelineCache {
  private readonly pipelines = new Map<string, Pipeline>();
  private readonly layouts = new Map<string, Layout>();

  constructor(private readonly device: GPUDevice) {}

  get size(): number {
    return this.pipelines.size;
  }

  /** The pipeline, not compiled yet. */
  find(source: PipelineSource): Pipeline {
    let pipeline = this.pipelines.get(source.key);
    if (!pipeline) {
      pipeline = { gpu: null, label: source.label, code: source.code(), layout: this.layout(source.access) };
      this.pipelines.set(source.key, pipeline);
    }
    return pipeline;
  }

  /** Compiles the pipeline now unless that has been done. */
  compiled(pipeline: Pipeline): GPUComputePipeline {
    pipeline.gpu ??= this.device.createComputePipeline(this.descriptor(pipeline));
    return pipeline.gpu;
  }

  /** Compiles those that are not compiled, all at the same time where the driver can. */
  async compileAll(onProgress?: (done: number, total: number) => void): Promise<void> {
    const missing = [...this.pipelines.values()].filter((pipeline) => !pipeline.gpu);
    let done = 0;
    await Promise.all(
      missing.map(async (pipeline) => {
        pipeline.gpu = await this.device.createComputePipelineAsync(this.descriptor(pipeline));
        onProgress?.(++done, missing.length);
      }),
    );
  }

  private descriptor({ label, code, layout }: Pipeline): GPUComputePipelineDescriptor {
    const module = this.device.createShaderModule({ label, code });
    return { label, layout: layout.pipeline, compute: { module, entryPoint: 'main' } };
  }

  private layout(access: string): Layout {
    let layout = this.layouts.get(access);
    if (!layout) {
      const storage = [...access].map((letter, i): GPUBindGroupLayoutEntry => {
        const type = letter === 'w' ? 'storage' : 'read-only-storage';
        return { binding: i + 1, visibility: 4, buffer: { type } };
      });
      const params: GPUBindGroupLayoutEntry = {
        binding: 0,
        visibility: 4,
        buffer: { type: 'uniform', hasDynamicOffset: true, minBindingSize: PARAMS_BYTES },
      };
      const group = this.device.createBindGroupLayout({ label: access, entries: [params, ...storage] });
      const pipeline = this.device.createPipelineLayout({ bindGroupLayouts: [group] });
      layout = { id: this.layouts.size, group, pipeline };
      this.layouts.set(access, layout);
    }
    return layout;
  }
}
