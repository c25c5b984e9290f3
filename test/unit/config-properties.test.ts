// What holds of every configuration: the batch triangle, round trips, misspelt keys, and that nothing but a
// ZeroshardError CONFIG comes of any JSON.

import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { nearest, ZeroshardError } from '../../lib/binding/errors.js'
import { resolveBatch } from '../../lib/config/batch.js'
import { chooseBatch } from '../../lib/config/elastic.js'
import { type Config, parseConfigText, readConfigSource, resolveConfig, schema } from '../../lib/config/index.js'
import { setPath } from '../../lib/config/parse.js'
import { isSection, type Leaf, rulesOf } from '../../lib/config/schema.js'
import { fc } from '../helpers/properties.js'

const options = { source: 'c.json', directory: '/work', worldSize: 4 }
const small = fc.integer({ min: 1, max: 64 })

function refusal(work: () => unknown): string | undefined {
  try {
    work()
  } catch (error) {
    if (error instanceof ZeroshardError && error.code === 'CONFIG') return error.message
    throw error
  }
  return undefined
}

t.test('any two of the three batch sizes give the third, and three that do not fit are refused', async () => {
  fc.assert(
    fc.property(small, small, small, small, (micro, steps, ranks, wrong) => {
      const total = micro * steps * ranks
      const all = {
        train_batch_size: total,
        train_micro_batch_size_per_gpu: micro,
        gradient_accumulation_steps: steps,
      }
      for (const key of Object.keys(all)) {
        const sizes = resolveBatch({ ...all, [key]: null }, ranks, 'c')
        for (const [name, size] of Object.entries(all)) if (sizes[name as keyof typeof all] !== size) return false
      }
      const alone = resolveBatch({ ...all, train_batch_size: null, gradient_accumulation_steps: null }, ranks, 'c')
      const refused = refusal(() => resolveBatch({ ...all, train_batch_size: total + wrong }, ranks, 'c'))
      return alone.train_batch_size === micro * ranks && refused?.includes(`= ${total}`) === true
    }),
  )
})

t.test('whatever batch sizes are given, the result fits or the error shows the numbers', async () => {
  const maybe = fc.option(fc.integer({ min: 1, max: 4096 }))
  fc.assert(
    fc.property(maybe, maybe, maybe, small, (total, micro, steps, ranks) => {
      const given = {
        train_batch_size: total,
        train_micro_batch_size_per_gpu: micro,
        gradient_accumulation_steps: steps,
      }
      let sizes: ReturnType<typeof resolveBatch> | undefined
      const refused = refusal(() => (sizes = resolveBatch(given, ranks, 'c')))
      if (refused) return [total, micro, steps].every((n, i) => n === null || i > 0 || refused.includes(String(n)))
      const [b, m, s] = Object.values(sizes as object) as [number, number, number]
      return b === m * s * ranks && b === (total ?? b) && m === (micro ?? m) && s === (steps ?? s)
    }),
  )
})

t.test('an elastic batch is within its limit and divides over every number of ranks it promises', async () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(small, { minLength: 1, maxLength: 5 }),
      fc.integer({ min: 64, max: 20_000 }),
      fc.integer({ min: 1, max: 8 }),
      fc.boolean(),
      (micros, limit, min, larger) => {
        const given = { micro_batch_sizes: micros, prefer_larger_batch: larger } as Parameters<typeof chooseBatch>[0]
        const chosen = chooseBatch(given, limit, min, 1000)
        if (!chosen) return true
        const fits = (ranks: number) => micros.some((micro) => chosen.batch % (micro * ranks) === 0)
        return chosen.batch <= limit && chosen.ranks.every((ranks) => ranks >= min && ranks <= 1000 && fits(ranks))
      },
    ),
  )
})

const pool: unknown[] = [true, false, null, 0, 1, 2, 3, 4, 100, 0.5, 0.9, 1e-3, 5e8, 4096, '', 'text', 'a/b', 'bf16']
pool.push('float16', 'type:block', [], ['x'], [2, 4], [0.9, 0.95], { a: 1 }, 'auto', '0.1')

/** Leaves that may be given, with the values of the pool that fit them. */
const leaves = [...rulesOf(schema)].flatMap(([path, rule]): [string, unknown[]][] => {
  if (isSection(rule) || rule.status === 'refused' || path.startsWith('model.')) return []
  const leaf = rule as Leaf<unknown>
  const values = [...pool, ...(leaf.type.words ?? [])].filter((value) => leaf.type.read(value) !== undefined)
  return isUnserved(path) ? [] : [[path, values]]
})
function isUnserved(path: string): boolean {
  const sections = [...rulesOf(schema)].filter(([, rule]) => isSection(rule) && rule.status !== 'served')
  return sections.some(([section]) => path.startsWith(`${section}.`))
}

const assignment = fc
  .constantFrom(...leaves)
  .chain(([path, values]) => fc.tuple(fc.constant(path), fc.constantFrom(...values)))
const someConfig = fc
  .array(assignment, { maxLength: 6 })
  .map((assignments) =>
    assignments.reduce<unknown>((raw, [path, value]) => setPath(raw, path, value), { train_batch_size: 32 }),
  )

