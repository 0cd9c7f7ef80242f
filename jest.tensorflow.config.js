import base from './jest.config.js';

/** Tests on tfjs-node, which is no dependency of the repository: `npm run test:tensorflow` installs it elsewhere. */
export default {
  ...base,
  testMatch: [
    '<rootDir>/test/tensorflow/**/*.test.ts',
    '<rootDir>/test/models/{unet_2d_condition,autoencoder_kl,clip_text_model,tiny_shapes,gradients}.test.ts',
    '<rootDir>/test/ops/{memory_efficient_attention,transformer_ops}.test.ts',
  ],
  testPathIgnorePatterns: [],
};
