// Configuration text to plain values: JSON with comments (//, /* */ and #) and trailing commas. A syntax error or a
// key given twice is an error with file, line and column. Overrides of the form path.to.key=JSON.

import { type Node, type ParseError, parseTree, printParseErrorCode } from 'jsonc-parser'
import { ZeroshardError } from '../binding/errors.js'
import { show } from './read.js'

/** Sections and lists within each other; deeper text is no configuration and would exhaust the stack. */
const MAX_DEPTH = 64

/**
 * Parses configuration text.
 *
 * @param source the file's name, for messages
 * @throws ZeroshardError CONFIG with line and column
 */
export function parseConfigText(text: string, source: string): unknown {
  const body = plainJson(text.replace(/^\uFEFF/, ' '), source)
  const errors: ParseError[] = []
  const tree = parseTree(body, errors, { allowTrailingComma: true })
  const [error] = errors
  if (error) {
    const what = printParseErrorCode(error.error)
      .replace(/([a-z])([A-Z])/g, '$1 $2')
      .toLowerCase()
    throw new ZeroshardError('CONFIG', `${position(body, error.offset, source)}: not valid JSON: ${what}`)
  }
  if (!tree) throw new ZeroshardError('CONFIG', `${source}: empty; a configuration is a JSON object`)
  return toValue(tree, '', (offset) => position(body, offset, source))
}

/** Strings and comments of any kind, brackets: what blanking `#` comments and counting depth must tell apart. */
const TOKENS = /"[^"\\\n]*(?:\\.[^"\\\n]*)*"?|\/\/[^\n]*|\/\*[\s\S]*?(?:\*\/|$)|#[^\n]*|[[{]|[\]}]/g

/** `#` comments (which DeepSpeed takes) blanked, offsets kept; fails where brackets nest too deep. */
function plainJson(text: string, source: string): string {
  let depth = 0
  return text.replace(TOKENS, (token, offset: number) => {
    if (token.startsWith('#')) return ' '.repeat(token.length)
    if (token === '[' || token === '{') depth++
    else if (token === ']' || token === '}') depth--
    if (depth > MAX_DEPTH) {
      const where = position(text, offset, source)
      throw new ZeroshardError('CONFIG', `${where}: more than ${MAX_DEPTH} brackets within each other`)
    }
    return token
  })
}

function toValue(node: Node, path: string, at: (offset: number) => string): unknown {
  if (node.type === 'array') return (node.children ?? []).map((child, i) => toValue(child, `${path}[${i}]`, at))
  if (node.type !== 'object') return node.value
  const entries = new Map<string, unknown>()
  for (const { children = [] } of node.children ?? []) {
    const [keyNode, valueNode] = children as [Node, Node]
    const key = String(keyNode.value)
    const keyPath = path ? `${path}.${key}` : key
    if (entries.has(key)) throw new ZeroshardError('CONFIG', `${at(keyNode.offset)}: ${keyPath} is given twice`)
    entries.set(key, toValue(valueNode, keyPath, at))
  }
  return Object.fromEntries(entries)
}

function position(text: string, offset: number, source: string): string {
  const before = text.slice(0, offset).split('\n')
  return `${source}:${before.length}:${(before.at(-1) ?? '').length + 1}`
}

/**
 * A copy of a value from a program in which there is nothing but what JSON has.
 *
 * @throws CONFIG where a value is a function, a class instance, no finite number, a cycle, or a key named __proto__
 */
export function plainCopy(value: unknown, source: string, path = '', depth = 0): unknown {
  const bad = (why: string): never => {
    throw new ZeroshardError('CONFIG', `${source}: ${path || 'the configuration'} ${why}`)
  }
  if (value === null || value === undefined || typeof value === 'boolean' || typeof value === 'string') return value
  if (typeof value === 'number') return Number.isFinite(value) ? value : bad(`is ${value}; it must be a finite number`)
  if (typeof value !== 'object') return bad(`is a ${typeof value}; it must be a JSON value`)
  if (depth === MAX_DEPTH) return bad(`lies more than ${MAX_DEPTH} deep (or contains itself)`)
  if (Array.isArray(value)) return value.map((item, i) => plainCopy(item, source, `${path}[${i}]`, depth + 1))
  const prototype = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null)
    return bad(`is ${show(value)} of class ${prototype.constructor?.name}; it must be a plain object`)
  const entries = Object.entries(value).map(([key, item]) => {
    const inner = path ? `${path}.${key}` : key
    if (key === '__proto__') bad('has a key __proto__; no configuration key has this name')
    return [key, plainCopy(item, source, inner, depth + 1)] as const
  })
  return Object.fromEntries(entries)
}

/**
 * `raw` with each `path.to.key=JSON` set; a word that is no JSON is taken as text. `raw` is not changed.
 *
 * @example applyOverrides({ train: { steps: 9 } }, ['train.steps=5', 'data.tokenizer=byte'])
 */
export function applyOverrides(raw: unknown, assignments: readonly string[]): unknown {
  return assignments.reduce((config, assignment) => {
    const [, path, text] = /^([^=]+)=(.*)$/s.exec(assignment) ?? []
    if (path === undefined || text === undefined) {
      throw new ZeroshardError('ARGUMENT', `--set ${assignment}: expected path.to.key=JSON, as in train.steps=100`)
    }
    return setPath(config, path, overrideValue(path, text))
  }, raw)
}

function overrideValue(path: string, text: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    if (/^[A-Za-z_./~][^"{}[\]]*$/.test(text)) return text
    throw new ZeroshardError('ARGUMENT', `--set ${path}=${text}: the value is not JSON`, { cause })
  }
}

/** A copy of `raw` with the value at `path`; sections on the way are made where missing. */
export function setPath(raw: unknown, path: string, value: unknown): unknown {
  const [key, ...rest] = path.split('.') as [string, ...string[]]
  if (key === '') throw new ZeroshardError('ARGUMENT', `the path of a configuration value has an empty part: ${path}`)
  if (raw !== undefined && raw !== null && (typeof raw !== 'object' || Array.isArray(raw))) {
    throw new ZeroshardError('ARGUMENT', `cannot set ${path}: what lies before it is not a section`)
  }
  const entries = new Map(Object.entries(raw ?? {}))
  entries.set(key, rest.length ? setPath(entries.get(key), rest.join('.'), value) : value)
  return Object.fromEntries(entries)
}
