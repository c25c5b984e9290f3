// What holds of the repository as text: who imports whom, who may do what, sizes of files, and that every native
// operation has its contract, kernel, reference and test, every public name its doc comment.

import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import ts from 'typescript'

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

/** Paths below a folder of the repository. */
function filesIn(folder: string, pattern: RegExp): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true, recursive: true })
    .filter((entry) => entry.isFile() && pattern.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath ?? entry.path, entry.name)))
    .sort()
}

const library = filesIn('lib', /\.ts$/)

/** Import downward only: each folder may import those before it. */
const chain = 'binding tensor autograd ops nn optim parallel checkpoint engine cli'.split(' ')
/** Beside the chain: used by engine and cli only, and not by each other. */
const beside = ['config', 'data', 'monitor', 'planner', 'launch']
const users = ['engine', 'cli', 'index.ts']

/** Modules of ours that a file imports, `import type` included. */
function importsOf(path: string): string[] {
  return ts
    .preProcessFile(read(path), true, true)
    .importedFiles.map(({ fileName }) => fileName)
    .filter((name) => name.startsWith('.'))
    .map((name) => join(dirname(path), name).replace(/\.js$/, '.ts'))
}

const partOf = (path: string): string => path.split('/')[1] as string

function mayImport(from: string, to: string): boolean {
  if (from === to || from === 'index.ts') return true
  if (beside.includes(to)) return users.includes(from)
  if (beside.includes(from)) return ['binding', 'tensor'].includes(to)
  return chain.indexOf(to) < chain.indexOf(from)
}

t.test('imports go downward only', async (t) => {
  for (const path of library) {
    const from = partOf(path)
    t.ok([...chain, ...beside, 'index.ts'].includes(from), `${path}: lib/${from} has its place in the chain`)
    for (const target of importsOf(path)) {
      t.ok(mayImport(from, partOf(target)), `${path} may import ${target}`)
    }
  }
})

