import { ATTENTION } from './bugs/attention.mjs';
import { FILES } from './bugs/files.mjs';
import { MODELS } from './bugs/models.mjs';
import { NATIVE } from './bugs/native.mjs';
import { OPS } from './bugs/ops.mjs';
import { PIPELINES } from './bugs/pipelines.mjs';
import { SCHEDULERS } from './bugs/schedulers.mjs';

/**
 * Bugs that the tests must notice, each planted alone:
 *   name   layer or part, and what is wrong
 *   file   where it is
 *   from   text that occurs in the file exactly once, and
 *   to     what stands there instead
 *   tests  who must notice: a jest file, with a pattern of test names if not all of it is needed; or a program of the native
 *          tests (native_tests), with its filter
 * A bug of native/ is built first.
 */
export const BUGS = [...OPS, ...MODELS, ...ATTENTION, ...SCHEDULERS, ...PIPELINES, ...FILES, ...NATIVE];
