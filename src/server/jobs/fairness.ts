import type { Priority } from '../request/draw_request.js';

/** What a job costs its owner's clock: of two owners, the one whose jobs are 'high' has four of them drawn for each 'normal' one. */
export const COSTS: Readonly<Record<Priority, number>> = { high: 1, normal: 4, low: 16 };
/** The largest place that BullMQ's priorities hold. */
export const LAST_PLACE = 2 ** 21 - 1;
/** Lanes that are remembered before those without waiting jobs are forgotten. */
const MAX_LANES = 1000;

/**
 * Places of jobs in a queue that several owners share: self-clocked fair queueing (Golestani, INFOCOM 1994). A job's place
 * is that of its owner's job before it, or of the job that was drawn last where that is further on, plus its cost. So owners
 * take turns however many jobs one of them adds, each owner's jobs keep their order, and nobody waits for ever.
 */
export class FairClock {
  private now = 0;
  private readonly last = new Map<string, number>();

  /** The place of a new job: jobs are drawn in the order of their places, and of their arrival where those are equal. */
  place(owner: string, priority: Priority = 'normal'): number {
    const lane = `${priority} ${owner}`;
    const place = Math.min(LAST_PLACE, Math.max(this.now, this.last.get(lane) ?? 0) + COSTS[priority]);
    this.last.set(lane, place);
    this.prune();
    return place;
  }

  /** A job begins. */
  begin(place: number): void {
    this.now = Math.max(this.now, place);
  }

  /** Nothing waits: the clock starts anew, so that places never run out. */
  reset(): void {
    this.now = 0;
    this.last.clear();
  }

  private prune(): void {
    if (this.last.size > MAX_LANES) {
      for (const [lane, place] of this.last) {
        if (place <= this.now) {
          this.last.delete(lane);
        }
      }
    }
  }
}
