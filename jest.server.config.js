import base from './jest.config.js';

/** Tests of the server as programs use it: `npm run test:server`. */
export default {
  ...base,
  testMatch: ['<rootDir>/test/server/**/*.test.ts'],
  testPathIgnorePatterns: ['/node_modules/'],
};
