// Which layers of a model this stage of a pipeline has, and what follows for its parameters: those of other stages
// get no memory here; tied ones, which several stages have, are replicas whose gradients are summed.

import { ZeroshardError } from '../../binding/errors.js'
import { drawingLayers } from '../../nn/drawing.js'
import { type Layer, LayeredModel } from '../../nn/layered.js'
import type { Module } from '../../nn/module.js'
import type { Parameter } from '../../nn/parameter.js'
import type { DrawingLayer } from '../../ops/random.js'
import type { Mesh } from '../mesh.js'
import { type Placement, virtualStageOf } from './placement.js'
import { chunkRanges, type SplitMethod, splitLayers } from './split.js'

export interface Chunk {
  layers: readonly Layer[]
  /** What they draw as, in the whole model. */
  drawing: readonly DrawingLayer[]
  /** Reads the inputs. */
  first: boolean
  /** Gives the loss. */
  last: boolean
  parameters: ReadonlySet<Parameter>
}

export interface StageOfModel {
  placement: Placement
  /** Of this stage, by chunk. */
  chunks: readonly Chunk[]
  /** Whether this stage has the parameter. */
  has(parameter: Parameter): boolean
}

/** Cuts a model for this rank's stage. Collective over the stages that share parameters. */
export function cutModel(
  model: Module,
  mesh: Mesh,
  { numChunks, layout }: Pick<Placement, 'numChunks' | 'layout'>,
  method: SplitMethod,
): StageOfModel {
  if (!(model instanceof LayeredModel)) {
    throw new ZeroshardError(
      'CONFIG',
      `[pipeline] ${model.constructor.name} is not a list of layers; extend nn.LayeredModel, or give nn.LayerList`,
    )
  }
  const placement: Placement = { stages: mesh.sizes.pp, numChunks, layout }
  model.namedParameters() // gives names and paths
  const layers = model.layers()
  const drawing = drawingLayers(layers)
  const used = layers.map(({ modules }) => new Set(modules.flatMap((module) => [...module.parametersBelow()])))
  const infos = layers.map(({ type, time }, index) => {
    const numParameters = [...(used[index] as Set<Parameter>)].reduce((sum, { count }) => sum + count, 0)
    return { type, numParameters, time: time ?? numParameters }
  })
  const bounds = splitLayers(infos, placement.stages * numChunks, method)
  const usersOf = (stage: number): Set<Parameter> =>
    new Set(
      chunkRanges(bounds, placement, stage).flatMap(([from, to]) => used.slice(from, to).flatMap((set) => [...set])),
    )
  const stages = Array.from({ length: placement.stages }, (_, stage) => usersOf(stage))
  const own = stages[mesh.place.pp] as Set<Parameter>
  for (const parameter of own) tie(parameter, stages, mesh)
  const last = placement.stages * numChunks - 1
  const chunks = chunkRanges(bounds, placement, mesh.place.pp).map(([from, to], chunk) => {
    const virtual = virtualStageOf(placement, chunk, mesh.place.pp)
    return {
      layers: layers.slice(from, to),
      drawing: drawing.slice(from, to),
      first: virtual === 0,
      last: virtual === last,
      parameters: new Set(used.slice(from, to).flatMap((set) => [...set])),
    }
  })
  return { placement, chunks, has: (parameter) => own.has(parameter) }
}

/** A parameter of several stages: one group of the ranks that have the same part of it. */
function tie(parameter: Parameter, stages: readonly ReadonlySet<Parameter>[], mesh: Mesh): void {
  const sharing = stages.flatMap((set, stage) => (set.has(parameter) ? [stage] : []))
  if (sharing.length < 2) return
  const ranksAt = (tensor: number): number[] =>
    sharing.map((pp) => mesh.shape.rankOf({ ...mesh.place, pp, tp: tensor }))
  const group = mesh.world.subgroup(ranksAt(mesh.place.tp))
  if (parameter.replicas && parameter.replicas.size > 1) {
    // Whole on every tensor-parallel rank too: counted once among all, summed over the stages.
    const all = Array.from({ length: mesh.sizes.tp }, (_, tensor) => ranksAt(tensor)).flat()
    parameter.replicas = mesh.world.subgroup(all.sort((a, b) => a - b))
  } else parameter.replicas = group
  parameter.partialGradient = true
  parameter.partialOver = group
}
