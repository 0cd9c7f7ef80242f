/** npm run bench -- NAME [options]: runs benchmarks/NAME.mjs with what follows; dashes in the name become underscores. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const folder = dirname(fileURLToPath(import.meta.url));
const [name = '', ...options] = process.argv.slice(2);
const path = join(folder, `${name.replaceAll('-', '_')}.mjs`);

const nameOf = (file) => file.slice(0, -'.mjs'.length).replaceAll('_', '-');
/** A benchmark says in its head how to run it; what benchmarks share does not. */
const isBenchmark = (file) => readFileSync(join(folder, file), 'utf8').includes(`npm run bench -- ${nameOf(file)}`);

if (!/^[\w-]+$/.test(name) || !existsSync(path)) {
  const files = readdirSync(folder).filter((file) => file.endsWith('.mjs') && isBenchmark(file));
  const names = files.map(nameOf).join(', ');
  if (name === '') {
    console.log(`npm run bench -- NAME [options], with one of: ${names}`);
    process.exit(0);
  }
  console.error(`expected the name of a benchmark, one of: ${names}; got '${name}'`);
  process.exit(2);
}
process.argv.splice(1, process.argv.length - 1, path, ...options);
await import(pathToFileURL(path).href);
