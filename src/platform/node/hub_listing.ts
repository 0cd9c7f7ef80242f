import type { HubEntry, HubListing } from '../types.js';

export async function* listHubFiles({ id, ...listing }: HubListing): AsyncGenerator<HubEntry> {
  const { listFiles } = await import('@huggingface/hub');
  yield* listFiles({ repo: { type: 'model', name: id }, recursive: true, ...listing });
}
