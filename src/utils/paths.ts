const isSeparator = (char: string | undefined): boolean => char === '/' || char === '\\';

function withoutSeparatorsAtEnd(path: string): string {
  let end = path.length;
  while (end > 1 && isSeparator(path[end - 1])) {
    end--;
  }
  return path.slice(0, end);
}

/** Parts of a path, of a file system or an address, with '/' between them. */
export function joinPath(...parts: string[]): string {
  const [first, ...rest] = parts.filter((part) => part !== '').map(withoutSeparatorsAtEnd);
  return [first === '/' && rest.length > 0 ? '' : (first ?? ''), ...rest].join('/');
}

/** The last part of a path: 'tiny-shapes' of 'weights/tiny-shapes/'. */
export function baseName(path: string): string {
  const plain = withoutSeparatorsAtEnd(path);
  return plain.slice(Math.max(plain.lastIndexOf('/'), plain.lastIndexOf('\\')) + 1);
}

/** The directory that something lies in: 'weights' of 'weights/tiny-shapes/'. */
export function parentPath(path: string): string {
  const plain = withoutSeparatorsAtEnd(path);
  const name = baseName(plain);
  if (['', '.', '..'].includes(name)) {
    return joinPath(plain, '..');
  }
  return name === plain ? '.' : withoutSeparatorsAtEnd(plain.slice(0, -name.length));
}

/** The ending of a file's name with its dot, in small letters: '.png'; '' when there is none. */
export function extensionOf(path: string): string {
  const name = baseName(path);
  const dot = name.lastIndexOf('.');
  return dot > 0 ? name.slice(dot).toLowerCase() : '';
}
