import type { DrawRequest } from '../request/draw_request.js';

/** Share of the newest job in the average. */
const NEW = 0.3;
const DEFAULT_EDGE = 512;
const DEFAULT_STEPS = 20;

/** About how much work a request is: pixels x steps x pictures. */
function workOf({ width = DEFAULT_EDGE, height = DEFAULT_EDGE, steps = DEFAULT_STEPS, n = 1, hires }: DrawRequest) {
  const second = hires ? hires.scale ** 2 * hires.strength * (hires.steps ?? steps) : 0;
  return width * height * (steps + second) * n;
}

/** Learns how long jobs of each model take. */
export class ExpectedTime {
  private readonly secondsPerWork = new Map<string, number>();

  learn(model: string, request: DrawRequest, seconds: number): void {
    const measured = seconds / workOf(request);
    const before = this.secondsPerWork.get(model) ?? measured;
    this.secondsPerWork.set(model, before + NEW * (measured - before));
  }

  /** Seconds; undefined before a job of the model has ended. */
  of(model: string, request: DrawRequest): number | undefined {
    const rate = this.secondsPerWork.get(model);
    return rate === undefined ? undefined : rate * workOf(request);
  }
}
