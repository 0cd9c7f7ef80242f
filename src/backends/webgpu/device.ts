import { hasNodePackages, importNodePackage, missingGpuDriver } from '#platform';
import { BackendError } from '../../errors.js';

/** GPUBufferUsage and GPUMapMode by value: in Node these globals do not exist. */
export const USAGE = { MAP_READ: 1, COPY_SRC: 4, COPY_DST: 8, UNIFORM: 64, STORAGE: 128 } as const;
export const MAP_READ = 1;

/** What a kernel may want to know of the GPU. */
export interface GpuDescription {
  vendor: string;
  architecture: string;
  description: string;
  /** The adapter computes on the processor. */
  isSoftware: boolean;
  /** shader-f16: tensors may be stored in float16. */
  hasFloat16: boolean;
  hasSubgroups: boolean;
  /** Smallest and largest subgroup; both 0 without subgroups. Never assume 32. */
  subgroupSizes: [number, number];
  /** Largest buffer that a kernel can bind, in bytes. */
  maxBindingBytes: number;
  /** Memory of a workgroup, in bytes. */
  workgroupBytes: number;
}

export interface OpenDevice {
  /** Dawn's instance in Node dies with this object, and every device with it: who uses the device keeps it. */
  gpu: GPU;
  device: GPUDevice;
  description: GpuDescription;
}

/** Optional features that kernels use when the adapter has them. */
const FEATURES = ['shader-f16', 'subgroups'] as const;
/** Limits that are asked for up to what the adapter has. */
const LIMITS = [
  'maxBufferSize',
  'maxStorageBufferBindingSize',
  'maxStorageBuffersPerShaderStage',
  'maxComputeWorkgroupStorageSize',
] as const;
/** Kernels need no more than this of a workgroup's memory; more would only lower the number of workgroups at a time. */
const MOST_WORKGROUP_BYTES = 32768;

/**
 * The entry point of WebGPU: the browser's, or Dawn's of the npm package 'webgpu' in Node. There the bounds checks that a
 * browser adds to shaders are off, which costs nothing in safety: all shaders are this library's.
 */
async function entryPoint(): Promise<GPU> {
  if (typeof navigator !== 'undefined' && navigator.gpu) {
    return navigator.gpu;
  }
  if (!hasNodePackages) {
    throw new BackendError(
      '[webgpu] this browser has no WebGPU (navigator.gpu); a current Chrome, Edge, Safari 26 does',
    );
  }
  try {
    const { create } = (await importNodePackage('webgpu')) as typeof import('webgpu');
    const missing = missingGpuDriver();
    if (missing) {
      throw new BackendError(`[webgpu] ${missing}`);
    }
    return create(['enable-dawn-features=disable_robustness']);
  } catch (error) {
    if (error instanceof BackendError) {
      throw error;
    }
    const { code, message } = error as NodeJS.ErrnoException;
    throw new BackendError(
      code === 'ERR_MODULE_NOT_FOUND'
        ? '[webgpu] the package webgpu is not installed: npm i webgpu'
        : `[webgpu] the package webgpu does not load: ${message}`,
      { cause: error },
    );
  }
}

function describe(gpu: GPU, adapter: GPUAdapter, device: GPUDevice): GpuDescription {
  const { info } = adapter;
  // without subgroup_id a shader cannot tell which subgroup it is in: how invocations are dealt out is not standardised
  const hasSubgroups = device.features.has('subgroups') && gpu.wgslLanguageFeatures.has('subgroup_id');
  return {
    vendor: info.vendor,
    architecture: info.architecture,
    description: info.description || info.device || info.vendor,
    isSoftware: info.isFallbackAdapter,
    hasFloat16: device.features.has('shader-f16'),
    hasSubgroups,
    subgroupSizes: hasSubgroups ? [info.subgroupMinSize, info.subgroupMaxSize] : [0, 0],
    maxBindingBytes: Math.min(device.limits.maxStorageBufferBindingSize, device.limits.maxBufferSize),
    workgroupBytes: device.limits.maxComputeWorkgroupStorageSize,
  };
}

/** The GPU with the most power, or why there is none. */
async function findAdapter(gpu: GPU): Promise<GPUAdapter> {
  const adapter = await gpu.requestAdapter({ powerPreference: 'high-performance' });
  if (!adapter) {
    throw new BackendError(
      '[webgpu] no adapter: this machine has no GPU with a Vulkan, Metal or Direct3D 12 driver that WebGPU can use',
    );
  }
  return adapter;
}

/**
 * Opens the GPU with the features and limits that kernels use.
 *
 * @throws BackendError when there is no WebGPU, no adapter or no device
 */
export async function openDevice(): Promise<OpenDevice> {
  const gpu = await entryPoint();
  const adapter = await findAdapter(gpu);
  const requiredLimits: Record<string, number> = {};
  for (const name of LIMITS) {
    requiredLimits[name] = adapter.limits[name];
  }
  const { maxComputeWorkgroupStorageSize: most } = adapter.limits;
  requiredLimits.maxComputeWorkgroupStorageSize = Math.min(most, MOST_WORKGROUP_BYTES);
  try {
    const device = await adapter.requestDevice({
      label: 'tfjs-diffusers',
      requiredFeatures: FEATURES.filter((feature) => adapter.features.has(feature)),
      requiredLimits,
    });
    return { gpu, device, description: describe(gpu, adapter, device) };
  } catch (error) {
    throw new BackendError(`[webgpu] the GPU gives no device: ${(error as Error).message}`, { cause: error });
  }
}
