/** Writes the page into a directory; gives the sizes of its scripts in bytes, by name. */
export function buildPage(to: string): Promise<Record<string, number>>;
