// `npm run bench [-- NAME…]`: runs the benchmarks (all, or those whose file or folder is named), prints tables and
// writes bench/results. Builds first is the caller's business: it measures dist/ and the addon as they are.

import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { type Benchmark, describeMachine, meets, type Row, root, table, writeResults } from './harness.js'

const folders = ['op', 'comm', 'binding', 'step', 'checkpoint']
const available = folders.flatMap((folder) =>
  readdirSync(join(root, 'bench', folder))
    .filter((file) => file.endsWith('.ts'))
    .map((file) => ({ folder, name: file.slice(0, -3), path: join(root, 'bench', folder, file) })),
)

async function main(): Promise<void> {
  const names = process.argv.slice(2)
  const unknown = names.filter((name) => !available.some((one) => one.name === name || one.folder === name))
  if (unknown.length) {
    const known = [...folders, ...available.map((one) => one.name)]
    console.error(`no benchmark '${unknown.join("', '")}'; there are ${known.join(', ')}`)
    process.exitCode = 2
    return
  }
  if (!existsSync(join(root, 'dist/index.js'))) throw new Error('dist/ is missing; run npm run build first')
  const { binding } = await import('./library.js')
  const machine = describeMachine(binding().native.simd)
  const command = `npm run bench${names.length ? ` -- ${names.join(' ')}` : ''}`
  let missed = 0
  for (const folder of folders) {
    const parts: { title: string; rows: Row[] }[] = []
    for (const one of available.filter((each) => each.folder === folder)) {
      if (names.length && !names.includes(one.name) && !names.includes(folder)) continue
      const benchmark = ((await import(pathToFileURL(one.path).href)) as { default: Benchmark }).default
      const rows = await benchmark.run()
      parts.push({ title: benchmark.title, rows })
      missed += rows.filter((row) => meets(row) === false).length
      console.log(['', benchmark.title, ...table(rows)].join('\n'))
    }
    if (parts.length === 0) continue
    // A part of a folder is printed only: it must not replace the whole folder's results.
    const whole = parts.length === available.filter((each) => each.folder === folder).length
    if (whole) console.log(`\n→ ${writeResults(folder, command, machine, parts)}`)
  }
  console.log(missed ? `\n${missed} targets missed` : '\nall targets met')
}

await main()