t.test('the one that may is the only one that does', async (t) => {
  const only = (pattern: RegExp, where: RegExp, what: string): void => {
    for (const path of library.filter((path) => !where.test(path)))
      t.notMatch(read(path).replace(/^\s*(\/\/|\*|\/\*).*$/gm, ''), pattern, `${path} does not ${what}`)
  }
  only(/createRequire|node-gyp-build|process\.dlopen/, /^lib\/binding\/loader\.ts$/, 'load the addon')
  only(/loadAddon/, /^lib\/binding\//, 'ask for the addon')
  only(/process\.env\.|process\.env\[/, /^lib\/launch\/env\.ts$/, 'read environment variables')
  only(
    /\brank\s*%|\.floor\(\s*[\w.]*\brank\s*\//i,
    /^lib\/parallel\/(mesh|tensor\/cut)\.ts$/,
    'find a place in the mesh from a rank',
  )
  for (const path of library.filter((path) => path.startsWith('lib/nn/models/')))
    t.notOk(
      importsOf(path).some((target) => partOf(target) === 'parallel'),
      `${path} is plain`,
    )
  for (const path of filesIn('native', /\.(cpp|h)$/).filter((path) => !path.startsWith('native/napi/')))
    t.notMatch(read(path), /#include <(napi|node_api)/, `${path} knows nothing of Node-API`)
  for (const path of filesIn('test/reference', /\.ts$/))
    t.notMatch(read(path), /from '[^']*lib\//, `${path} imports nothing from lib/`)
})

/** Longer files, and why. */
const longer: Record<string, string> = {}

t.test('no file is longer than 400 lines, and each says what it is', async (t) => {
  const sources = ['lib', 'native', 'test', 'bench', 'scripts', 'examples'].flatMap((folder) =>
    filesIn(folder, /\.(ts|mjs|cpp|cu|h|py|sh)$/).filter((path) => !path.includes('node_modules/')),
  )
  for (const path of sources) {
    const text = read(path)
    const lines = text.split('\n').length - 1
    if (longer[path]) t.ok(lines > 400, `${path} has ${lines} lines and needs no exception`)
    else t.ok(lines <= 400, `${path} has ${lines} lines`)
    t.match(text, /^(#!.*\n)?(\/\/|\/\*|#|"""|@|declare|import) ?./, `${path} opens with what it is`)
  }
})

/** Native operations whose reference or test has another name: [in test/reference, in test/op], or why there is none. */
const elsewhere: Record<string, [reference: string, test: string] | string> = {
  unary: ['functions', 'Object.entries(ref.functions)'],
  binary: ['broadcast', "'add', 'sub', 'mul', 'div'"],
  affine: ['map', "'affine'"],
  layerNorm: ['norm', "'layerNorm'"],
  rmsNorm: ['norm', "'rmsNorm'"],
  classifier: ['crossEntropy', "'crossEntropy'"],
  classifierPart: ['crossEntropy', '`classifier in parts'],
  classifierMerge: ['crossEntropy', '`classifier in parts'],
  embedding: ['rows', "'embedding'"],
  gather: ['rows', "'gather'"],
  scatterAdd: ['rows', "'gather'"], // the backward of gather
  reduce: ['array', "'sum'"],
  copy2d: ['array', "'slice'"],
  attention: ['attention', '`attention '],
  softmax: ['softmax', "'softmax'"],
  randomFill: 'test/native/random_test.cpp: against the definition in float64, for every width of vectors',
  dropout: ['dropoutFactor', 'dropoutFactor'],
  adamw: ['updates', "'AdamW'"],
  sgd: ['updates', "'SGD'"],
  adagrad: ['updates', "'Adagrad'"],
  lion: ['updates', "'Lion'"],
  lamb: ['updates', "'Lamb'"],
  applyUpdate: ['updates', "'Lamb'"], // its second half
  muon: ['updates', "'Muon'"],
  quantize: 'test/native/float8_test.cpp: against tables in float64, every code and every tie',
  fp8Scale: 'test/native/float8_test.cpp: against the definition, step by step',
  fp8Matmul:
    'test/native/float8_test.cpp: in float64, within the bound of f32 sums; the whole linear: test/op/fp8.test.ts',
  topK: ['largest', "'topK"],
  cast: ['rounded', "'cast"],
  fill: ['rounded', "'fill"],
  absmax: ['globalNorm', "'the global norm"],
  sumSquares: ['globalNorm', "'the global norm"],
  normFinish: ['globalNorm', "'the global norm"],
}

const camel = (name: string): string => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())

t.test('every native operation has a contract, a CPU kernel, a reference and a test', async (t) => {
  const list = read('native/ops/ops.def')
  const kernels = filesIn('native/backend/cpu', /\.cpp$/)
    .map(read)
    .join('\n')
  const references = filesIn('test/reference', /\.ts$/).map(read).join('\n')
  const tests = filesIn('test/op', /\.ts$/).map(read).join('\n')
  const families = new Set<string>()
  let header = ''
  for (const line of list.split('\n')) {
    header = /^\/\/ (\w+\.h)$/.exec(line)?.[1] ?? header
    const name = /^ZS_OP\((\w+),/.exec(line)?.[1]
    if (!name) continue
    const base = name.replace(/_(forward|backward)$/, '')
    const family = camel(base)
    families.add(family)
    const contract = read(join('native/ops', header))
    t.match(contract, new RegExp(`\\b${base.toUpperCase()}_`), `${header} names the arguments of ${name}`)
    t.match(kernels, new RegExp(`\\bint32_t ${name}\\(zs_call \\*`), `the CPU has ${name}`)
    const entry = elsewhere[family] ?? [family, `'${family}'`]
    if (typeof entry === 'string') continue
    t.match(references, new RegExp(`export (function|const) ${entry[0]}\\b`), `${name} has the reference ${entry[0]}`)
    t.ok(tests.includes(entry[1]), `${name} has a test ${entry[1]}`)
  }
  t.ok(families.size > 20, 'the list was read')
  for (const name of Object.keys(elsewhere)) t.ok(families.has(name), `${name} is an operation`)
})

t.test('every public name has a doc comment', async (t) => {
  const { exports } = JSON.parse(read('package.json')) as { exports: Record<string, { types?: string }> }
  const entries = Object.values(exports).flatMap(({ types }) =>
    types ? [join(root, types.replace('./dist/', 'lib/').replace(/\.d\.ts$/, '.ts'))] : [],
  )
  const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile)
  const { options } = ts.parseJsonConfigFileContent(config, ts.sys, root)
  const program = ts.createProgram(entries, { ...options, noEmit: true })
  const checker = program.getTypeChecker()
  let count = 0
  const visit = (symbol: ts.Symbol, path: string): void => {
    const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
    const [declaration] = target.declarations ?? []
    if (declaration && ts.isSourceFile(declaration)) {
      for (const member of checker.getExportsOfModule(target)) visit(member, `${path}.${member.name}`)
      return
    }
    count++
    t.not(ts.displayPartsToString(target.getDocumentationComment(checker)), '', `${path} says what it is`)
  }
  for (const entry of entries) {
    const module = checker.getSymbolAtLocation(program.getSourceFile(entry) as ts.SourceFile) as ts.Symbol
    for (const symbol of checker.getExportsOfModule(module)) visit(symbol, `${relative(root, entry)}: ${symbol.name}`)
  }
  t.ok(count > 50, `${count} public names`)
})

t.test('every environment variable is documented, and every documented one is read', async (t) => {
  const documented = new Set(read('docs/environment.md').match(/ZEROSHARD_[A-Z_]+/g))
  const sources = ['lib', 'native', 'bench', 'test'].flatMap((folder) => filesIn(folder, /\.(ts|cpp|h|cu)$/))
  const text = sources.filter((path) => path !== 'test/repo.test.ts').map(read)
  const ours = text.filter((_, index) => !(sources[index] as string).startsWith('test/')).join('\n')
  for (const name of new Set(ours.match(/ZEROSHARD_[A-Z_]+/g)))
    t.ok(documented.has(name) || name === 'ZEROSHARD_CHILD', `docs/environment.md has ${name}`)
  for (const name of documented)
    t.ok(
      text.some((source) => source.includes(name)),
      `${name} is read`,
    )
})
