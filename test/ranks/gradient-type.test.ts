// Gradients accumulated in 16 bits (data_types.grad_accum_dtype), with real processes: half the memory, one arithmetic
// at every ZeRO stage, and what is lost is what the type cannot hold.

import t from 'tap'
import { losses, Workspace, whole } from '../helpers/program.js'

const zero = (stage: number, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  stage,
  stage3_param_persistence_threshold: 100,
  ...more,
})
const models = { f32: {}, bf16: { bf16: { enabled: true } }, fp16: { fp16: { enabled: true, initial_scale_power: 8 } } }

t.test('16-bit gradients take half the memory at every stage, and all stages have one curve', async (t) => {
  const space = new Workspace(t)
  for (const [model, type, accumulation, stages] of [
    ['bf16', 'bf16', 1, [0, 1, 2, 3]],
    ['bf16', 'bf16', 2, [0, 1, 2, 3]],
    ['f32', 'bf16', 2, [1, 3]],
    ['bf16', 'fp16', 2, [2]],
    ['fp16', 'fp16', 2, [2]],
  ] as const) {
    const config = (stage: number, grad_accum_dtype: string): Record<string, unknown> =>
      space.config({
        ...models[model],
        data_types: { grad_accum_dtype },
        gradient_accumulation_steps: accumulation,
        train: { steps: 4, seed: 3 },
        zero_optimization: zero(stage),
      })
    const curves: number[][] = []
    for (const stage of stages) {
      const name = `${model} model, ${type} gradients, accumulation ${accumulation}, stage ${stage}`
      const run = whole(t, await space.train(config(stage, type), { ranks: 2 }))
      const wide = whole(t, await space.train(config(stage, 'fp32'), { ranks: 2 }))
      curves[stage] = losses(run)
      const bytes = (of: typeof run): number[] => of.steps.map(({ memory }) => memory.gradients as number)
      t.ok((bytes(wide)[3] as number) > 0)
      t.strictSame(
        bytes(run).map((count) => count * 2),
        bytes(wide),
        `${name}: half the bytes between steps`,
      )
      const [peak, widePeak] = [run, wide].map(({ steps }) => steps[3]?.memoryPeak.gradients as number)
      t.equal((peak as number) * 2, widePeak, `${name}: and at the peak`)
      losses(run).forEach((loss, index) => {
        const expected = losses(wide)[index] as number
        if (!(Math.abs(loss - expected) <= 0.01)) t.fail(`${name}: step ${index + 1}: ${loss} against ${expected}`)
      })
      t.notSame(losses(run), losses(wide), `${name}: it is another arithmetic`)
    }
    if (stages.length < 4) continue
    t.strictSame(curves[1], curves[0], 'stage 1: bits of stage 0')
    t.strictSame(curves[3], curves[2], 'stage 3: bits of stage 2')
    if (accumulation === 1) t.strictSame(curves[2], curves[0], 'stage 2: bits of stage 0')
  }
})

t.test('offload, LAMB and Muon read 16-bit gradients; recomputation changes nothing', async (t) => {
  const space = new Workspace(t)
  const train = async (more: Record<string, unknown>, stage: number, zeroMore = {}): Promise<number[]> => {
    const config = space.config({
      bf16: { enabled: true },
      data_types: { grad_accum_dtype: 'bf16' },
      gradient_accumulation_steps: 2,
      train: { steps: 3, seed: 3 },
      zero_optimization: zero(stage, zeroMore),
      ...more,
    })
    return losses(whole(t, await space.train(config, { ranks: 2 })))
  }
  const base = await train({}, 2)
  t.equal(base.length, 3)
  const nvme = { device: 'nvme', nvme_path: space.folder }
  t.strictSame(await train({}, 2, { offload_optimizer: { device: 'cpu' } }), base, 'optimizer in host memory')
  t.strictSame(await train({}, 3, { offload_optimizer: nvme, offload_param: nvme }), base, 'all on disk')
  t.strictSame(await train({ activation_checkpointing: { number_checkpoints: 2 } }, 3), base, 'recomputation')
  for (const type of ['Lamb', 'Muon']) {
    const optimizer = { type, params: { lr: 1e-3 } }
    const curve = await train({ optimizer }, 2)
    t.strictSame(await train({ optimizer }, 3), curve, type)
    const wide = await train({ optimizer, data_types: {} }, 2)
    t.notSame(curve, wide)
    const gap = Math.max(...curve.map((loss, index) => Math.abs(loss - (wide[index] as number))))
    t.ok(gap < 0.01, `${type}: ${gap} from f32 gradients`)
  }
})

t.test('tensor and pipeline ranks accumulate in 16 bits too', async (t) => {
  const space = new Workspace(t)
  const train = async (mesh: Record<string, unknown>, ranks: number, more = {}): Promise<number[]> => {
    const config = space.config({
      data_types: { grad_accum_dtype: 'bf16' },
      gradient_accumulation_steps: 2,
      train: { steps: 4, seed: 3 },
      mesh,
      ...more,
    })
    return losses(whole(t, await space.train(config, { ranks })))
  }
  const base = await train({}, 1)
  for (const [name, curve] of [
    ['tensor', await train({ tensor: 2 }, 2)],
    ['pipeline', await train({ pipeline: 2 }, 2)],
    ['pipeline with late weight gradients', await train({ pipeline: 2 }, 2, { pipeline: { schedule: 'zb-h1' } })],
  ] as const) {
    const gap = Math.max(...curve.map((loss, index) => Math.abs(loss - (base[index] as number))))
    t.ok(curve.length === 4 && gap <= 2e-3, `${name}: ${gap}`)
  }
})

t.test('what is lost is what the type cannot hold, and the update and the norm see that sum', async (t) => {
  const space = new Workspace(t)
  for (const [ranks, stages] of [
    [1, [0]],
    [2, [1, 2, 3]],
  ] as const) {
    for (const stage of stages) {
      for (const [model, type, expected] of [
        ['f32', 'fp32', 128.5],
        ['f32', 'bf16', 128],
        ['bf16', 'bf16', 128],
        ['fp16', 'fp16', 128.5],
      ] as const) {
        const outcome = await space.launch('gradient-type.mjs', [String(stage), type, model], ranks)
        t.equal(outcome.status, 0, outcome.stderr)
        const { sum, moved, norm, tensors } = JSON.parse(outcome.stdout) as Record<string, number>
        const name = `${model} model, ${type} gradients, stage ${stage}, ${ranks} ranks`
        t.equal(sum, expected, name)
        t.ok(Math.abs((moved as number) - expected) < 1e-3, `${name}: the update, ${moved}`)
        // The bias has the gradient 1.
        t.ok(Math.abs((norm as number) - Math.hypot(expected, 1)) < 1e-3, `${name}: the norm, ${norm}`)
        t.equal(tensors, 0)
      }
    }
  }
})
