import base from './jest.config.js';

/** Tests that need a GPU, in software or real: `npm run test:webgpu`. One at a time: they share the processor anyway. */
export default {
  ...base,
  testMatch: ['<rootDir>/test/webgpu/**/*.test.ts'],
  testPathIgnorePatterns: [],
  maxWorkers: 1,
};
