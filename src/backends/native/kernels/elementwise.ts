import { direct, type KernelDefinition, kernel } from './definition.js';

const UNARY = [
  ...['Abs', 'Neg', 'Exp', 'Expm1', 'Log', 'Log1p', 'Sqrt', 'Rsqrt', 'Square', 'Reciprocal', 'Sigmoid', 'Tanh', 'Erf'],
  ...['Relu', 'Relu6', 'LeakyRelu', 'Elu', 'Selu', 'Softplus', 'Sin', 'Cos', 'Tan', 'Floor', 'Ceil', 'Round', 'Sign'],
  ...['Step', 'ClipByValue', 'IsNan', 'IsInf', 'IsFinite', 'LogicalNot', 'PhysicalCast'],
];

const BINARY = [
  ...[
    'Add',
    'Sub',
    'Multiply',
    'RealDiv',
    'Maximum',
    'Minimum',
    'Pow',
    'SquaredDifference',
    'FloorDiv',
    'Mod',
    'Atan2',
  ],
  ...['Equal', 'NotEqual', 'Greater', 'GreaterEqual', 'Less', 'LessEqual', 'LogicalAnd', 'LogicalOr'],
];

/** One number in, one out; broadcasting of two operands is native. */
export const elementwise: KernelDefinition[] = [
  ...UNARY.map((name) => direct(name, ['x'])),
  ...BINARY.map((name) => direct(name, ['a', 'b'])),
  kernel('Prelu', ({ inputs, backend }) => backend.run1('Prelu', [inputs.x, inputs.alpha])),
  kernel('AddN', ({ inputs, backend }) => backend.run1('AddN', Object.values(inputs))),
  kernel('Select', ({ inputs, backend }) => backend.run1('Select', [inputs.condition, inputs.t, inputs.e])),
  kernel('ZerosLike', ({ inputs, backend }) => backend.run1('ZerosLike', [inputs.x])),
  kernel('OnesLike', ({ inputs, backend }) => backend.run1('OnesLike', [inputs.x])),
];
