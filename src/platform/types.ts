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
  /**
   * Writes files into a directory, all or none of them: `fill` writes them elsewhere, and they take their places when all
   * are there. Other files of the directory stay.
   *
   * @param isReplaced tells, by path in the directory, which files go although none of the same name is written
   * @throws FileWriteError when the directory cannot be written; whatever `fill` throws otherwise
   */
  save(dir: string, fill: (staging: string) => Promise<void>, isReplaced?: (path: string) => boolean): Promise<void>;
  /**
   * Brings a directory in which a program was killed while it saved to the state before or after it; to be called before
   * reading.
   * @throws FileWriteError when the directory cannot be written
   */
  finishSaves(dir: string): Promise<void>;
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

/** A file of a repository at a commit. */
export interface HubContent {
  path: string;
  size: number;
  /** Name of its content: the SHA-256 of an LFS file, the git hash of another. */
  etag: string;
}

/** Content of the hub that is on its way; one program at a time holds it. */
export interface IncompleteContent {
  /** Bytes that are there. */
  readonly size: number;
  /** The server's own name of the content that they are of (its ETag); undefined when they cannot be continued. */
  readonly validator: string | undefined;
  /** Throws away what is there. */
  restart(validator: string | undefined): Promise<void>;
  /** @throws FileWriteError when the disk is full or fails; nothing is kept then */
  write(bytes: Uint8Array): Promise<void>;
  /** @throws DownloadError when the bytes are not what the content's name says; nothing is kept then */
  complete(): Promise<void>;
  /** Ends the work on it. What is worth it stays, to be continued later. */
  release(): Promise<void>;
}

/** A repository in the cache that Hugging Face's libraries share. */
export interface HubCache {
  readonly root: string;
  snapshotDir(commit: string): string;
  /** The snapshot directory of a revision, a branch, tag or commit; undefined when the cache has none. */
  findSnapshot(revision: string): Promise<string | undefined>;
  /** Makes a revision's name stand for a commit. */
  writeRef(revision: string, commit: string): Promise<void>;
  /**
   * Whether a file of a snapshot is there with its size and content; where only its blob is, links it. A damaged one is
   * removed, with a warning.
   */
  has(commit: string, file: HubContent): Promise<boolean>;
  /** Whether a file of a snapshot has another content than its name in the cache says. */
  isDamaged(path: string): Promise<boolean>;
  /** Begins a download or continues it; undefined when another program has finished it in the meantime. */
  begin(commit: string, file: HubContent, signal?: AbortSignal): Promise<IncompleteContent | undefined>;
  /** Takes a finished download into the cache. */
  adopt(part: IncompleteContent, commit: string, file: HubContent): Promise<void>;
  /** Every readable file under a directory, as paths with forward slashes relative to it. */
  list(dir: string): Promise<string[]>;
}

/** An entry of the hub's listing of a repository, as its web API gives it. */
export interface HubEntry {
  type: string;
  path?: unknown;
  oid?: string;
  size?: unknown;
  /** Of files that git stores elsewhere. */
  lfs?: { oid: string; size: unknown };
}

/** A repository at a revision, and how the hub is asked. */
export interface HubListing {
  id: string;
  revision: string;
  hubUrl: string;
  fetch: typeof fetch;
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
  /** The directory that Hugging Face's libraries share; '' in browsers. */
  hubCacheDir(): string;
  /** The token that `hf auth login` stored. */
  storedHubToken(): Promise<string | undefined>;
  /** In browsers only workers have such a cache: the page's private file system, of which '' is the usual directory. */
  openHubCache(cacheDir: string, id: string): HubCache | undefined;
  /** Every entry of a repository of models, directories included. */
  listHubFiles(listing: HubListing): AsyncIterable<HubEntry>;
  /** The address of a file of the package as a path that `files` takes. */
  pathOf(address: URL): string;
  /** Whether this is Node, where packages for Node can be loaded. */
  hasNodePackages: boolean;
  /** Why no GPU can be used, where the system tells without a driver being asked. */
  missingGpuDriver(): string | undefined;
  /** Loads a package that only Node can use. */
  importNodePackage(name: string): Promise<unknown>;
  /** The file of a shared library that the process has loaded, by a pattern of its path. */
  loadedLibrary(path: RegExp): string | undefined;
  /** Gives `util` back a function that newer versions of Node lack and that packages still call. */
  restoreIsNullOrUndefined(): void;
}
