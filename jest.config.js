/** ES modules under jest: node --experimental-vm-modules (see the "unit" script). */
export default {
  globalSetup: './test/support/build.mjs',
  testEnvironment: './test/support/environment.cjs',
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  // a GPU's tests and the server's have configurations of their own, jest.webgpu.config.js and jest.server.config.js
  testPathIgnorePatterns: ['/node_modules/', '<rootDir>/test/webgpu/', '<rootDir>/test/server/'],
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
