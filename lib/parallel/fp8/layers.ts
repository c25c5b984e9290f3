// Which linears multiply in 8 bits, and how each gets its operands there. Weights are brought into 8 bits once for all
// micro-batches of a step; those that are gathered when they are used (ZeRO 3), at each use.

import { isRecording } from '../../autograd/tape.js'
import { nearest, ZeroshardError } from '../../binding/errors.js'
import { binding, type NativeDevices } from '../../binding/native.js'
import { Conv1D, Linear } from '../../nn/layers.js'
import type { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import { FP8_MULTIPLE, type Quantized, type Quantizer, type Wanted } from '../../ops/float8.js'
import { tidy, unscoped } from '../../tensor/scope.js'
import type { Tensor } from '../../tensor/tensor.js'
import type { ProcessGroup } from '../group.js'
import { patternOf } from '../plan.js'
import { ColumnParallelLinear, RowParallelLinear } from '../tensor/linear.js'
import { type Recipe, Scales, type Slot } from './scales.js'

/** A recipe, and which layers it is for. */
export interface Fp8Options extends Recipe {
  /** Paths of linears that stay in bf16; patterns as in a Plan. */
  exclude: readonly string[]
}

type AnyLinear = Linear | Conv1D | ColumnParallelLinear | RowParallelLinear
const kinds = [Linear, Conv1D, ColumnParallelLinear, RowParallelLinear]
const isLinear = (module: Module): module is AnyLinear => kinds.some((kind) => module instanceof kind)

class LayerQuantizer implements Quantizer {
  /** The weight's codes, and of which version of it. */
  #cached: Quantized | undefined
  #version = -1

  constructor(
    readonly scales: Scales,
    readonly parameter: Parameter,
    /** Of the input; the weight's and the gradient's follow. */
    readonly slot: number,
  ) {}

  input(x: Tensor, rows: number, cols: number, wanted: Wanted): Quantized {
    return this.scales.quantize(x, [rows, cols], this.slot, wanted, isRecording())
  }

  gradient(dy: Tensor, rows: number, cols: number, wanted: Wanted): Quantized {
    return this.scales.quantize(dy, [rows, cols], this.slot + 2, wanted, true)
  }

  weight(weight: Tensor, wanted: Wanted): Quantized {
    const [size, slot] = [weight.shape as [number, number], this.slot + 1]
    if (weight.lender) return this.scales.quantize(weight, size, slot, wanted, true)
    const { version } = this.parameter
    if (this.#cached && this.#version === version) return this.#cached
    this.drop()
    const both = { codes: true, transposed: true }
    this.#cached = unscoped(() => tidy(() => this.scales.quantize(weight, size, slot, both, true)))
    this.#version = version
    return this.#cached
  }

  drop(): void {
    const { codes, transposed, inverse } = this.#cached ?? {}
    codes?.dispose()
    transposed?.dispose()
    if (inverse && !this.scales.owns(this.slot + 1, inverse)) inverse.dispose()
    this.#cached = undefined
  }
}

/** The linears of a model that multiply in 8 bits. */
export class Fp8 {
  readonly scales: Scales
  readonly #quantizers: LayerQuantizer[]

  constructor(layers: readonly AnyLinear[], options: Recipe, group: ProcessGroup) {
    const backward = options.format === 'hybrid' ? 'f8e5m2' : 'f8e4m3'
    const slots = layers.flatMap(({ path }): Slot[] => [
      { name: `${path}.input`, dtype: 'f8e4m3' },
      { name: `${path}.weight`, dtype: 'f8e4m3' },
      { name: `${path}.gradient`, dtype: backward },
    ])
    this.scales = new Scales(slots, options, group)
    this.#quantizers = layers.map((layer, index) => {
      const quantizer = new LayerQuantizer(this.scales, layer.weight, 3 * index)
      layer.quantizer = quantizer
      return quantizer
    })
  }

  /** The weights are about to change, and their codes with them. */
  dropWeights(): void {
    for (const quantizer of this.#quantizers) quantizer.drop()
  }

  /** Collective, at the end of a step, before the weights change. */
  update(): void {
    this.dropWeights()
    this.scales.update()
  }

  /** What a step that was given up has seen counts for nothing. */
  abandonStep(): void {
    this.dropWeights()
    this.scales.abandonStep()
  }

  /** Scales have been loaded: what was made with others is stale. */
  reloaded(known: boolean): void {
    this.dropWeights()
    this.scales.known = known
  }

  dispose(): void {
    this.dropWeights()
    this.scales.dispose()
  }
}

/** Linears of a model, cut as they are, that can multiply in 8 bits; notes say which stay in bf16 and why. */
export function chooseLayers(model: Module, exclude: readonly string[]): { layers: AnyLinear[]; notes: string[] } {
  const all: AnyLinear[] = []
  model.visit((module) => {
    if (isLinear(module)) all.push(module)
  })
  const patterns = exclude.map((pattern) => [pattern, patternOf(pattern)] as const)
  const paths = all.map(({ path }) => path)
  for (const [pattern, expression] of patterns) {
    if (paths.some((path) => expression.test(path))) continue
    const near = nearest(pattern, paths)
    throw new ZeroshardError(
      'CONFIG',
      `fp8.exclude: '${pattern}' matches no linear layer${near ? `; did you mean '${near}'?` : ''}`,
    )
  }
  const wanted = all.filter(({ path }) => !patterns.some(([, expression]) => expression.test(path)))
  const fits = ({ weight: { shape } }: AnyLinear): boolean =>
    shape.every((size) => size > 0 && size % FP8_MULTIPLE === 0)
  const layers = wanted.filter(fits)
  const odd = wanted.filter((layer) => !fits(layer)).map(({ path, weight }) => `${path} [${weight.shape.join(', ')}]`)
  if (layers.length === 0)
    throw new ZeroshardError(
      'CONFIG',
      `fp8: no linear layer is left to multiply in 8 bits${odd[0] ? `: ${odd[0]} does not divide by ${FP8_MULTIPLE}` : ''}; set fp8.enabled to false`,
    )
  const more = odd.length > 4 ? ` and ${odd.length - 4} more` : ''
  const note = `fp8: ${odd.slice(0, 4).join(', ')}${more} stay in bf16: their sizes here do not divide by ${FP8_MULTIPLE}`
  return { layers, notes: odd.length ? [note] : [] }
}

/** @throws DEVICE where one of the devices cannot. */
export function checkDevices(devices: NativeDevices['devices']): void {
  const old = devices.find(({ capability }) => capability < 8.9)
  if (!old) return
  throw new ZeroshardError(
    'DEVICE',
    `fp8 needs compute capability 8.9 or newer (Ada, Hopper); device ${old.index} (${old.name}) has ${old.capability.toFixed(1)}; set fp8.enabled to false`,
  )
}

/**
 * Has the linears of `model` that this rank has multiply in 8 bits; after everything that exchanges or cuts them.
 * `group`: the ranks that have the same layers.
 */
export function applyFp8(
  model: Module,
  options: Fp8Options,
  group: ProcessGroup,
  has: (parameter: Parameter) => boolean = () => true,
): { fp8: Fp8; notes: string[] } {
  const { native } = binding()
  if (native.device() === 'cuda') checkDevices(native.devices().devices)
  const { layers, notes } = chooseLayers(model, options.exclude)
  const own = layers.filter(({ weight }) => has(weight))
  return { fp8: new Fp8(own, options, group), notes }
}
