import type { DrawRequest } from './draw_request.js';

const TAG = /<lora:([^:<>]{1,200}):(-?\d+(?:\.\d+)?)(?::[^<>]*)?>/g;

/** Takes `<lora:name:weight>` out of a prompt in the web UI's syntax (its modules/extra_networks.py) into `lora`. */
export function takeLoraTags(request: DrawRequest): DrawRequest {
  const { prompt, prompt_syntax: syntax, lora = [] } = request;
  const tags = syntax === 'a1111' ? [...prompt.matchAll(TAG)] : [];
  if (tags.length === 0) {
    return request;
  }
  const found = tags.map(([, name, weight]) => ({ name: name!, weight: Number(weight) }));
  return { ...request, prompt: prompt.replace(TAG, '').trim(), lora: [...lora, ...found] };
}
