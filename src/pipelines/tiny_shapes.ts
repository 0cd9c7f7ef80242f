import { pathOf } from '#platform';

/**
 * The small checkpoint that comes with the package (12 MB, 64 x 64 pixels, coloured shapes), for
 * `StableDiffusionPipeline.fromPretrained(TINY_SHAPES)` wherever a program runs: the path of its directory, in browsers its
 * address beside the library's own files.
 */
export const TINY_SHAPES: string = pathOf(new URL('../../weights/tiny-shapes', import.meta.url));
