import type { Tensor, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { readImage } from '../../images/read_image.js';
import { type Box, blank, crop, type PixelArray, paste, resample, toGrey, toRgb } from '../../images/resample.js';
import { expectThat, invalid, is } from '../../utils/check.js';
import { type Check, type Checks, COUNT, checkOptions, choice, withoutNulls } from './options.js';

/** 8-bit pixels, row after row from the top: grey, RGB or RGBA by the length of `data`. GeneratedImage is one. */
export interface RawImage {
  width: number;
  height: number;
  data: Uint8Array | Uint8ClampedArray;
}

/**
 * A picture: the path or the bytes of a file, pixels, or a tensor [H,W,C] or [B,H,W,C] with numbers in 0..1. A tensor
 * with as many channels as latents have is taken for latents.
 */
export type ImageInput = string | Uint8Array | RawImage | Tensor;

export type ResizeMode = 'default' | 'fill' | 'crop';

export interface PreprocessOptions {
  /** Size to bring pictures to. Default: their own, cut to a multiple of the scale factor. */
  height?: number;
  width?: number;
  /** 'default' stretches; 'crop' and 'fill' keep the proportions and cut or repeat the edges. Pictures only, no tensors. */
  resizeMode?: ResizeMode;
  /** Region of each picture that is used, in pixels. Pictures only, no tensors. */
  cropsCoords?: Box;
}

export interface VaeImageProcessorOptions {
  /** Pixels per latent. Default 8. */
  vaeScaleFactor?: number;
  /** Channels by which a tensor is known to be latents. Default 4. */
  vaeLatentChannels?: number;
  /** To -1..1. Default true. */
  doNormalize?: boolean;
  /** To 0 and 1, for masks. Default false. */
  doBinarize?: boolean;
  /** To one channel, for masks. Default false: to RGB. */
  doConvertGrayscale?: boolean;
}

const WHERE = 'VaeImageProcessor';
/** As many pixels as sharp reads from a file, about 16384 x 16384. */
const MAX_PIXELS = 2 ** 28;
const FLAG: Check = [is.boolean, 'true or false'];
/** Most pixels along an edge. */
const MAX_EDGE = 2 ** 16;
const EDGE: Check = [(value) => is.count(value) && value <= MAX_EDGE, `a whole number of pixels, 1 to ${MAX_EDGE}`];

function isRegion(value: unknown): boolean {
  const { left, top, right, bottom } = (value ?? {}) as Partial<Box>;
  const edges = [left, top, right, bottom];
  return edges.every((edge) => is.integer(edge) && Math.abs(edge!) <= MAX_EDGE) && left! < right! && top! < bottom!;
}

const PROCESSOR_CHECKS: Checks<VaeImageProcessorOptions> = {
  vaeScaleFactor: COUNT,
  vaeLatentChannels: COUNT,
  doNormalize: FLAG,
  doBinarize: FLAG,
  doConvertGrayscale: FLAG,
};

const PREPROCESS_CHECKS: Checks<PreprocessOptions> = {
  height: EDGE,
  width: EDGE,
  resizeMode: choice<ResizeMode>(['default', 'fill', 'crop']),
  cropsCoords: [isRegion, '{left, top, right, bottom} in whole pixels, with something between them'],
};

/** Pictures to what a VAE encodes, and masks (diffusers/image_processor.py VaeImageProcessor, and its numbers). */
export class VaeImageProcessor {
  private readonly options: Required<VaeImageProcessorOptions>;

  constructor(options: VaeImageProcessorOptions = {}) {
    const given = withoutNulls(WHERE, options);
    checkOptions(WHERE, options ?? {}, PROCESSOR_CHECKS);
    const { vaeScaleFactor = 8, vaeLatentChannels = 4, doNormalize = true } = given;
    const { doBinarize = false, doConvertGrayscale = false } = given;
    this.options = { vaeScaleFactor, vaeLatentChannels, doNormalize, doBinarize, doConvertGrayscale };
  }

  /**
   * @param image one picture or several, all of one kind
   * @returns [B,H,W,3] (masks [B,H,W,1]) in -1..1, masks and with `doNormalize: false` in 0..1; latents as they are
   * @throws InvalidArgumentError for what is no picture, and for pictures that make no batch
   */
  async preprocess(image: ImageInput | readonly ImageInput[], given: PreprocessOptions = {}): Promise<Tensor4D> {
    const options = withoutNulls(`${WHERE}.preprocess`, given);
    checkOptions(`${WHERE}.preprocess`, given ?? {}, PREPROCESS_CHECKS);
    const list = Array.isArray(image) ? (image as readonly ImageInput[]) : [image as ImageInput];
    expectThat(list.length > 0, WHERE, 'image', 'at least one picture', image);
    const tensors = list.filter((item) => item instanceof tf.Tensor);
    if (tensors.length === 0) {
      const pixels = await Promise.all(list.map(pixelsOf));
      return tf.tidy(() => this.finish(this.fromPixels(pixels, options)));
    }
    expectThat(tensors.length === list.length, WHERE, 'image', 'either tensors or other pictures', image);
    return this.fromTensors(tensors, options);
  }

  private fromPixels(pictures: readonly PixelArray[], options: PreprocessOptions): Tensor4D {
    const cut = pictures.map((picture) => (options.cropsCoords ? crop(picture, options.cropsCoords) : picture));
    const { height, width } = this.size(cut[0]!, options);
    const floats = cut.map((picture) => {
      const resized = resize(picture, width, height, options.resizeMode ?? 'default');
      const { data, channels } = this.options.doConvertGrayscale ? toGrey(resized) : toRgb(resized);
      return tf.tensor4d(Float32Array.from(data), [1, height, width, channels]);
    });
    return tf.div(tf.concat(floats, 0), 255);
  }

  private fromTensors(tensors: readonly Tensor[], options: PreprocessOptions): Tensor4D {
    const { resizeMode = 'default', cropsCoords } = options;
    expectThat(resizeMode === 'default', WHERE, 'resizeMode', "'default' for tensors", resizeMode);
    expectThat(cropsCoords === undefined, WHERE, 'cropsCoords', 'to be left out for tensors', cropsCoords);
    return tf.tidy(() => {
      const batch = this.batch(tensors);
      if (batch.shape[3] === this.options.vaeLatentChannels) {
        return tf.clone(batch);
      }
      const { height, width } = this.size({ height: batch.shape[1], width: batch.shape[2] }, options);
      return this.finish(tf.image.resizeNearestNeighbor(batch, [height, width]));
    });
  }

  /** Tensors [H,W,C] and [B,H,W,C] as one batch. */
  private batch(tensors: readonly Tensor[]): Tensor4D {
    const batches = tensors.map((tensor) => {
      const usable = !tensor.isDisposed && (tensor.rank === 3 || tensor.rank === 4);
      expectThat(usable, WHERE, 'image', 'a tensor [H,W,C] or [B,H,W,C]', tensor);
      return (tensor.rank === 3 ? tf.expandDims(tensor, 0) : tensor) as Tensor4D;
    });
    const [, ...shape] = batches[0]!.shape;
    const other = batches.find((batch) => `${batch.shape.slice(1)}` !== `${shape}`);
    expectThat(!other, WHERE, 'image', `tensors of one shape, as the first one's [${shape}]`, other);
    const wanted = [this.options.doConvertGrayscale ? 1 : 3, this.options.vaeLatentChannels];
    expectThat(
      wanted.includes(shape[2]!),
      WHERE,
      'image',
      `${wanted.join(' or ')} channels, the last axis`,
      batches[0],
    );
    return tf.concat(batches, 0);
  }

  /** The wanted size, or else the picture's, cut to a multiple of the scale factor. */
  private size(picture: { width: number; height: number }, { width, height }: PreprocessOptions) {
    const multiple = this.options.vaeScaleFactor;
    const cut = (size: number) => size - (size % multiple);
    const size = { width: cut(width ?? picture.width), height: cut(height ?? picture.height) };
    const got = `${width ?? picture.width} x ${height ?? picture.height}`;
    if (size.width === 0 || size.height === 0) {
      throw invalid(WHERE, 'image', `at least ${multiple} x ${multiple} pixels`, got);
    }
    checkPixels(size.width, size.height, got);
    return size;
  }

  private finish(image: Tensor4D): Tensor4D {
    const normal = this.options.doNormalize ? tf.sub<Tensor4D>(tf.mul(image, 2), 1) : image;
    return this.options.doBinarize ? tf.cast(tf.greaterEqual(normal, 0.5), 'float32') : normal;
  }
}

/** @throws InvalidArgumentError for a size that no picture can be brought to */
function checkPixels(width: number, height: number, got: string): void {
  const usable = width >= 1 && height >= 1 && width * height <= MAX_PIXELS;
  expectThat(usable, WHERE, 'image', `a size of 1 to ${MAX_PIXELS} pixels`, got);
}

/** Brings a picture to a size, as diffusers' resize, _resize_and_crop and _resize_and_fill do. */
export function resize(picture: PixelArray, width: number, height: number, mode: ResizeMode): PixelArray {
  if (mode === 'default') {
    return resample(picture, width, height);
  }
  const [ratio, own] = [width / height, picture.width / picture.height];
  const byWidth = mode === 'crop' ? ratio > own : ratio < own;
  const innerWidth = byWidth ? width : Math.floor((picture.width * height) / picture.height);
  const innerHeight = byWidth ? Math.floor((picture.height * width) / picture.width) : height;
  checkPixels(innerWidth, innerHeight, `${picture.width} x ${picture.height} pixels, to ${width} x ${height}`);
  const inner = resample(picture, innerWidth, innerHeight);
  const canvas = blank(width, height, picture.channels);
  const [left, top] = [half(width) - half(inner.width), half(height) - half(inner.height)];
  paste(canvas, inner, left, top);
  if (mode === 'fill') {
    repeatEdges(canvas, inner, left, top);
  }
  return canvas;
}

const half = (size: number) => Math.floor(size / 2);

/** Fills what a picture in the middle leaves free, `left` or `top` pixels on each side, with its edges. */
function repeatEdges(canvas: PixelArray, inner: PixelArray, left: number, top: number): void {
  const { width, height } = inner;
  const edge = (box: Box) => resample(inner, left > 0 ? left : width, top > 0 ? top : height, 'bicubic', box);
  if (top > 0) {
    paste(canvas, edge({ left: 0, top: 0, right: width, bottom: 0 }), 0, 0);
    paste(canvas, edge({ left: 0, top: height, right: width, bottom: height }), 0, top + height);
  } else if (left > 0) {
    paste(canvas, edge({ left: 0, top: 0, right: 0, bottom: height }), 0, 0);
    paste(canvas, edge({ left: width, top: 0, right: width, bottom: height }), left + width, 0);
  }
}

export async function pixelsOf(image: ImageInput): Promise<PixelArray> {
  if (is.string(image) || image instanceof Uint8Array) {
    return readImage(image);
  }
  const { width, height, data } = (image ?? {}) as Partial<RawImage>;
  const channels = (data?.length ?? 0) / (width! * height!);
  const usable = is.count(width) && is.count(height) && ArrayBuffer.isView(data) && [1, 3, 4].includes(channels);
  const expected = 'a path, the bytes of a file, a tensor, or {width, height, data} with 1, 3 or 4 bytes a pixel';
  if (!usable) {
    throw invalid(WHERE, 'image', expected, image);
  }
  return { width, height, channels, data: new Uint8Array(data.buffer, data.byteOffset, data.length) };
}
