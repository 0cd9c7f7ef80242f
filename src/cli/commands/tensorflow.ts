import { resolve } from 'node:path';
import { UsageError } from '../exit.js';
import { install, type Source } from '../tensorflow/install.js';
import { findTfjsNode } from '../tensorflow/tfjs_node.js';

export interface TensorFlowOptions {
  wheel?: string;
  libtensorflow?: string;
}

function sourceOf({ wheel, libtensorflow }: TensorFlowOptions): Source {
  if ((wheel === undefined) === (libtensorflow === undefined)) {
    throw new UsageError('tensorflow expects --wheel or --libtensorflow, one of them');
  }
  return wheel === undefined ? { libraries: resolve(libtensorflow!) } : { wheel: resolve(wheel) };
}

/** Puts the tfjs-node(-gpu) of this project on another TensorFlow and says what to do next. */
export function changeTensorFlow(options: TensorFlowOptions): void {
  const source = sourceOf(options);
  const tfjsNode = findTfjsNode();
  const version = install(tfjsNode, source, (line) => process.stderr.write(`${line}\n`));
  process.stdout.write(
    `${tfjsNode.name} ${tfjsNode.version} runs on TensorFlow ${version}; draw with --backend tensorflow\n`,
  );
}
