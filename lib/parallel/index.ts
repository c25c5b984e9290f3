// zeroshard/parallel: meshes and process groups, collectives on the tape, parallel layers, the flat layout of ZeRO.

export { allGather, allReduce, allToAll, gather, identity, reduceScatter, scatter } from './collectives.js'
export { ProcessGroup } from './group.js'
export { Mesh, MeshShape } from './mesh.js'
export { type Parallelized, type ParallelizeOptions, parallelize } from './parallelize.js'
export { gpt2Plan, llamaPlan, type Plan, type PlanEntry } from './plan.js'
export { VocabParallelEmbedding } from './tensor/embedding.js'
export { VocabParallelHead, vocabParallelCrossEntropy } from './tensor/head.js'
export { type ColumnOptions, ColumnParallelLinear, type RowOptions, RowParallelLinear } from './tensor/linear.js'
export { Region, type RegionOptions } from './tensor/region.js'
export { layoutUnits, piecesIn, type UnitLayout } from './zero/layout.js'
