import { InvalidArgumentError } from '../errors.js';
import * as classes from './classes.js';
import type { SchedulerConfigJson } from './common/scheduler_config.js';
import type { SchedulerClass, SchedulerMixin } from './common/scheduling_utils.js';

const BY_CLASS_NAME = new Map<string, SchedulerClass>();
const BY_SHORT_NAME = new Map<string, { scheduler: SchedulerClass; entries: Readonly<Record<string, unknown>> }>();
for (const scheduler of Object.values(classes) as unknown as SchedulerClass[]) {
  BY_CLASS_NAME.set(scheduler.className, scheduler);
  for (const [name, entries] of Object.entries(scheduler.shortNames)) {
    BY_SHORT_NAME.set(name, { scheduler, entries });
  }
}

/** Names that `createScheduler` takes: diffusers' class names and the usual short ones. */
export function schedulerNames(): { classNames: string[]; shortNames: string[] } {
  return { classNames: [...BY_CLASS_NAME.keys()].sort(), shortNames: [...BY_SHORT_NAME.keys()].sort() };
}

/**
 * The scheduler class of a name, and the configuration entries that the name stands for.
 * @param name diffusers' class name, or a short name in any of its spellings: `dpmpp_2m_karras`, `DPM++ 2M Karras`.
 * @throws InvalidArgumentError for an unknown name; the message lists the known ones.
 */
export function findScheduler(name: string): { scheduler: SchedulerClass; entries: Readonly<Record<string, unknown>> } {
  const scheduler = BY_CLASS_NAME.get(name);
  if (scheduler) {
    return { scheduler, entries: {} };
  }
  const found = BY_SHORT_NAME.get(normalize(String(name)));
  if (!found) {
    const { classNames, shortNames } = schedulerNames();
    throw new InvalidArgumentError(
      `[scheduler] "${name}" is unknown; expects one of ${shortNames.join(', ')}, or a class: ${classNames.join(', ')}`,
    );
  }
  return found;
}

/**
 * A scheduler by name for a model whose scheduler is configured by `config`.
 * @param overrides entries that win over the name's, which win over the configuration's.
 */
export function createScheduler(
  name: string,
  config: SchedulerConfigJson = {},
  overrides: object = {},
): SchedulerMixin {
  const { scheduler, entries } = findScheduler(name);
  return scheduler.fromConfig(scheduler.fromConfig(config, entries).config, overrides);
}

/**
 * The scheduler that a scheduler_config.json describes, of the class that its `_class_name` says.
 * @throws InvalidArgumentError when the class is missing or unknown.
 */
export function schedulerFromConfig(config: SchedulerConfigJson, overrides: object = {}): SchedulerMixin {
  const name = config?._class_name;
  if (typeof name !== 'string') {
    throw new InvalidArgumentError(
      '[schedulerFromConfig] expects the object of a scheduler_config.json with a _class_name, ' +
        `such as "EulerDiscreteScheduler"; got ${JSON.stringify(name)}`,
    );
  }
  return createScheduler(name, config, overrides);
}

function normalize(name: string): string {
  return name
    .trim()
    .toLowerCase()
    .replace(/\+\+/g, 'pp')
    .replace(/[\s-]+/g, '_');
}
