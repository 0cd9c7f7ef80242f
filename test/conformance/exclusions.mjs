/** Tests of tfjs-core that do not apply to the backend, by part of their full name. */
export const EXCLUSIONS = [];
