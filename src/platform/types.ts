import type { Buffer } from 'node:buffer';

/** Bytes that are read piece by piece: a file, an address on the web, a Blob. */
export interface ByteSource {
  readonly size: number;
  /**
   * Exactly `length` bytes from `position` on, at the start of a buffer of their own.
   * @throws Error when fewer are there
   */
  read(position: number, length: number): Promise<Uint8Array>;
  /** Frees what the source holds; reading afterwards is an error. */
  close(): Promise<void>;
}

/** Takes the bytes of a file, in order. */
export type ByteSink = (bytes: Uint8Array) => Promise<void>;

/**
 * Files by path: of the file system in Node; in browsers addresses ('https://...', or relative to the page), the page's
 * private file system ('opfs:/...') and files that the user gave ('mounted:/...'). Where there is no file, reading throws
 * an error whose `code` is 'ENOENT'.
 */
export interface Files {
  kind(path: string): Promise<'file' | 'directory' | undefined>;
  /** Names in a directory. */
  list(dir: string): Promise<string[]>;
  /** @param maxBytes larger files are refused before they are read */
  readBytes(path: string, maxBytes?: number): Promise<Uint8Array>;
  open(path: string): Promise<ByteSource>;
  /**
   * Checks, before long work, that a file can be written at `path` later. Creates nothing.
   * @throws FileWriteError saying what is in the way
   */
  checkWritable(path: string): Promise<void>;
  /**
   * Makes a directory and those above it; one that is there already is fine.
   * @throws FileWriteError saying what is in the way
   */
  makeDirectory(path: string): Promise<void>;
  /**
   * Writes a file whole or not at all; a file that is there keeps its mode.
   * @throws FileWriteError when the path cannot be written; whatever `content` throws otherwise
   */
  write(path: string, content: Uint8Array | string | ((sink: ByteSink) => Promise<void>)): Promise<void>;
}

/** 8-bit RGB pixels, row after row from the top: [height, width, 3]. */
export interface Pixels {
  width: number;
  height: number;
  data: Uint8Array;
}

export type ImageFormat = 'png' | 'jpeg' | 'webp';

/** Pictures as files. */
export interface ImageCodecs {
  /** @param quality of JPEG and WebP, 1 to 100 */
  encode(pixels: Pixels, format: ImageFormat, quality: number): Promise<Uint8Array>;
  /**
   * The pixels of a file, turned as its EXIF orientation says and without transparency.
   * @param maxPixels larger pictures are refused before they are decoded
   * @throws Error when the bytes are no picture
   */
  decode(bytes: Uint8Array, maxPixels: number): Promise<Pixels>;
  /**
   * The EXIF block of a picture, undefined when it has none.
   * @throws Error when the bytes are no picture
   */
  exif(bytes: Uint8Array): Promise<Uint8Array | undefined>;
  /** A zlib stream that unfolds to `bytes`, without waiting. */
  deflateSync(bytes: Uint8Array): Uint8Array;
}

/** A value that is known to whatever `run` calls, however late, and to nobody else. */
export interface CallScope<T> {
  get(): T | undefined;
  run<R>(value: T, f: () => R): R;
}

/** What differs between Node and browsers; each side exports all of it under these names. */
export interface Platform {
  files: Files;
  images: ImageCodecs;
  /** An environment variable; in browsers there are none. */
  env(name: string): string | undefined;
  /** Bytes that the system could give to new allocations. */
  freeMemory(): number;
  /** Lets timers, input and signals be served between two pieces of work. */
  yieldToEventLoop(): Promise<void>;
  /** In browsers the value is known only until the first await. */
  callScope<T>(): CallScope<T>;
  /** The same bytes as Node's Buffer; in browsers, which have none, as they are. */
  asBuffer(bytes: Uint8Array): Buffer;
  /** Loads a package that only Node can use. */
  importNodePackage(name: string): Promise<unknown>;
}
