import type { SchedulerConfigJson } from '../../src/schedulers/index.js';

/** The settings that Python diffusers drew a picture with. */
export interface CaseSettings {
  prompts: string[];
  negativePrompt: string;
  numInferenceSteps: number;
  guidanceScale: number;
  seed: number;
  height: number | undefined;
  width: number | undefined;
  /** Class name; undefined for the checkpoint's own. */
  scheduler: string | undefined;
  schedulerConfig: SchedulerConfigJson;
}

/** Reads them from a case's metadata, where they stand in Python's spelling. */
export function caseSettings(metadata: Record<string, string>): CaseSettings {
  const optional = (text: string | undefined) => (text && text !== 'None' ? Number(text) : undefined);
  return {
    prompts: JSON.parse(metadata.prompt!.replaceAll("'", '"')) as string[],
    negativePrompt: metadata.negative!,
    numInferenceSteps: Number(metadata.steps),
    guidanceScale: Number(metadata.guidance),
    seed: Number(metadata.seed),
    height: optional(metadata.height),
    width: optional(metadata.width),
    scheduler: metadata.scheduler === 'None' ? undefined : metadata.scheduler,
    schedulerConfig: JSON.parse(metadata.scheduler_config ?? '{}') as SchedulerConfigJson,
  };
}
