import { createScheduler, findScheduler, type SchedulerMixin, schedulerNames } from '../../schedulers/index.js';
import { nearestName } from '../../utils/check.js';
import { RequestError } from '../errors.js';

/** The web UI's samplers (modules/sd_samplers_kdiffusion.py, sd_samplers_timesteps.py) by the short names of schedulers here. */
const WEB_UI_SAMPLERS: Readonly<Record<string, string>> = {
  'DPM++ 2M': 'dpmpp_2m',
  'DPM++ SDE': 'dpmpp_sde',
  'DPM++ 2M SDE': 'dpmpp_2m_sde',
  'DPM++ 2S': 'dpmpp_2s',
  'Euler a': 'euler_a',
  Euler: 'euler',
  LMS: 'lms',
  Heun: 'heun',
  DPM2: 'dpm2',
  'DPM2 a': 'dpm2_a',
  DDIM: 'ddim',
  PLMS: 'plms',
  UniPC: 'unipc',
  LCM: 'lcm',
  DDPM: 'ddpm',
  DEIS: 'deis',
  TCD: 'tcd',
  'SA-Solver': 'sa_solver',
};

/** A sampler as clients know it. */
export interface SamplerDescription {
  name: string;
  aliases: string[];
}

/** Samplers under the web UI's names; the class that computes each stands among its aliases. */
export function samplers(): SamplerDescription[] {
  return Object.entries(WEB_UI_SAMPLERS).map(([name, short]) => ({
    name,
    aliases: [short, findScheduler(short).scheduler.className],
  }));
}

/** Spacings of noise levels: the web UI's names and the entries of a scheduler's configuration that they stand for. */
const SPACINGS: Readonly<Record<string, { label: string; entries: Readonly<Record<string, unknown>> }>> = {
  automatic: { label: 'Automatic', entries: {} },
  karras: { label: 'Karras', entries: { use_karras_sigmas: true } },
  exponential: { label: 'Exponential', entries: { use_exponential_sigmas: true } },
  beta: { label: 'Beta', entries: { use_beta_sigmas: true } },
  sgm_uniform: { label: 'SGM Uniform', entries: { timestep_spacing: 'trailing' } },
};

export const spacings = (): { name: string; label: string }[] =>
  Object.entries(SPACINGS).map(([name, { label }]) => ({ name, label }));

const plain = (name: string) =>
  name
    .trim()
    .toLowerCase()
    .replace(/[\s-]+/g, '_');

function spacingOf(name: string): Readonly<Record<string, unknown>> {
  const found = SPACINGS[plain(name)];
  if (!found) {
    const known = Object.keys(SPACINGS);
    throw new RequestError(`there is no scheduler '${name}'; it is one of ${known.join(', ')}`);
  }
  return found.entries;
}

/** The names that a sampler's second half may stand for: 'DPM++ 2M Karras' was one sampler before the web UI 1.9. */
function splitName(name: string): { sampler: string; entries: Readonly<Record<string, unknown>> } {
  const match = /^(.*\S)[\s_](karras|exponential)$/i.exec(name.trim());
  return match ? { sampler: match[1]!, entries: spacingOf(match[2]!) } : { sampler: name, entries: {} };
}

function classOf(name: string) {
  const known = Object.entries(WEB_UI_SAMPLERS).find(([label]) => label.toLowerCase() === name.trim().toLowerCase());
  try {
    return findScheduler(known?.[1] ?? name);
  } catch {
    const names = [...Object.keys(WEB_UI_SAMPLERS), ...schedulerNames().shortNames];
    const near = nearestName(name, names);
    const advice = near === undefined ? `it is one of ${names.join(', ')}` : `did you mean '${near}'?`;
    throw new RequestError(`there is no sampler '${name}'; ${advice}`);
  }
}

/**
 * The scheduler that a request names, for a model whose own one is `base`.
 *
 * @throws RequestError for names that do not exist and for spacings that the sampler does not have
 */
export function schedulerFor(
  { sampler, scheduler }: { sampler?: string; scheduler?: string },
  base: SchedulerMixin,
): SchedulerMixin {
  const { sampler: name, entries: second } = splitName(sampler ?? base.className);
  const { scheduler: found, entries: first } = classOf(name);
  const overrides = { ...first, ...second, ...(scheduler === undefined ? {} : spacingOf(scheduler)) };
  const missing = Object.keys(overrides).find((entry) => !(entry in found.fields));
  if (missing !== undefined) {
    throw new RequestError(`the sampler '${name}' has no scheduler '${scheduler ?? sampler}'; use 'automatic'`);
  }
  return createScheduler(found.className, base.config, overrides);
}

/** @throws RequestError for names that no model could use */
export function checkSampler({ sampler, scheduler }: { sampler?: string; scheduler?: string }): void {
  if (sampler !== undefined) {
    classOf(splitName(sampler).sampler);
  }
  if (scheduler !== undefined) {
    spacingOf(scheduler);
  }
}
