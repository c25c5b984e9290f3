// Which device tensors are on: what is said where there is none, and that the CPU then works as before.

import t from 'tap'
import { binding } from '../../lib/binding/native.js'
import { readEnvironment } from '../../lib/launch/env.js'
import { tensor } from '../../lib/tensor/tensor.js'
import { alive } from '../helpers/compare.js'
import { runNode } from '../helpers/node.js'

const { native } = binding()
const found = native.devices(true)

t.test('looking at the devices opens none, and says why there is none', async (t) => {
  t.equal(native.device(), 'cpu')
  t.strictSame(native.devices().libraries, [])
  if (!found.loaded) t.match(found.reason, /libzeroshard_cuda13\.so/)
  else if (found.devices.length === 0) t.match(found.reason, /driver|device/)
  for (const { name, path, note } of found.libraries) t.ok(path || note.includes('comes with'), name)
  if (found.loaded) t.ok(found.libraries.length >= 2)
})

t.test('throws DEVICE with the reason where there is no such device', { skip: found.devices.length > 0 }, async (t) => {
  const cuda = { threads: 1, serial: false, device: 'cuda' } as const
  t.throws(() => native.configure(cuda), { code: 'DEVICE', message: /^device cuda: .+/ })
  t.throws(() => native.configure({ ...cuda, device: 'tpu' as never }), { code: 'DEVICE', message: /'cpu' or 'cuda'/ })
  t.throws(() => native.configure({ ...cuda, index: -1 }), { code: 'ARGUMENT', message: /index/ })
})

t.test('the cpu stays where another device was refused', async (t) => {
  const before = alive()
  native.configure({ threads: 1, serial: false, device: 'cpu' })
  const x = tensor([1, 2, 3])
  t.strictSame([...((await x.data()) as Float32Array)], [1, 2, 3])
  x.dispose()
  native.configure({ threads: 1, serial: false, device: 'cpu' })
  t.equal(native.device(), 'cpu')
  t.equal(alive(), before)
})

t.test('ZEROSHARD_DEVICE is cpu or cuda', async (t) => {
  t.equal(readEnvironment({ ZEROSHARD_DEVICE: 'cuda' }).device, 'cuda')
  t.equal(readEnvironment({}).device, undefined)
  t.throws(() => readEnvironment({ ZEROSHARD_DEVICE: 'gpu' }), { code: 'ARGUMENT', message: /'gpu'.*cpu or cuda/ })
})

t.test(
  'a run that is told to use a missing device ends with the reason',
  { skip: found.devices.length > 0 },
  async (t) => {
    const script =
      "import('./lib/engine/initialize.ts').then((m) => m.joinWorld()).catch((e) => console.log(e.code, e.message))"
    const env = { ...process.env, ZEROSHARD_DEVICE: 'cuda' }
    const { stdout } = runNode(['--import', 'tsx', '-e', script], { env })
    t.match(stdout, /^DEVICE device cuda: /)
  },
)
