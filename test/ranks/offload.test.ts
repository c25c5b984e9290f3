// Offload: wherever states lie, on the device, in host memory, on disk, the bits are the same; so are checkpoints, from
// one place to another, and states by name. Bytes are counted where they are.

import t, { type Test } from 'tap'
import { Workspace } from '../helpers/program.js'

type Bytes = Record<'parameters' | 'gradients' | 'optimizer' | 'activations' | 'buffers' | 'host' | 'total', number>

interface Place {
  rows: [loss: number, norm: number | null, skipped: boolean][]
  rest: Place['rows']
  live: Bytes
  again: Bytes
  probe: Record<string, [sum: number, start: number | undefined, last: number | undefined]>
  changed: number[]
  visible: number
  tensors: number
}

interface Case {
  stage: number
  ranks: number
  precision?: string
  accumulation?: number
  optimizer?: string
}

async function run(t: Test, { stage, ranks, precision = 'fp32', accumulation = 1, optimizer = 'AdamW' }: Case) {
  const space = new Workspace(t)
  const name = `stage ${stage}, ${ranks} ranks, ${precision}, accumulation ${accumulation}, ${optimizer}`
  const args = [space.folder, String(stage), precision, String(accumulation), optimizer]
  const outcome = await space.launch('offload-layouts.mjs', args, ranks, { ZEROSHARD_NUM_THREADS: '1' })
  t.equal(outcome.status, 0, outcome.stderr || name)
  const places = JSON.parse(outcome.stdout) as Record<string, Place>
  const none = places.none as Place
  for (const [place, got] of Object.entries(places)) {
    t.strictSame(got.rows, none.rows, `${name}: ${place}`)
    t.strictSame(got.rest, none.rest, `${name}: ${place}, resumed from the place before`)
    t.strictSame(got.probe, none.probe, `${name}: ${place}, states by name`)
    t.strictSame(got.changed, none.changed, `${name}: ${place}, states set by name`)
    t.strictSame(got.again, got.live, 'reloaded states are where they were')
    t.equal(got.visible, 0, 'a swap file has no name')
    t.equal(got.tensors, 0, 'all tensors are freed')
  }
  return places as Record<'none' | 'cpu' | 'nvme' | 'half', Place> & Record<string, Place | undefined>
}

t.test('every place at every stage, in every precision: one bit pattern, bytes where they belong', async (t) => {
  for (const stage of [0, 1, 2, 3]) {
    for (const ranks of [1, 2]) {
      for (const precision of ['fp32', 'bf16']) {
        const accumulation = (stage + ranks) % 2 ? 3 : 1
        const { none, cpu, nvme, half, ...more } = await run(t, { stage, ranks, precision, accumulation })
        const states = none.live.optimizer
        t.equal(cpu.live.host, states)
        for (const { live } of [cpu, nvme]) t.equal(live.optimizer, 0)
        t.ok(nvme.live.host > 0 && nvme.live.host < states, `the ring, ${nvme.live.host}, is less than ${states}`)
        t.ok(half.live.optimizer > 0.3 * states && half.live.optimizer < 0.7 * states, 'ratio 0.5')
        for (const key of ['parameters', 'gradients'] as const) t.equal(nvme.live[key], none.live[key])
        if (stage !== 3) continue
        const onDisk = more['parameters nvme'] as Place
        const inHost = more['parameters cpu'] as Place
        t.equal(onDisk.live.parameters, inHost.live.parameters, 'what stays whole')
        t.ok(inHost.live.parameters < 0.05 * none.live.parameters)
        t.equal(inHost.live.host + inHost.live.parameters, none.live.parameters)
        t.equal(onDisk.live.optimizer, states)
        t.equal((more['both nvme'] as Place).live.optimizer, 0)
        t.ok((more['both nvme'] as Place).live.total < none.live.total)
      }
    }
  }
})

t.test('updates that are left out change nothing on disk', async (t) => {
  for (const [stage, ranks] of [
    [1, 2],
    [3, 1],
    [3, 2],
  ] as const) {
    const { none } = await run(t, { stage, ranks, precision: 'fp16' })
    t.ok(none.rows[0]?.[2], 'the first is left out')
    t.ok(
      none.rest.some(([, , skipped]) => !skipped),
      'not all are',
    )
  }
})

t.test('optimizers with one state, none, or a need for whole parameters', async (t) => {
  for (const [optimizer, precision] of [
    ['Lion', 'bf16'],
    ['SGD', 'fp32'],
    ['Lamb', 'bf16'],
    ['Muon', 'fp32'],
  ] as const)
    await run(t, { stage: 3, ranks: 2, optimizer, precision })
  await run(t, { stage: 1, ranks: 3, optimizer: 'Lamb' })
})
