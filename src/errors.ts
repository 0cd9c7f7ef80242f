/** Base class of every error that this library throws on purpose; `instanceof DiffusersError` tells them from bugs. */
export class DiffusersError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
  }
}

/** An option, argument or configuration value is not usable; the message says what was expected. */
export class InvalidArgumentError extends DiffusersError {}

/** A configuration file (config.json, scheduler_config.json, model_index.json) is missing, unreadable or out of range. */
export class ConfigError extends DiffusersError {}

/** A checkpoint file is damaged or does not follow its format; nothing of it has been used. */
export class CheckpointError extends DiffusersError {}

/** A state dict does not fit the model: lists every missing, unused and wrongly shaped tensor. */
export class StateDictError extends DiffusersError {}

/** A file or repository could not be found or downloaded. */
export class DownloadError extends DiffusersError {}

/** A file could not be written; nothing half-written is left and what was there before stays. */
export class FileWriteError extends DiffusersError {}

/** A picture cannot be drawn again from its metadata; the message says why. */
export class NotReproducibleError extends DiffusersError {}

/** A backend or kernel that was asked for is not available on this machine. */
export class BackendError extends DiffusersError {}

/** A computation needs more memory than is free or allowed. */
export class OutOfMemoryError extends DiffusersError {}

/** The call was stopped through its AbortSignal. */
export class AbortedError extends DiffusersError {}
