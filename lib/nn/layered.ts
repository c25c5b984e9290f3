// Models that are a list of layers, run one after another: what a pipeline can cut. Plain: knows nothing of ranks.

import { checkpoint } from '../autograd/functions.js'
import { type DrawingLayer, inLayer } from '../ops/random.js'
import type { Tensor } from '../tensor/tensor.js'
import { drawingLayers } from './drawing.js'
import { Module } from './module.js'

/** One layer: x is the previous layer's output (undefined for the first), inputs are those of the model. */
export interface Layer {
  /** Shown in messages; a pipeline's `type:regex` matches it. */
  type: string
  /** Modules whose parameters it uses; a parameter of several layers is tied. Dropouts may be left out. */
  modules: readonly Module[]
  forward(x: Tensor | undefined, inputs: readonly Tensor[]): Tensor
  /**
   * For a pipeline cut by time: what one sample takes here, measured in any unit if all layers say it, else against
   * the others' numbers of parameters, which is the estimate for layers that don't say it (a look-up: 0).
   */
  time?: number
  /** Neighbours of one number are computed again in backward: of their activations only the first input is kept. */
  recomputed?: number
}

/**
 * The last layer gives the loss.
 *
 * @example
 * class Stack extends nn.LayeredModel<[Tensor, Tensor]> {
 *   readonly up = new nn.Linear(4, 8)
 *   layers(): nn.Layer[] {
 *     return [
 *       { type: 'up', modules: [this.up], forward: (_, [x]) => this.up.forward(x as Tensor) },
 *       { type: 'loss', modules: [], forward: (x, [, y]) => ops.meanSquaredError(x as Tensor, y as Tensor) },
 *     ]
 *   }
 * }
 * new Stack().materialize().forward(tensor(new Float32Array(4), [1, 4]), tensor(new Float32Array(8), [1, 8])).shape // []
 */
export abstract class LayeredModel<Args extends Tensor[] = Tensor[]> extends Module {
  abstract layers(): Layer[]

  override forward(...inputs: Args): Tensor {
    const layers = this.layers()
    return runLayers(layers, undefined, inputs, drawingLayers(layers))
  }
}

/**
 * Runs layers one after the other. Each result is freed as soon as the next is there (backward holds what it needs).
 * `drawing`: what they draw as, where they are not all of a model.
 *
 * @example
 * const list = new nn.LayerList([new nn.Linear(4, 8), new nn.Linear(8, 2)], ops.meanSquaredError).materialize()
 * nn.runLayers(list.layers().slice(0, 2), undefined, [tensor(new Float32Array(4), [1, 4])]).shape // [1, 2]
 */
export function runLayers(
  layers: readonly Layer[],
  x: Tensor | undefined,
  inputs: readonly Tensor[],
  drawing: readonly DrawingLayer[] = drawingLayers(layers),
): Tensor {
  let value = x
  for (let i = 0; i < layers.length; ) {
    const { recomputed } = layers[i] as Layer
    let end = i + 1
    while (recomputed !== undefined && layers[end]?.recomputed === recomputed) end++
    const part = layers.slice(i, end)
    const draws = drawing.slice(i, end)
    const run = (input: Tensor | undefined): Tensor => chain(part, input, inputs, draws)
    const output = recomputed === undefined ? run(value) : checkpoint(run, value as Tensor)
    if (value !== x && value !== output) value?.dispose()
    value = output
    i = end
  }
  return value as Tensor
}

function chain(
  layers: readonly Layer[],
  x: Tensor | undefined,
  inputs: readonly Tensor[],
  drawing: readonly DrawingLayer[],
): Tensor {
  let value = x
  for (const [index, layer] of layers.entries()) {
    const output = inLayer(drawing[index] as DrawingLayer, () => layer.forward(value, inputs))
    if (value !== x && value !== output) value?.dispose()
    value = output
  }
  return value as Tensor
}

type Step = Module & { forward(x: Tensor): Tensor }

/**
 * A user's layers and loss: `inputs` of the model are those of the first layer, then what the loss takes besides.
 *
 * @example
 * const model = new nn.LayerList([new nn.Linear(8, 8), new nn.Linear(8, 1)], ops.meanSquaredError).materialize()
 * model.forward(tensor(new Float32Array(8), [1, 8]), tensor([0], [1, 1])).shape // []
 */
export class LayerList extends LayeredModel {
  readonly list: readonly Module[]

  constructor(
    layers: readonly Step[],
    readonly loss: (output: Tensor, ...targets: Tensor[]) => Tensor,
  ) {
    super()
    this.list = layers
  }

  layers(): Layer[] {
    const steps = this.list as readonly Step[]
    return [
      ...steps.map((step, index) => ({
        type: step.constructor.name,
        modules: [step],
        forward: (x: Tensor | undefined, inputs: readonly Tensor[]) =>
          step.forward(index === 0 ? (inputs[0] as Tensor) : (x as Tensor)),
      })),
      {
        type: 'loss',
        modules: [],
        forward: (x: Tensor | undefined, inputs: readonly Tensor[]) => this.loss(x as Tensor, ...inputs.slice(1)),
      },
    ]
  }
}
