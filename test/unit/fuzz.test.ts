// 100,000 changed configurations, headers, files and manifests: each is taken or refused, and nothing else happens.
// `npm run fuzz -- COUNT` runs as many as one likes.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { fileTarget, fuzz, targets } from '../helpers/fuzz.js'

const counts: Record<string, number> = { 'manifest, altered': 10_000, 'safetensors file': 3_000 }
const others = 87_000 / (targets.length - 1)

t.setTimeout(240_000)
t.test('what is read from outside is taken or refused with its code', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-fuzz-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  const memory = process.memoryUsage().rss
  let total = 0
  for (const target of [...targets, fileTarget(folder)]) {
    const count = counts[target.name] ?? others
    const { taken, refused, slowest } = await fuzz(target, count, 1)
    total += taken + refused
    t.ok(taken > count / 200, `${target.name}: ${taken} taken, ${refused} refused`)
    t.ok(refused > count / 200, target.name)
    t.ok(slowest < 5000, `${target.name}: the slowest took ${slowest.toFixed(0)} ms`)
  }
  t.equal(total, 100_000)
  t.ok(process.memoryUsage().rss - memory < 2 ** 29, 'memory does not pile up')
})
