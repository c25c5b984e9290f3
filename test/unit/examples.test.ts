// The public names: each has a doc comment and an example, and the examples (README's included) run and give what
// they say: a line `value // literal` is a check.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import ts from 'typescript'
import { startNode } from '../helpers/node.js'

const root = dirname(dirname(dirname(fileURLToPath(import.meta.url))))
const entries = {
  zeroshard: 'lib/index.ts',
  'zeroshard/models': 'lib/nn/models/index.ts',
  'zeroshard/parallel': 'lib/parallel/index.ts',
  'zeroshard/data': 'lib/data/index.ts',
}
/** Without an example so far; names only leave this list. */
const withoutExample = [
  'monitor.CommsLogger',
  'monitor.ModuleProfiler',
  'monitor.Observer',
  'monitor.TraceFile',
  'monitor.byPhase',
  'monitor.makeMonitor',
  'monitor.measurePeak',
  'monitor.mergeTraces',
  'monitor.overlapShare',
  'monitor.profileReport',
]

const options: ts.CompilerOptions = {
  target: ts.ScriptTarget.ES2023,
  module: ts.ModuleKind.NodeNext,
  moduleResolution: ts.ModuleResolutionKind.NodeNext,
  strict: true,
  noUncheckedIndexedAccess: true,
  skipLibCheck: true,
  noEmit: true,
  types: ['node'],
  typeRoots: [join(root, 'node_modules/@types')],
}

interface Public {
  name: string
  entry: string
  kind: 'class' | 'function' | 'value' | 'type'
  doc: string
  examples: { text: string; file: string; name: string }[]
}

const program = ts.createProgram(
  Object.values(entries).map((file) => join(root, file)),
  options,
)
const checker = program.getTypeChecker()

function kindOf(symbol: ts.Symbol): Public['kind'] {
  if (symbol.flags & ts.SymbolFlags.Class) return 'class'
  if (symbol.flags & ts.SymbolFlags.Function) return 'function'
  if (!(symbol.flags & ts.SymbolFlags.Variable)) return 'type'
  const type = checker.getTypeOfSymbol(symbol)
  return type.getCallSignatures().length ? 'function' : 'value'
}

function examplesOf(symbol: ts.Symbol, name: string): Public['examples'] {
  const file = relative(root, symbol.declarations?.[0]?.getSourceFile().fileName ?? '')
  const own = symbol
    .getJsDocTags(checker)
    .filter((tag) => tag.name === 'example')
    .map((tag) => ({ text: ts.displayPartsToString(tag.text), file, name }))
  if (!(symbol.flags & ts.SymbolFlags.Class)) return own
  // Methods too; those of a base class are in its own file.
  const members = checker.getPropertiesOfType(checker.getDeclaredTypeOfSymbol(symbol))
  return [...own, ...members.flatMap((member) => examplesOf(member, `${name}.${member.name}`))]
}

function publicNames(): Public[] {
  const visit = (module: ts.Symbol, entry: string, prefix: string): Public[] =>
    checker.getExportsOfModule(module).flatMap((exported): Public[] => {
      const symbol = exported.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(exported) : exported
      const name = `${prefix}${exported.name}`
      if (symbol.flags & ts.SymbolFlags.ValueModule) return visit(symbol, entry, `${name}.`)
      const doc = ts.displayPartsToString(symbol.getDocumentationComment(checker))
      return [{ name, entry, kind: kindOf(symbol), doc, examples: examplesOf(symbol, name) }]
    })
  return Object.entries(entries).flatMap(([entry, file]) => {
    const source = program.getSourceFile(join(root, file)) as ts.SourceFile
    return visit(checker.getSymbolAtLocation(source) as ts.Symbol, entry, '')
  })
}

const names = publicNames()

t.test('every public class, function and value has a doc comment', async (t) => {
  t.ok(names.length > 100)
  t.strictSame(
    names.filter(({ kind, doc }) => kind !== 'type' && !doc.trim()).map(({ name }) => name),
    [],
  )
})

t.test('every public class and function has an example', async (t) => {
  const lacking = names.filter(
    ({ kind, examples }) => (kind === 'class' || kind === 'function') && examples.length === 0,
  )
  t.strictSame(lacking.map(({ name }) => name).sort(), withoutExample)
})

/** What examples may use without importing it: every public name, and these. */
const contexts: Record<string, string> = {
  'lib/engine': `
class Mlp extends nn.Module {
  readonly up = new nn.Linear(4, 8)
  readonly down = new nn.Linear(8, 1)
  forward(x: Tensor): Tensor { return this.down.forward(ops.gelu(this.up.forward(x))) }
}
class WithLoss extends Mlp {
  override forward(x: Tensor, y?: Tensor): Tensor { return ops.meanSquaredError(super.forward(x), y as Tensor) }
}
const engine = await initialize({ model: new Mlp(), config: 'ds_config.json' })
const [x, y] = [tensor([1, 2, 3, 4, 5, 6, 7, 8], [2, 4]), tensor([1, 2], [2, 1])]
void WithLoss
`,
}

function imports(): string {
  const top = names.filter(({ name }) => !name.includes('.'))
  return Object.keys(entries)
    .map((entry) => {
      const own = top.filter((item) => item.entry === entry)
      const spaces = [
        ...new Set(
          names
            .filter((item) => item.entry === entry && item.name.includes('.'))
            .map((item) => item.name.split('.')[0]),
        ),
      ]
      const list = [...own.map(({ name, kind }) => (kind === 'type' ? `type ${name}` : name)), ...spaces]
      return `import { ${list.join(', ')} } from '${entry}'`
    })
    .join('\n')
}

