import base from './jest.config.js';

/** Tests that need a GPU, in software or real: `npm run test:webgpu`. One at a time: they share the processor anyway. */
export default {
  ...base,
  testMatch: ['<rootDir>/test/webgpu/**/*.test.ts'],
  testPathIgnorePatterns: [],
  testTimeout: 2 ** 31 - 1, // a GPU in software takes minutes for a picture on a busy machine
  maxWorkers: 1,
};
