import {
  type ConfigJson,
  type FromConfigOptions,
  type LoadModelOptions,
  loadModel,
  type ModelOptions,
  modelFromConfig,
} from '../model.js';
import { CLIPTextModel } from './clip_text_model.js';

/** CLIP's text encoder whose pooled state is projected to projection_dim (transformers' class of that name). */
export class CLIPTextModelWithProjection extends CLIPTextModel {
  constructor(json: ConfigJson, options: ModelOptions & { source?: string } = {}) {
    super(json, { ...options, withProjection: true });
  }

  static override fromPretrained(dir: string, options: LoadModelOptions = {}): Promise<CLIPTextModelWithProjection> {
    return loadModel(CLIPTextModelWithProjection, dir, options);
  }

  static override fromConfig(config: ConfigJson, options: FromConfigOptions = {}): CLIPTextModelWithProjection {
    return modelFromConfig(CLIPTextModelWithProjection, config, options);
  }
}
