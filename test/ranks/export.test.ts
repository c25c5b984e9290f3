// What `zeroshard export` writes is what was trained: every name once, tied and frozen ones too, whatever was cut.

import { readFileSync } from 'node:fs'
import t from 'tap'
import { Workspace } from '../helpers/program.js'

t.test('tied and frozen weights, from two ranks at stage 3, are exported with their values', async (t) => {
  const space = new Workspace(t)
  const { status, stdout, stderr } = await space.launch('export.mjs', [space.path('out')], 2)
  t.equal(status, 0, stderr)
  type Values = Record<string, number[]>
  const { before, after, tensors } = JSON.parse(stdout) as { before: Values; after: Values; tensors: number }
  t.equal(tensors, 0, 'nothing is left')
  const exported = await space.start(['export', space.path('out'), space.path('exported')]).done
  t.equal(exported.status, 0, exported.stderr)
  const file = readFileSync(space.path('exported/model.safetensors'))
  const start = 8 + Number(file.readBigUInt64LE(0))
  const header = JSON.parse(file.subarray(8, start).toString()) as Record<string, { data_offsets: [number, number] }>
  delete header.__metadata__
  t.strictSame(Object.keys(header).sort(), Object.keys(after).sort(), 'every name, a tied one once')
  t.notOk('lm_head.weight' in header, 'the head is the embedding')
  for (const [name, { data_offsets }] of Object.entries(header)) {
    const bytes = file.subarray(start + data_offsets[0], start + data_offsets[1])
    const values = [...new Float32Array(new Uint8Array(bytes).buffer)]
    t.strictSame(values, after[name], name)
    const isFrozen = name.includes('.h.0.')
    t.equal(JSON.stringify(after[name]) === JSON.stringify(before[name]), isFrozen, `${name} was trained, or is frozen`)
  }
})