/** A resolved configuration as one to be given: without what was computed beside it. */
function asGiven({ hints: _, mesh: { data: __, ...mesh }, scheduler, ...rest }: Config): unknown {
  return { ...rest, mesh, scheduler: scheduler ?? {} }
}

t.test('a configuration that is accepted reads the same as text, as base64, and once resolved', async (t) => {
  let accepted = 0
  let all = 0
  fc.assert(
    fc.property(someConfig, (raw) => {
      all++
      let config: Config | undefined
      const refused = refusal(() => (config = resolveConfig(raw, options)))
      const text = JSON.stringify(raw, null, 2)
      const asText = () => resolveConfig(parseConfigText(`// a\n${text} # b`, 'c.json'), options)
      if (!config) return refusal(asText) === refused
      accepted++
      const base64 = readConfigSource(Buffer.from(text).toString('base64url')).raw
      const again = resolveConfig(asGiven(config), options)
      const same = (other: Config) => isDeepStrictEqual({ ...other, hints: [] }, { ...config, hints: [] })
      return same(asText()) && same(resolveConfig(base64, options)) && same(again)
    }),
    { numRuns: 400 },
  )
  t.ok(accepted > all / 4, `${accepted} of ${all} were accepted`)
})

t.test('a served value that is accepted is the value of the resolved configuration', async () => {
  fc.assert(
    fc.property(assignment, ([path, value]) => {
      let config: unknown
      if (refusal(() => (config = resolveConfig(setPath({ train_batch_size: 32 }, path, value), options)))) return
      const leaf = [...rulesOf(schema)].find(([name]) => name === path)?.[1] as Leaf<unknown>
      if (leaf.status !== 'served') return
      const read = leaf.type.read(value)
      const found = path
        .split('.')
        .reduce<unknown>((v, key) => (v as Record<string, unknown> | undefined)?.[key], config)
      const resolved = typeof read === 'string' || Array.isArray(read) || read === null || typeof found === 'object'
      // texts may be paths, made absolute; null and lists may be filled in
      if (!resolved && JSON.stringify(found) !== JSON.stringify(read))
        throw new Error(`${path}: ${JSON.stringify(value)} became ${JSON.stringify(found)}`)
    }),
    { numRuns: 500 },
  )
})

t.test('a misspelt key is named, with the right key, or with one as near', async () => {
  const paths = [...rulesOf(schema)].map(([path]) => path)
  const edit = fc.tuple(fc.nat(100), fc.constantFrom('swap', 'drop', 'double'))
  fc.assert(
    fc.property(fc.constantFrom(...paths), edit, (path, [at, kind]) => {
      const key = path.split('.').at(-1) as string
      const i = at % (key.length - 1 || 1)
      const [before, a, b, after] = [key.slice(0, i), key.charAt(i), key.charAt(i + 1), key.slice(i + 2)]
      const wrong = before + (kind === 'swap' ? b + a : kind === 'drop' ? b : a + a + b) + after
      const where = path.slice(0, -key.length)
      const siblings = paths.filter((name) => name.startsWith(where) && !name.slice(where.length).includes('.'))
      if (paths.some((name) => name.split('.').at(-1) === wrong) || wrong === '') return true
      const message = refusal(() => resolveConfig(setPath({}, where + wrong, 1), options)) ?? ''
      const names = siblings.map((name) => name.slice(where.length))
      const near = nearest(wrong, names)
      return (
        message.includes(`unknown key ${where}${wrong}`) &&
        (near === undefined ? /known here|docs\/config\.md/.test(message) : message.includes('did you mean'))
      )
    }),
    { numRuns: 500 },
  )
})

t.test('any JSON value is a configuration or a CONFIG error', async () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 6 }), (raw) => {
      refusal(() => resolveConfig(raw, options))
    }),
    { numRuns: 1000 },
  )
})

t.test('any JSON value in the place of any key is taken or is a CONFIG error that names the key', async () => {
  const paths = [...rulesOf(schema)].map(([path]) => path)
  fc.assert(
    fc.property(fc.constantFrom(...paths), fc.jsonValue({ maxDepth: 4 }), (path, value) => {
      const message = refusal(() => resolveConfig(setPath({ train_batch_size: 32 }, path, value), options))
      const [section] = path.split('.') as [string]
      const together = /^c\.json: (mesh|train_batch_size|communication_data_type)/
      if (message && !message.includes(section) && !together.test(message)) throw new Error(`${path}: ${message}`)
    }),
    { numRuns: 2000 },
  )
})

t.test('any text is a value or a CONFIG error', async () => {
  const fragment = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    '"a"',
    ':',
    ',',
    '1',
    'null',
    '//',
    '/*',
    '*/',
    '#',
    '\n',
    '\\',
    '"',
  )
  const text = fc.oneof(
    fc.string(),
    fc.array(fragment).map((parts) => parts.join('')),
    fc.json(),
  )
  fc.assert(
    fc.property(text, (source) => {
      refusal(() => parseConfigText(source, 'c.json'))
      refusal(() => readConfigSource(source))
    }),
    { numRuns: 2000 },
  )
})
