/** How a flow's schedule is shifted for the size of a picture. */
export type TimeShiftType = 'exponential' | 'linear';

/** Shifts noise levels of a flow by `mu` (`time_shift` of diffusers, with its sigma of 1). */
export function timeShift(type: TimeShiftType, mu: number, t: number): number {
  const factor = type === 'exponential' ? Math.exp(mu) : mu;
  return factor / (factor + (1 / t - 1));
}

/** Stretches descending noise levels of a flow so that the last one is `terminal` (`stretch_shift_to_terminal`). */
export function stretchToTerminal(sigmas: readonly number[], terminal: number): number[] {
  const scale = (1 - sigmas.at(-1)!) / (1 - terminal);
  return sigmas.map((sigma) => 1 - (1 - sigma) / scale);
}
