// One rank of test/ranks/context-misuse.test.ts: attends again and again until a rank is killed; the others print what
// they are told.
import { writeSync } from 'node:fs'
import { joinWorld } from '../../../dist/engine/initialize.js'
import { tensor, tidy } from '../../../dist/index.js'
import { ringPackedAttention } from '../../../dist/parallel/context/ring.js'
import { ulyssesPackedAttention } from '../../../dist/parallel/context/ulysses.js'

const [kind, victim] = process.argv.slice(2)
const attend = kind === 'ring' ? ringPackedAttention : ulyssesPackedAttention
const { group } = await joinWorld()
const x = tensor(new Float32Array(2 * 16 * 96), [2, 16, 96])
let lost = 0
try {
  for (let round = 0; round < 1000; round++) {
    if (round === 5 && group.rank === Number(victim)) process.kill(process.pid, 'SIGKILL')
    if (round === 6) lost = performance.now()
    const y = tidy(() => attend(x, { numHeads: 4 }, group))
    await y.data()
    y.dispose()
  }
} catch ({ code, message }) {
  writeSync(2, `${code} after ${Math.round(performance.now() - lost)} ms: ${message}\n`)
}
process.exit(1)
