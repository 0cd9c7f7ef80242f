/** Physical types in the numbering of the addon. */
export const NATIVE_TYPES = ['float32', 'bfloat16', 'float16', 'int32', 'bool'] as const;
