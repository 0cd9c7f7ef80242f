/** Receives one warning of the library, a sentence without a line end. */
export type WarningHandler = (message: string) => void;

const toConsole: WarningHandler = (message) => console.warn(`tfjs-diffusers: ${message}`);
let handler = toConsole;

/** Tells the user of something that goes on but probably not as meant; it goes to stderr unless a handler takes it. */
export function warn(message: string): void {
  handler(message);
}

/** Sends the library's warnings to `next`; null brings back stderr. Gives back the handler that was in place. */
export function setWarningHandler(next: WarningHandler | null): WarningHandler {
  const previous = handler;
  handler = next ?? toConsole;
  return previous;
}
