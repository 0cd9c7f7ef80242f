import type { Tensor, Tensor4D } from '@tensorflow/tfjs-core';
import * as tf from '@tensorflow/tfjs-core';
import { type ControlNetModel, type DownPathResiduals, MultiControlNetModel } from '../../models/index.js';
import { expectThat, invalid, is } from '../../utils/check.js';
import type { Conditions } from '../common/conditioning.js';
import type { LoopStep } from '../common/denoising_loop.js';
import type { Plan, Start } from '../common/denoising_pipeline.js';
import { type Pictures, readInputs } from '../common/image_latents.js';
import { type ImageInput, type PreprocessOptions, VaeImageProcessor } from '../common/image_processor.js';
import type { Check, Checks } from '../common/options.js';

/** Options of the calls of all ControlNet pipelines. What can be a list has one number for each ControlNet. */
export interface ControlNetOptions {
  /** Factor of what the ControlNet adds. */
  controlnetConditioningScale?: number | readonly number[];
  /** Follows the control without a prompt: the negative prompt's half does without, deep layers count more. Default false. */
  guessMode?: boolean;
  /** Share of the steps, 0 to 1, after which the ControlNet begins. Default 0. */
  controlGuidanceStart?: number | readonly number[];
  /** Share of the steps, 0 to 1, after which it ends. Default 1. */
  controlGuidanceEnd?: number | readonly number[];
}

/** Control pictures: for several ControlNets a list with a picture for each, or such a list for each prompt. */
export type ControlPictures = Pictures | readonly (readonly ImageInput[])[];

const numberOrList = (usable: (value: unknown) => boolean, expected: string): Check => [
  (value) => (Array.isArray(value) ? value.every(usable) : usable(value)),
  `${expected}, or a list with one for each ControlNet`,
];
const SHARES = numberOrList(is.share, 'a number from 0 to 1');

export const CONTROLNET_CHECKS: Checks<ControlNetOptions> = {
  controlnetConditioningScale: numberOrList(is.number, 'a number'),
  guessMode: [is.boolean, 'true or false'],
  controlGuidanceStart: SHARES,
  controlGuidanceEnd: SHARES,
};

/** What control needs of a pipeline. */
export interface ControlledPipeline {
  className: string;
  vae: { scaleFactor: number };
  controlnet: ControlNetModel | MultiControlNetModel;
}

/** The option with the control pictures, and what it holds. */
export interface ControlInput {
  option: 'image' | 'controlImage';
  pictures: ControlPictures;
  /** Size and region that the pictures are brought to. */
  size?: PreprocessOptions;
}

export const netsOf = ({ controlnet }: ControlledPipeline): readonly ControlNetModel[] =>
  controlnet instanceof MultiControlNetModel ? controlnet.nets : [controlnet];

/** One number for each ControlNet. */
function perNet(
  { className, controlnet }: ControlledPipeline,
  name: string,
  value: number | readonly number[],
  count: number,
): readonly number[] {
  if (typeof value === 'number') {
    return new Array<number>(count).fill(value);
  }
  const several = controlnet instanceof MultiControlNetModel;
  const expected = several ? `one number for each of ${count} ControlNets` : 'one number for the one ControlNet';
  expectThat(value.length === count, className, name, expected, value);
  return value;
}

/** A control call, with a number for each ControlNet. */
interface Settings {
  scales: readonly number[];
  starts: readonly number[];
  ends: readonly number[];
  guessMode: boolean;
}

function settingsOf(pipe: ControlledPipeline, options: ControlNetOptions): Settings {
  const nets = netsOf(pipe);
  const {
    controlnetConditioningScale: scale = 1,
    controlGuidanceStart: start = 0,
    controlGuidanceEnd: end = 1,
  } = options;
  return {
    scales: perNet(pipe, 'controlnetConditioningScale', scale, nets.length),
    starts: perNet(pipe, 'controlGuidanceStart', start, nets.length),
    ends: perNet(pipe, 'controlGuidanceEnd', end, nets.length),
    guessMode: options.guessMode === true || nets[0]!.parsed.globalPoolConditions,
  };
}

