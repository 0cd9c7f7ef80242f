import type { HubEntry, HubListing } from '../types.js';

/** What @huggingface/hub does in Node; its package cannot be bundled for a browser by every bundler. */
export async function* listHubFiles({ id, revision, hubUrl, fetch }: HubListing): AsyncGenerator<HubEntry> {
  let url: string | undefined = `${hubUrl}/api/models/${id}/tree/${revision}?recursive=true`;
  while (url) {
    const answer: Response = await fetch(url, { headers: { Accept: 'application/json' } });
    yield* (await answer.json()) as HubEntry[];
    url = answer.headers.get('Link')?.match(/<([^>]+)>;\s*rel="next"/)?.[1];
  }
}
