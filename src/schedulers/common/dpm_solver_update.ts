import * as tf from '@tensorflow/tfjs-core';
import { InvalidArgumentError } from '../../errors.js';
import { exp32, f32, sqrt32 } from './numeric.js';
import type { SchedulePoint } from './solver_scheduler.js';

export type AlgorithmType = 'dpmsolver' | 'dpmsolver++' | 'sde-dpmsolver' | 'sde-dpmsolver++';

/**
 * Coefficients of an exponential integrator's step between two points of the schedule, for the sample, the model's
 * output (`d0`), its first and second differences and the noise. Tables of https://arxiv.org/abs/2206.00927 and
 * https://arxiv.org/abs/2211.01095, in float32 as diffusers computes them.
 */
export interface StepCoefficients {
  sample: number;
  d0: number;
  d1Midpoint: number;
  d1Heun: number;
  d2: number;
  noise: number;
}

export function stepCoefficients(algorithm: AlgorithmType, from: SchedulePoint, to: SchedulePoint): StepCoefficients {
  const { alpha, sigma } = to;
  const h = f32(to.lambda - from.lambda);
  const h2 = f32(h * h);
  const grown = f32(exp32(h) - 1);
  const shrunk = f32(exp32(-h) - 1);
  const decay = f32(1 - exp32(f32(-2 * h)));
  switch (algorithm) {
    case 'dpmsolver++':
      return withMidpoint({
        sample: f32(sigma / from.sigma),
        d0: -f32(alpha * shrunk),
        d1Heun: f32(alpha * f32(f32(shrunk / h) + 1)),
        d2: -f32(alpha * f32(f32(f32(shrunk + h) / h2) - 0.5)),
        noise: 0,
      });
    case 'dpmsolver':
      return withMidpoint({
        sample: f32(alpha / from.alpha),
        d0: -f32(sigma * grown),
        d1Heun: -f32(sigma * f32(f32(grown / h) - 1)),
        d2: -f32(sigma * f32(f32(f32(grown - h) / h2) - 0.5)),
        noise: 0,
      });
    case 'sde-dpmsolver++':
      return withMidpoint({
        sample: f32(f32(sigma / from.sigma) * exp32(-h)),
        d0: f32(alpha * decay),
        d1Heun: f32(alpha * f32(f32(decay / f32(-2 * h)) + 1)),
        d2: f32(alpha * f32(f32(f32(decay - 2 * h) / f32(f32(2 * h) * f32(2 * h))) - 0.5)),
        noise: f32(sigma * sqrt32(decay)),
      });
    case 'sde-dpmsolver':
      return withMidpoint({
        sample: f32(alpha / from.alpha),
        d0: -2 * f32(sigma * grown),
        d1Heun: -2 * f32(sigma * f32(f32(grown / h) - 1)),
        d2: Number.NaN,
        noise: f32(sigma * sqrt32(f32(exp32(f32(2 * h)) - 1))),
      });
  }
}

function withMidpoint(coefficients: Omit<StepCoefficients, 'd1Midpoint'>): StepCoefficients {
  return { ...coefficients, d1Midpoint: 0.5 * coefficients.d0 };
}

/** Sum of the terms that have a coefficient, from left to right. */
export function combine(terms: readonly (readonly [number, tf.Tensor | undefined])[]): tf.Tensor {
  return terms
    .filter((term): term is readonly [number, tf.Tensor] => term[1] !== undefined)
    .map(([coefficient, tensor]) => tf.mul(coefficient, tensor) as tf.Tensor)
    .reduce((sum, term) => tf.add(sum, term));
}

export function checkThirdOrder(className: string, algorithm: AlgorithmType): void {
  if (algorithm === 'sde-dpmsolver') {
    throw new InvalidArgumentError(
      `[${className}] has no third order for algorithm_type "sde-dpmsolver"; set solver_order to 1 or 2, or ` +
        'algorithm_type to "sde-dpmsolver++"',
    );
  }
}
