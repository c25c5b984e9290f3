// `npm run fuzz -- [COUNT] [SEED]`: the fuzzing of test/unit/fuzz.test.ts with as many cases of each kind as asked
// (default 100,000), from another seed each time. A failure names the seed that repeats it.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileTarget, fuzz, targets } from '../test/helpers/fuzz.js'

const [count = 100_000, seed = Date.now() % 2 ** 31] = process.argv.slice(2).map(Number)
if (!Number.isSafeInteger(count) || !Number.isSafeInteger(seed)) {
  console.error('usage: npm run fuzz -- [COUNT] [SEED]')
  process.exit(2)
}
const folder = mkdtempSync(join(tmpdir(), 'zeroshard-fuzz-'))
try {
  for (const target of [...targets, fileTarget(folder)]) {
    const started = performance.now()
    const { taken, refused, slowest } = await fuzz(target, count, seed)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    console.log(
      `${target.name}: ${taken} taken, ${refused} refused, ${seconds} s, slowest ${slowest.toFixed(0)} ms, seed ${seed}`,
    )
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
