import base from './jest.config.js';

/** Tests that need Chromium: `npm run test:browser`. */
export default {
  ...base,
  testMatch: ['<rootDir>/test/browser/chromium/**/*.test.ts'],
  testPathIgnorePatterns: [],
  maxWorkers: 1,
  // a GPU in software draws a picture in minutes on a busy machine
  testTimeout: 2 ** 31 - 1,
};
