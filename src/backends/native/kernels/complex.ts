import type { Info, OneDnnBackend } from '../backend.js';
import { forward } from '../forward.js';
import type { KernelDefinition } from './definition.js';

const partOf = (backend: OneDnnBackend, input: Info, part: 'real' | 'imag'): Info | undefined => {
  const { complex } = backend.data(input.dataId);
  return complex ? backend.share(complex[part], input.shape) : undefined;
};

/** complex64 tensors are pairs of float32 tensors; only what tfjs-core itself needs of them is here. */
export const complex: KernelDefinition[] = [
  {
    name: 'Complex',
    run: ({ inputs, backend }) => {
      const { real, imag } = inputs;
      const result = backend.makeTensorInfo(real!.shape, 'complex64', null);
      backend.data(result.dataId).complex = { real: backend.share(real!), imag: backend.share(imag!) };
      return result;
    },
  },
  {
    name: 'Real',
    run: (args) => partOf(args.backend, args.inputs.input!, 'real') ?? args.backend.share(args.inputs.input!),
  },
  {
    name: 'Imag',
    run: (args) => partOf(args.backend, args.inputs.input!, 'imag') ?? forward('Imag', args),
  },
];