/** @throws InvalidArgumentError for settings and pictures that do not go with the ControlNets */
export function checkControl(
  pipe: ControlledPipeline,
  { option, pictures }: Pick<ControlInput, 'option'> & { pictures: ControlPictures | undefined },
  options: ControlNetOptions,
): void {
  const { className: where } = pipe;
  const { starts, ends } = settingsOf(pipe, options);
  for (const [i, start] of starts.entries()) {
    expectThat(start < ends[i]!, where, 'controlGuidanceStart', `less than controlGuidanceEnd, ${ends[i]}`, start);
  }
  expectThat(pictures !== undefined && pictures !== null, where, option, 'a picture for the ControlNet', pictures);
  picturesOfNets(pipe, option, pictures!);
}

/** The pictures of each ControlNet. */
function picturesOfNets(pipe: ControlledPipeline, option: string, pictures: ControlPictures): ImageInput[][] {
  const nets = netsOf(pipe);
  const list = [pictures as ImageInput | (ImageInput | ImageInput[])[]].flat(1) as (ImageInput | ImageInput[])[];
  if (!(pipe.controlnet instanceof MultiControlNetModel)) {
    return [list.flat(1)];
  }
  const rows = list.some(Array.isArray) ? list.map((row) => [row].flat(1) as ImageInput[]) : [list as ImageInput[]];
  const wrong = rows.find((row) => row.length !== nets.length);
  if (wrong || rows.length === 0) {
    throw invalid(pipe.className, option, `a list with one picture for each of ${nets.length} ControlNets`, wrong);
  }
  return nets.map((_, i) => rows.map((row) => row[i]!));
}

/** Size in pixels of the first control picture. */
export interface ControlSize {
  height: number;
  width: number;
}

/**
 * A start whose steps follow the control pictures.
 *
 * @param start where the latents begin
 * @throws InvalidArgumentError for pictures that do not go with the prompts
 */
export async function startControlled(
  pipe: ControlledPipeline,
  plan: Plan,
  input: ControlInput,
  options: ControlNetOptions,
  start: (size: ControlSize) => Start | Promise<Start>,
): Promise<Start> {
  const settings = settingsOf(pipe, options);
  const nets = netsOf(pipe);
  const conditions: Tensor4D[] = [];
  try {
    const size = await readConditions(pipe, plan, input, conditions);
    const begun = await start(size);
    const residuals = controller(nets, conditions, settings, plan.pictures);
    return { ...begun, residuals, models: nets, owned: [...(begun.owned ?? []), ...conditions] };
  } catch (error) {
    tf.dispose(conditions);
    throw error;
  }
}

/** Reads the control pictures and adds what the ControlNets see of them at every step; gives the size of the first. */
async function readConditions(
  pipe: ControlledPipeline,
  plan: Plan,
  { option, pictures, size }: ControlInput,
  conditions: Tensor4D[],
): Promise<ControlSize> {
  const ofNets = picturesOfNets(pipe, option, pictures);
  const read = await readInputs(plan, option, ofNets.flat());
  const sizes: ControlSize[] = [];
  for (const [i, net] of netsOf(pipe).entries()) {
    const pixels = await pixelsFor(pipe, net, read.splice(0, ofNets[i]!.length), size);
    sizes.push({ height: pixels.shape[1], width: pixels.shape[2] });
    conditions.push(await embedded(pipe, plan, net, option, pixels).finally(() => pixels.dispose()));
  }
  return sizes[0]!;
}

function pixelsFor(
  { vae }: ControlledPipeline,
  net: ControlNetModel,
  pictures: ImageInput[],
  size: PreprocessOptions = {},
): Promise<Tensor4D> {
  // a tensor with as many channels as pictures have is never taken for latents
  const vaeLatentChannels = net.parsed.conditioningChannels;
  const processor = new VaeImageProcessor({ vaeScaleFactor: vae.scaleFactor, vaeLatentChannels, doNormalize: false });
  return processor.preprocess(pictures, size);
}