const literal = /^(?:\[.*\]|'[^']*'|-?\d[\d.e-]*|true|false)$/

/** Lines that say what they give become checks. */
function checked(text: string): string {
  return text
    .split('\n')
    .map((line) => {
      const [, indent = '', code = '', comment = ''] = /^(\s*)(.*?)\s*\/\/ (.+)$/.exec(line) ?? []
      if (!code || !literal.test(comment)) return line
      const declared = /^const (\w+)(?:: [^=]+)? = /.exec(code)
      const printed = /^console\.log\((.*)\)$/.exec(code)
      const where = JSON.stringify(line.trim())
      if (declared) return `${indent}${code}; await check(${declared[1]}, ${comment}, ${where})`
      const condition = /^(if \(.*?\)) (\w.*)$/.exec(code)
      if (condition) return `${indent}${condition[1]} await check(${condition[2]}, ${comment}, ${where})`
      return `${indent}await check(${printed ? printed[1] : code}, ${comment}, ${where})`
    })
    .join('\n')
}

const helper = `
import { deepEqual } from 'node:assert/strict'
import { writeSync } from 'node:fs'
export async function check(actual: any, expected: unknown, where: string): Promise<void> {
  const value = actual && typeof actual === 'object' && 'data' in actual ? Array.from(await actual.data(), Number) : actual
  const [a, b] = [value, expected].map((x) => (Array.isArray(x) ? x : [x]))
  const numbers = b!.every((x) => typeof x === 'number')
  if (numbers && a!.length === b!.length && a!.every((x, i) => Math.abs(x - (b![i] as number)) <= 1e-4)) return
  deepEqual(numbers ? a : value, numbers ? b : expected, where)
}
`

const readme = readFileSync(join(root, 'README.md'), 'utf8')
const all = [
  ...new Map(
    names.flatMap(({ examples }) => examples).map((example) => [example.file + example.text, example]),
  ).values(),
  ...[...readme.matchAll(/```ts\n([\s\S]*?)```/g)].map(([, text]) => ({
    text: text as string,
    file: 'README.md',
    name: 'README',
  })),
]

function prepare(): { folder: string; files: { path: string; name: string; file: string }[] } {
  const folder = mkdtempSync(join(tmpdir(), 'zeroshard-test-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  mkdirSync(join(folder, 'node_modules'))
  symlinkSync(root, join(folder, 'node_modules/zeroshard'))
  writeFileSync(join(folder, 'package.json'), '{ "type": "module" }')
  writeFileSync(join(folder, 'a.txt'), 'Call me Ishmael. Some years ago, never mind how long precisely. '.repeat(20))
  writeFileSync(join(folder, 'check.ts'), helper)
  writeFileSync(
    join(folder, 'ds_config.json'),
    '{ "train_micro_batch_size_per_gpu": 2, "optimizer": { "type": "AdamW", "params": { "lr": 1e-3 } } }',
  )
  const files = all.map(({ text, file, name }, index) => {
    const path = join(folder, `example-${index}.ts`)
    const context = Object.entries(contexts).find(([prefix]) => file.startsWith(prefix) && !text.includes('class Mlp'))
    const needs = /^import /m.test(text) ? [] : [imports(), context?.[1] ?? '']
    writeFileSync(
      path,
      ["import { check } from './check.ts'", ...needs, checked(text), 'void check\nexport {}\n'].join('\n'),
    )
    return { path, name, file }
  })
  return { folder, files }
}

const { folder, files } = prepare()

t.test('the examples have types that fit', async (t) => {
  const examples = ts.createProgram(
    files.map(({ path }) => path),
    { ...options, allowImportingTsExtensions: true, baseUrl: folder },
  )
  const wrong = ts.getPreEmitDiagnostics(examples).map((diagnostic) => {
    const example = files.find(({ path }) => path === diagnostic.file?.fileName)
    return `${example?.name ?? diagnostic.file?.fileName}: ${ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n')}`
  })
  t.strictSame(wrong, [])
})

t.test('the examples run and give what they say', { timeout: 240_000 }, async (t) => {
  t.ok(all.length > 90, `${all.length} examples`)
  t.ok(all.some(({ file }) => file === 'README.md'))
  // One process per folder; each example says where it is, so that a failure has a name.
  const folderOf = (file: string): string => file.split('/').slice(0, 2).join('/')
  const queue = [...new Set(files.map(({ file }) => folderOf(file)))]
  const worker = async (): Promise<void> => {
    for (let next = queue.shift(); next; next = queue.shift()) {
      const examples = files.filter(({ file }) => folderOf(file) === next)
      const runner = examples.map(({ path, name }) => `console.log('at ${name}'); await import('${path}')`).join('\n')
      const { status, output } = await run(`${runner}\nprocess.exit(0)\n`)
      t.equal(status, 0, `${next}: ${status === 0 ? `${examples.length} examples` : output}`)
    }
  }
  await Promise.all([worker(), worker()])
})

function run(code: string): Promise<{ status: number | null; output: string }> {
  const child = startNode(['--import', import.meta.resolve('tsx'), '--input-type=module', '-e', code], {
    cwd: folder,
  })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => (output += chunk))
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, output })))
}
