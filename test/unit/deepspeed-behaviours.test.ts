// test/deepspeed-behaviours.md names every behaviour once, and tests that exist.

import { existsSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const folder = dirname(dirname(fileURLToPath(import.meta.url)))

t.test('each of the 67 behaviours has a state, a test where it is tested, a reason where it is not here', async (t) => {
  const text = readFileSync(join(folder, 'deepspeed-behaviours.md'), 'utf8')
  const rows = text.split('\n').filter((line) => /^\| \d/.test(line))
  const cells = rows.map((line) => line.split('|').slice(1, -1)).map((row) => row.map((cell) => cell.trim()))
  t.strictSame(
    cells.map(([number]) => Number(number)),
    Array.from({ length: 67 }, (_, i) => i + 1),
  )
  for (const [number = '', , state = '', where = '', note = ''] of cells) {
    const files = [...where.matchAll(/`([^`]+)`/g)].map((file) => file[1] as string)
    t.ok(['tested', 'partly', 'open', 'not here'].includes(state), `${number} is ${state}`)
    if (state === 'tested' || state === 'partly') t.not(files.length, 0, `${number} names a test`)
    if (state === 'partly' || state === 'not here') t.not(note, '', `${number} says why`)
    for (const file of files) t.ok(existsSync(join(folder, file)), file)
  }
})