/** The condition of every picture to draw: one for all, or one for each prompt. */
async function embedded(
  { className }: ControlledPipeline,
  { pictures }: Plan,
  net: ControlNetModel,
  option: string,
  pixels: Tensor4D,
): Promise<Tensor4D> {
  const [count] = pixels.shape;
  if (pictures % count !== 0) {
    throw invalid(className, option, `one picture for all or one for each prompt, of ${pictures} to draw`, count);
  }
  const each = pictures / count;
  return net.withWeights(() =>
    tf.tidy(() => {
      const condition = net.embedCondition(pixels);
      const [, height, width, channels] = condition.shape;
      const repeated = tf.tile(tf.expandDims(condition, 1), [1, each, 1, 1, 1]);
      return tf.reshape(repeated, [pictures, height, width, channels]) as Tensor4D;
    }),
  );
}

/** What the ControlNets add at each step, for as many branches of guidance as the latents hold. */
function controller(
  nets: readonly ControlNetModel[],
  conditions: readonly Tensor4D[],
  { scales, starts, ends, guessMode }: Settings,
  pictures: number,
): NonNullable<Start['residuals']> {
  return async (latents, timestep, text, { step, total }: LoopStep): Promise<DownPathResiduals> => {
    const works = (i: number) => scales[i] !== 0 && step / total >= starts[i]! && (step + 1) / total <= ends[i]!;
    const active = nets.map((_, i) => i).filter(works);
    if (active.length === 0) {
      return {};
    }
    const branches = latents.shape[0] / pictures;
    // in guess mode the negative prompt's half does without control
    const half = guessMode && branches > 1;
    const inputs = half ? conditionalHalf(latents, text, pictures) : { latents, ...text };
    const tiled = active.map((i) => tf.tile(conditions[i]!, [half ? 1 : branches, 1, 1, 1]));
    const { cache, pooled, timeIds, encoderHiddenStates } = inputs;
    const addedCond = pooled && timeIds && { textEmbeds: pooled, timeIds };
    const conditioningScale = active.map((i) => scales[i]!);
    try {
      const output = await new MultiControlNetModel(active.map((i) => nets[i]!)).predict(
        inputs.latents,
        timestep,
        encoderHiddenStates,
        tiled,
        { cache, addedCond, conditioningScale, guessMode, isEmbedded: true },
      );
      return residualsOf(half ? withZeros(output, branches) : output);
    } finally {
      tf.dispose(tiled);
      tf.dispose(half ? [inputs.latents, encoderHiddenStates, pooled ?? [], timeIds ?? []] : []);
    }
  };
}

type Output = Awaited<ReturnType<MultiControlNetModel['predict']>>;

const residualsOf = ({ downBlockResSamples, midBlockResSample }: Output): DownPathResiduals => ({
  downBlockAdditionalResiduals: downBlockResSamples,
  midBlockAdditionalResidual: midBlockResSample,
});

type Half = Pick<Conditions, 'encoderHiddenStates' | 'pooled' | 'timeIds'> & { latents: Tensor4D; cache?: undefined };

/** The last rows, those of the prompt; new tensors. */
function conditionalHalf(latents: Tensor4D, text: Conditions, rows: number): Half {
  const last = <T extends Tensor>(x: T): T => tf.slice(x, [x.shape[0]! - rows], [rows]) as T;
  const { encoderHiddenStates, pooled, timeIds } = text;
  return {
    latents: last(latents),
    encoderHiddenStates: last(encoderHiddenStates),
    ...(pooled && { pooled: last(pooled) }),
    ...(timeIds && { timeIds: last(timeIds) }),
  };
}

/** Zeros for the branches before that of the prompt; takes the output over. */
function withZeros(output: Output, branches: number): Output {
  const padded = (x: Tensor4D): Tensor4D => {
    const [rows] = x.shape;
    return tf.pad(x, [
      [rows * (branches - 1), 0],
      [0, 0],
      [0, 0],
      [0, 0],
    ]);
  };
  const all = tf.tidy(() => ({
    downBlockResSamples: output.downBlockResSamples.map(padded),
    midBlockResSample: padded(output.midBlockResSample),
  }));
  tf.dispose(output);
  return all;
}
