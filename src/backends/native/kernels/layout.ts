import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../../errors.js';
import { forward } from '../forward.js';
import { type KernelDefinition, kernel } from './definition.js';

/** Kernels that move numbers to other places. */
export const layout: KernelDefinition[] = [
  kernel('Transpose', ({ inputs, backend, attrs }) => backend.run1('Transpose', [inputs.x], { perm: attrs.perm })),
  kernel('PadV2', ({ inputs, backend, attrs }) =>
    backend.run1('PadV2', [inputs.x], { paddings: attrs.paddings, constantValue: attrs.constantValue }),
  ),
  kernel('MirrorPad', ({ inputs, backend, attrs }) =>
    backend.run1('MirrorPad', [inputs.x], { paddings: attrs.paddings, mode: attrs.mode }),
  ),
  kernel('Tile', ({ inputs, backend, attrs }) => backend.run1('Tile', [inputs.x], { reps: attrs.reps })),
  kernel('BroadcastTo', ({ inputs, backend, attrs }) =>
    backend.run1('BroadcastTo', [inputs.x], { shape: attrs.shape }),
  ),
  kernel('Reverse', ({ inputs, backend, attrs }) =>
    backend.run1('Reverse', [inputs.x], { dims: tf.util.parseAxisParam(attrs.dims, inputs.x!.shape) }),
  ),
  {
    name: 'Range',
    needs: ['Range'],
    run: ({ backend, attrs: { start, stop, step = 1, dtype = 'float32' } }) =>
      backend.run1('Range', [], { start, stop, step, dtype }),
  },
  {
    name: 'Fill',
    needs: ['Fill'],
    run: (args) => {
      const { value, shape } = args.attrs;
      const dtype = args.attrs.dtype ?? tf.util.inferDtype(value);
      if (dtype !== 'float32' && dtype !== 'int32' && dtype !== 'bool') return forward('Fill', args);
      if (typeof value === 'string') throw new InvalidArgumentError(`[Fill] ${dtype} cannot hold a string`);
      return args.backend.run1('Fill', [], { shape, dtype, value: Number(value) });
    },
  },
];
