import type { FastifyRequest } from 'fastify';

/** Names that are noted; a client could think of any number. */
const MAX_NOTED = 200;

/**
 * For routes that other programs laid out: fields that are null count as left out, and those that are not known are ignored
 * and noted once.
 */
export function knownFields(
  where: string,
  known: readonly string[],
  note: (message: string) => void,
): (request: FastifyRequest) => Promise<void> {
  const noted = new Set<string>();
  return async (request) => {
    const body = request.body as Record<string, unknown> | null;
    if (typeof body !== 'object' || body === null || Array.isArray(body)) {
      return;
    }
    for (const [name, value] of Object.entries(body)) {
      if (value === null) {
        delete body[name];
      } else if (!known.includes(name) && !noted.has(name) && noted.size < MAX_NOTED) {
        noted.add(name);
        note(`${where}: the field ${JSON.stringify(name.slice(0, 80))} is not known and is ignored`);
      }
    }
  };
}
