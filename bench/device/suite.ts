// What the benchmarks of bench/device share: the options of a run, sizes in full and small enough for CPU ranks (dry), and
// what a device can do at most by its data sheet.

import type { Row } from '../harness.js'

/** Of `npm run bench`. */
export interface SuiteOptions {
  device: 'cpu' | 'cuda'
  /** Every case, but small, on CPU ranks. */
  dry: boolean
  /** GPUs, or CPU ranks. */
  ranks: number
  /** Of cases that are many (layouts), only each so-manieth. */
  every: number
  /** All factorisations of the ranks, not only those with one or two axes. */
  allLayouts: boolean
  /** What the names of the models have that are to be measured. */
  models: string
  /** A folder with a built llm.c; a Python that has DeepSpeed. */
  llmc?: string
  deepspeed?: string
  /** A Python that has PyTorch. */
  python?: string
  ceilings?: Ceilings
}

/** Measured first, in the same run. */
export interface Ceilings {
  /** Bytes per second, read and written. */
  copy: number
  /** Floating-point operations per second of a large matrix product. */
  bf16: number
  f32: number
  /** The device's own name; empty on the CPU. */
  name: string
  /** Bytes per second that a device sends to its peers, by the data sheets of its links; 0: unknown. */
  link: number
}

export interface SuiteBenchmark {
  title: string
  run(options: SuiteOptions): Promise<Row[]>
}

/** Dense bf16 operations per second, by NVIDIA's data sheets. */
const sheets: [RegExp, number][] = [
  [/GB200|GB300/, 2500e12],
  [/B200|B300/, 2250e12],
  [/H200|H100.*(SXM|HBM3|NVL)|GH200/, 989e12],
  [/H100/, 756e12],
  [/A100/, 312e12],
  [/L40S/, 362e12],
]
/** Bytes per second one way of a NVLink, by its version; of a PCIe lane, by its generation. */
const nvlinks = [0, 20e9, 25e9, 25e9, 25e9, 50e9]
const lanes = [0, 0.25e9, 0.5e9, 0.985e9, 1.969e9, 3.938e9, 7.563e9]

/** What MFU is of: the data sheet's rate where it is known, else the measured one. */
export function peakOf({ name, bf16 }: Ceilings): { peak: number; of: string } {
  const sheet = sheets.find(([pattern]) => pattern.test(name))?.[1]
  return sheet ? { peak: sheet, of: `${sheet / 1e12} TFLOP/s` } : { peak: bf16, of: 'the measured matrix product' }
}

/** One way, between a device and its peers. */
export function linkRate(links: {
  nvlinks?: number
  nvlinkVersion?: number
  maxPcieGeneration?: number
  maxPcieWidth?: number
}): number {
  const { nvlinks: count = 0, nvlinkVersion = 0, maxPcieGeneration = 0, maxPcieWidth = 0 } = links
  if (count > 0) return count * (nvlinks[nvlinkVersion] ?? 0)
  return maxPcieWidth * (lanes[maxPcieGeneration] ?? 0)
}

/** Each `every`th of a list, from the `first`th on. */
export const spread = <T>(list: readonly T[], every: number, first = 0): T[] =>
  list.filter((_, i) => i % every === first % every)
