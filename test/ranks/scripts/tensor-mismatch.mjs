// One rank of test/ranks/tensor.test.ts: two tensor groups of two; in the second the ranks call different things.

import { joinWorld } from '../../../dist/engine/initialize.js'
import { tensor } from '../../../dist/index.js'
import { Mesh } from '../../../dist/parallel/index.js'

const world = await joinWorld()
const mesh = Mesh.create(world.group, { dp: 2, tp: 2 })
const x = tensor(new Float32Array(world.group.rank === 3 ? 6 : 8), [world.group.rank === 3 ? 6 : 8])
mesh.group('tp').allReduce(x)
await x.data()
await world.group.barrier()
