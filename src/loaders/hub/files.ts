import { DownloadError } from '../../errors.js';
import { baseName, joinPath } from '../../utils/paths.js';
import { weightFileCandidates } from '../checkpoint_files.js';

/** Components that a picture does not need; their weights are left where they are. */
const OPTIONAL = new Set(['safety_checker', 'feature_extractor']);
/** Classes that are made of configuration alone. */
const CONFIGURATION_CLASS = /(Tokenizer|Scheduler|Processor|Extractor)(Fast)?$/;
/** How diffusers and transformers name weights. */
const BASE_NAMES = ['diffusion_pytorch_model', 'model'];

/** A directory of a repository to be loaded; '' is its root. */
export interface Component {
  dir: string;
  /** Whether its weights are wanted. */
  weights: boolean;
  /** Whether a picture can be drawn without it. */
  optional: boolean;
}

/** Files to have, and what should be told about the choice. */
export interface FileSelection {
  files: string[];
  /** Components whose weights were found nowhere, or not all of their shards. */
  incomplete: string[];
  warnings: string[];
}

/** The components that a model_index.json lists: every key with [library, class], as diffusers' DiffusionPipeline. */
export function pipelineComponents(modelIndex: unknown): Component[] {
  return Object.entries((modelIndex ?? {}) as Record<string, unknown>)
    .filter(([name, value]) => !name.startsWith('_') && Array.isArray(value) && typeof value[1] === 'string')
    .map(([dir, value]) => ({
      dir,
      weights: !OPTIONAL.has(dir) && !CONFIGURATION_CLASS.test((value as [string, string])[1]),
      optional: OPTIONAL.has(dir),
    }));
}

/** Whether a file lies in a directory itself, not deeper. */
const isIn = (dir: string, path: string): boolean => path === joinPath(dir, baseName(path));

/** A model, scheduler or tokenizer of its own in `dir`; undefined when the repository has no such directory. */
export function singleComponent(paths: readonly string[], dir: string): Component | undefined {
  const within = paths.filter((path) => isIn(dir, path));
  const weights = within.includes(joinPath(dir, 'config.json'));
  const known = weights || within.some((path) => /(scheduler|tokenizer|preprocessor)_config\.json$/.test(path));
  return known ? { dir, weights, optional: false } : undefined;
}

const isConfiguration = (name: string): boolean =>
  /\.(json|txt|model|jinja)$/.test(name) && !/\.index(\.[^.]+)?\.json$/.test(name) && !/^(README|LICENSE)/i.test(name);

/** Weight files of one component, best choice first as `openStateDict` takes them. */
function selectWeights(
  names: string[],
  variant: string | undefined,
): { files: string[]; complete: boolean; isVariant: boolean } {
  for (const tried of variant === undefined ? [undefined] : [variant, undefined]) {
    for (const base of BASE_NAMES) {
      const [single, index] = weightFileCandidates(base, tried).map(({ file }) => file);
      if (names.includes(single!)) {
        return { files: [single!], complete: true, isVariant: tried === variant };
      }
      if (names.includes(index!)) {
        const shards = names.filter((name) => isShard(name, base, tried));
        const count = Number(shards[0]?.match(/-of-(\d{5})/)?.[1] ?? Number.NaN);
        return { files: [index!, ...shards], complete: shards.length === count, isVariant: tried === variant };
      }
    }
  }
  return { files: [], complete: false, isVariant: false };
}

/** diffusers names shards base.fp16-00001-of-00002.safetensors, older releases base-00001-of-00002.fp16.safetensors. */
function isShard(name: string, base: string, variant: string | undefined): boolean {
  const number = name.match(/-\d{5}-of-\d{5}/)?.[0];
  const forms =
    variant === undefined ? [`${base}${number}`] : [`${base}.${variant}${number}`, `${base}${number}.${variant}`];
  return number !== undefined && forms.some((form) => name === `${form}.safetensors`);
}

/**
 * Which of a repository's files loading needs: each component's configuration and its safetensors weights, of the
 * variant where it has them.
 * @param paths every file of the repository
 * @throws {DownloadError} when a component's weights are there, but only pickled
 */
export function selectFiles(paths: readonly string[], components: Component[], variant?: string): FileSelection {
  const selection: FileSelection = { files: [], incomplete: [], warnings: [] };
  for (const { dir, weights } of components) {
    const names = paths.filter((path) => isIn(dir, path)).map((path) => baseName(path));
    const chosen = names.filter(isConfiguration);
    if (weights) {
      const { files, complete, isVariant } = selectWeights(names, variant);
      const pickle = names.find((name) => /\.(bin|ckpt|pt|pth)$/.test(name));
      if (files.length === 0 && pickle !== undefined) {
        throw new DownloadError(
          `the weights in '${dir || '.'}' come only as ${pickle}, a Python pickle, which can run code and is not read; ` +
            'take a revision with safetensors, or convert them in Python: pipe.save_pretrained(dir, safe_serialization=True)',
        );
      }
      if (!complete) {
        selection.incomplete.push(dir);
      } else if (!isVariant) {
        selection.warnings.push(`'${dir || '.'}' has no weights of variant '${variant}'; taking ${files[0]}`);
      }
      chosen.push(...files);
    }
    selection.files.push(...chosen.map((name) => joinPath(dir, name)));
  }
  return selection;
}

/** Whether a path matches a shell pattern in which, as in Python's fnmatch, * also matches slashes. */
export function matchesPattern(path: string, pattern: string): boolean {
  const expression = pattern.replace(/[.*+?^${}()|[\]\\]/g, (c) => (c === '*' ? '.*' : c === '?' ? '.' : `\\${c}`));
  return new RegExp(`^${expression}$`, 's').test(path);
}
