import { type KernelDefinition, kernel } from './definition.js';

export const resize: KernelDefinition[] = [
  ...['ResizeNearestNeighbor', 'ResizeBilinear'].map((name) =>
    kernel(name, ({ inputs, backend, attrs }) =>
      backend.run1(name, [inputs.images], {
        size: attrs.size,
        alignCorners: !!attrs.alignCorners,
        halfPixelCenters: !!attrs.halfPixelCenters,
      }),
    ),
  ),
  kernel('ResizeNearestNeighborGrad', ({ inputs, backend, attrs }) =>
    backend.run1('ResizeNearestNeighborGrad', [inputs.images, inputs.dy], {
      alignCorners: !!attrs.alignCorners,
      halfPixelCenters: !!attrs.halfPixelCenters,
    }),
  ),
];
