/** ES modules under jest: node --experimental-vm-modules (see the "unit" script). */
export default {
  globalSetup: './test/support/build.mjs',
  testEnvironment: './test/support/environment.cjs',
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  // what needs a GPU, Chromium, tfjs-node or a server has a configuration of its own: jest.webgpu.config.js, jest.browser.config.js, jest.tensorflow.config.js, jest.server.config.js
  testPathIgnorePatterns: [
    '/node_modules/',
    '<rootDir>/test/webgpu/',
    '<rootDir>/test/browser/chromium/',
    '<rootDir>/test/tensorflow/',
    '<rootDir>/test/server/',
  ],
  extensionsToTreatAsEsm: ['.ts'],
  moduleNameMapper: {
    '^(\\.{1,2}/.*)\\.js$': '$1',
    '^#native-addon$': '<rootDir>/src/backends/native/addon.ts',
    '^#platform$': '<rootDir>/src/platform/node/index.ts',
  },
  transform: {
    '^.+\\.ts$': [
      '@swc/jest',
      { jsc: { target: 'es2022', parser: { syntax: 'typescript' } }, module: { type: 'es6' } },
    ],
  },
  maxWorkers: 2,
  testTimeout: 300000,
};
