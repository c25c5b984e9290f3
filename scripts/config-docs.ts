// Writes docs/config.md from the schema: a row per key, a table per section. `npm run docs:config`; a test fails where
// the committed file is not what this gives.

import { writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { schema, sectionsByType } from '../lib/config/index.js'
import { notYet } from '../lib/config/not-yet.js'
import { isSection, type Leaf, type Section } from '../lib/config/schema.js'

export const docsPath = join(dirname(dirname(fileURLToPath(import.meta.url))), 'docs/config.md')

const intro = `# Configuration

<!-- Written by \`npm run docs:config\` from lib/config; change the schema, not this file. -->

A configuration is DeepSpeed's JSON with four sections more: \`model\`, \`data\`, \`train\`, \`mesh\`. \`zeroshard train\` takes it as
a file, \`initialize()\` as an object, a file, or urlsafe base64 of the JSON. Text may have comments (\`//\`, \`/* */\`, \`#\`) and
trailing commas; whole numbers may be written as floats (\`5e8\`); relative paths start at the file's folder.
\`--set path.to.key=JSON\` on the command line goes before the file.

The smallest one is \`{ "train_micro_batch_size_per_gpu": 8 }\`; every other key has a default. The status of a key:

- **served**: it does what it says.
- **not yet**: its shape is final, but what it asks for is not there; asking for it is an error that says what to do instead.
- **hint**: leaving it out gives the same results; giving it is said once.
- **refused**: without it the results would be others than asked for, so asking for it is an error with the reason.

An error names the file, the key's path, the value, what is allowed, and the nearest key that exists.

## Differences from DeepSpeed

- Unknown keys are errors everywhere, also at the top level, where DeepSpeed ignores them.
- \`"auto"\` means the default only where DeepSpeed drops it; elsewhere it is an error, because only a trainer around the
  engine knows the value. It is dropped in ${autoSections()}.
- Batch sizes that do not divide exactly are errors; DeepSpeed's rule is the same, its message is not.
- \`overlap_comm\` is true at every stage: it moves time, never a result.
- Gradients are accumulated and reduced in f32 unless \`data_types.grad_accum_dtype\` says otherwise; DeepSpeed's default is
  the model's type. \`communication_data_type\` follows it.
- \`prescale_gradients\` and \`gradient_predivide_factor\` work at stages 2 and 3 too; without them a 16-bit average is exact
  until its last rounding, where DeepSpeed's sum may overflow.
- \`WarmupDecayLR\` without \`warmup_max_lr\` leads to the optimizer's rate, DeepSpeed's to 0.001.
- \`bf16\` leaves out updates with infinite gradients, always.
- \`sequence_parallel_size\`, \`pipeline.stages\`, \`tensor_parallel.autotp_size\` and \`expert_parallel.autoep_size\` mean the same as
  \`mesh\`; two that disagree are an error.
- Every checkpoint loads on every layout, so \`load_universal\`, \`elastic_checkpoint\` and the like change nothing.
- A key given twice is an error with its path, in DeepSpeed too; an old and a new name of one key count as twice.
`

function autoSections(): string {
  const ours = ['jsonl_monitor', 'prometheus']
  const names = Object.entries(schema.keys).flatMap(([name, rule]) => (isSection(rule) && rule.auto ? [name] : []))
  return [...names.filter((name) => !ours.includes(name)), 'timers.throughput'].map((name) => `\`${name}\``).join(', ')
}

const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll('\n', ' ')
const code = (text: string): string => `\`${text}\``

/** 5e8 for 500000000. */
function value(given: unknown): string {
  const round = typeof given === 'number' && given >= 1e6 && given % 1e5 === 0
  return code(round ? given.toExponential().replace('+', '') : JSON.stringify(given))
}

function statusOf(path: string, leaf: Leaf<unknown>): [status: string, note: string] {
  const entry = notYet.find((candidate) => candidate.path === path)
  return entry ? ['not yet', ` Not there yet: ${entry.instead}.`] : [leaf.status, '']
}

const namesOf = (section: Section, key: string): string[] =>
  Object.entries(section.aliases).flatMap(([name, to]) => (to === key ? [code(name)] : []))

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

/** What a row says beside the key. */
function leafCells(section: Section, where: string, key: string, leaf: Leaf<unknown>): string[] {
  const [status, note] = statusOf(where + key, leaf)
  const names = namesOf(section, key)
  const also = names.length ? ` Also: ${names.join(', ')}.` : ''
  return [leaf.type.label, value(leaf.fallback), status, `${sentence(leaf.text)}${note}${also}`]
}

const row = (...cells: string[]): string => `| ${cells.map(cell).join(' | ')} |`

/** Refused keys of which the same is to be said share a row. */
function table(section: Section, where: string): string[] {
  const rows: [keys: string[], cells: string[]][] = []
  for (const [key, rule] of Object.entries(section.keys)) {
    if (isSection(rule)) continue
    const cells = leafCells(section, where, key, rule)
    const same = rule.status === 'refused' && rows.find(([, other]) => other.join() === cells.join())
    if (same) same[0].push(code(where + key))
    else rows.push([[code(where + key)], cells])
  }
  for (const [name, { convert, text }] of Object.entries(section.deprecated))
    rows.push([[code(where + name)], [convert.label, '', 'deprecated', sentence(text)]])
  const lines = rows.map(([keys, cells]) => row(keys.join(', '), ...cells))
  return lines.length ? ['| key | value | default | status | what |', '|---|---|---|---|---|', ...lines, ''] : []
}

/** A served section with those inside it; what is not served goes to `rest`. */
function chapter(section: Section, path: string, rest: [string, Section][]): string[] {
  const lines = [`${'#'.repeat(Math.min(4, path.split('.').length + 1))} ${code(path)}`, '']
  const names = namesOf(schema, path)
  if (section.text) lines.push(section.text + (names.length ? ` Also: ${names.join(', ')}.` : ''), '')
  lines.push(...table(section, `${path}.`), ...inside(section, `${path}.`, rest))
  return lines
}

function inside(section: Section, where: string, rest: [string, Section][]): string[] {
  return Object.entries(section.keys).flatMap(([key, rule]) => {
    const path = where + key
    const lines: string[] = []
    if (isSection(rule) && rule.status === 'served') lines.push(...chapter(rule, path, rest))
    else if (isSection(rule)) rest.push([path, rule])
    for (const [type, byType] of Object.entries(sectionsByType[path] ?? {}))
      lines.push(`#### ${code(path)} of ${code(type)}`, '', byType.text, '', ...table(byType, `${path}.`))
    return lines
  })
}

export function configDocs(): string {
  const rest: [string, Section][] = []
  const chapters = inside(schema, '', rest)
  const unserved = rest.map(([path, section]) =>
    row(code(path), section.status, section.text, Object.keys(section.keys).map(code).join(', ')),
  )
  return [
    intro,
    '## Top level',
    '',
    ...table(schema, ''),
    ...chapters,
    '## Sections that change nothing or are refused',
    '',
    'Their keys are known, so a typing error is still found.',
    '',
    '| section | status | why | keys |',
    '|---|---|---|---|',
    ...unserved,
    '',
  ].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(docsPath, configDocs())
