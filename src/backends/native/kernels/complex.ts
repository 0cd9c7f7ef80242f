import type { Info, NativeBackend } from '../backend.js';
import { forward } from '../forward.js';
import type { KernelDefinition } from './definition.js';

const partOf = (backend: NativeBackend, input: Info, part: 'real' | 'imag'): Info | undefined => {
  const { complex } = backend.data(input.dataId);
  return complex ? backend.share(complex[part], input.shape) : undefined;
};

/** complex64 tensors are pairs of float32 tensors; only what tfjs-core itself needs of them is here. */
export const complex: KernelDefinition[] = [
  {
    name: 'Complex',
    needs: [],
    run: ({ inputs, backend }) => {
      const { real, imag } = inputs;
      const result = backend.makeTensorInfo(real!.shape, 'complex64', null);
      backend.data(result.dataId).complex = { real: backend.share(real!), imag: backend.share(imag!) };
      return result;
    },
  },
  {
    name: 'Real',
    needs: [],
    run: (args) => partOf(args.backend, args.inputs.input!, 'real') ?? args.backend.share(args.inputs.input!),
  },
  {
    name: 'Imag',
    needs: [],
    run: (args) => partOf(args.backend, args.inputs.input!, 'imag') ?? forward('Imag', args),
  },
];
