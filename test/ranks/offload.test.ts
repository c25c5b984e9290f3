// Offload: wherever states lie, on the device, in host memory, on disk, the bits are the same; so are checkpoints, from
// one place to another, and states by name. Bytes are counted where they are.

import t from 'tap'
import { type Place, type Places, runOffload } from '../helpers/offload.js'

for (const ranks of [1, 2]) {
  for (const [precision, accumulation] of [
    ['fp32', 1],
    ['fp32', 3],
    ['bf16', ranks === 1 ? 3 : 1],
  ] as const) {
    t.test(`${ranks} ranks, ${precision}, accumulation ${accumulation}: one bit pattern at every stage`, async (t) => {
      const stages = await runOffload(t, { stages: [0, 1, 2, 3], ranks, precision, accumulation })
      for (const { none, cpu, nvme, half } of stages) {
        const states = none.live.optimizer
        t.equal(cpu.live.host, states)
        for (const { live } of [cpu, nvme]) t.equal(live.optimizer, 0)
        t.ok(nvme.live.host > 0 && nvme.live.host < states, `the ring, ${nvme.live.host}, is less than ${states}`)
        t.ok(half.live.optimizer > 0.3 * states && half.live.optimizer < 0.7 * states, 'ratio 0.5')
        for (const key of ['parameters', 'gradients'] as const) t.equal(nvme.live[key], none.live[key])
      }
      const { none, ...more } = stages[3] as Places
      const [onDisk, inHost, both] = ['parameters nvme', 'parameters cpu', 'both nvme'].map(
        (name) => more[name] as Place,
      )
      t.equal(onDisk?.live.parameters, inHost?.live.parameters, 'what stays whole')
      t.ok((inHost as Place).live.parameters < 0.05 * none.live.parameters)
      t.equal((inHost as Place).live.host + (inHost as Place).live.parameters, none.live.parameters)
      t.equal(both?.live.optimizer, 0)
      t.ok((both as Place).live.total < none.live.total)
    })
  }
}
