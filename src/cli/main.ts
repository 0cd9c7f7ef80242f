#!/usr/bin/env node
import { runCommandLine } from './program.js';

for (const stream of [process.stdout, process.stderr]) {
  // whoever read the output has gone; pictures are written all the same
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') {
      throw error;
    }
  });
}

process.exit(await runCommandLine(process.argv));
