const webgpu = [
  { includes: 'profile webgpu {}', reason: 'the profiler of tfjs-core reads results synchronously' },
  {
    includes: 'input=8x8x8,output=4x4x8,f=8,s=1,inDepth=8,p=same',
    reason: "the shape of dy is not the convolution's; it is refused",
  },
  {
    includes: 'gather webgpu {} fills with zero when index is out of bound',
    reason: 'an index that is known and names nothing is an error, as another test asks',
  },
  { includes: 'exp webgpu {} int32', reason: 'exp(10) to an absolute 1e-3 asks for more than float32 of WGSL gives' },
  {
    includes: 'tan webgpu {} numbers exceed float32 precision',
    reason: 'the tangent of 1e20: no digit of it is known',
  },
];

/** Tests of tfjs-core that do not apply, by backend and by part of their full name, each with the reason. */
export const EXCLUSIONS = { onednn: [], webgpu };

/** What a backend refuses, by its message: tests that fail with one of these are counted as excluded. */
export const REFUSALS = {
  onednn: [],
  webgpu: [
    {
      message: /float32, int32 and bool, got (string|complex64)/,
      reason: 'a GPU has no strings and no complex numbers',
    },
    { message: /got channelsFirst/, reason: 'images are [N,H,W,C] in this library; other layouts are refused' },
  ],
};

/**
 * Kernels that a backend does not have, with the reason: tests that fail for want of one of them are counted as excluded.
 * Models of this library need none of them, and the backend says so by name when one is called.
 */
export const ABSENT_KERNELS = {
  onednn: {},
  webgpu: {
    'pooling and other convolutions': [
      ...[
        'MaxPool',
        'MaxPoolWithArgmax',
        'AvgPool',
        'MaxPool3D',
        'AvgPool3D',
        'MaxPoolGrad',
        'AvgPoolGrad',
        'MaxPool3DGrad',
      ],
      ...['AvgPool3DGrad', 'Conv3D', 'Conv3DBackpropFilterV2', 'Conv3DBackpropInputV2', 'DepthwiseConv2dNative'],
      ...[
        'DepthwiseConv2dNativeBackpropFilter',
        'DepthwiseConv2dNativeBackpropInput',
        'FusedDepthwiseConv2D',
        'Dilation2D',
      ],
      ...[
        'Dilation2DBackpropFilter',
        'Dilation2DBackpropInput',
        'FusedBatchNorm',
        'LRN',
        'LRNGrad',
        'Draw',
        'ResizeBilinearGrad',
      ],
    ],
    'results whose size depends on the numbers, which a GPU cannot give at once': [
      ...[
        'Where',
        'Unique',
        'NonMaxSuppressionV3',
        'NonMaxSuppressionV4',
        'NonMaxSuppressionV5',
        'RaggedRange',
        'RaggedGather',
      ],
      ...[
        'RaggedTensorToTensor',
        'SparseFillEmptyRows',
        'SparseReshape',
        'SparseSegmentMean',
        'SparseSegmentSum',
        'Multinomial',
      ],
      ...['SparseToDense', 'Bincount', 'DenseBincount', 'SearchSorted', 'ListDiff', 'TopK'],
    ],
    strings: ['StringNGrams', 'StringSplit', 'StringToHashBucketFast', 'StaticRegexReplace'],
    'signals and complex numbers': ['FFT', 'IFFT', 'ComplexAbs'],
    'images and indices': [
      ...[
        'CropAndResize',
        'FlipLeftRight',
        'RotateWithOffset',
        'Transform',
        'DepthToSpace',
        'SpaceToBatchND',
        'BatchToSpaceND',
      ],
      ...['GatherNd', 'ScatterNd', 'TensorScatterUpdate', 'Diag', 'LinSpace', 'LowerBound', 'UpperBound', 'Roll'],
    ],
    'sums and bits': ['Einsum', 'BitwiseAnd', 'EluGrad', 'DivNoNan', 'BroadcastArgs', 'EuclideanNorm', 'LogicalXor'],
  },
};
