// Configuration text to plain values: JSON with comments and trailing commas. A syntax error or a key given twice is
// an error with file, line and column. Overrides of the form path.to.key=JSON.

import { type Node, type ParseError, parseTree, printParseErrorCode } from 'jsonc-parser'
import { ZeroshardError } from '../binding/errors.js'

/**
 * Parses configuration text.
 *
 * @param source the file's name, for messages
 * @throws ZeroshardError CONFIG with line and column
 */
export function parseConfigText(text: string, source: string): unknown {
  const body = text.replace(/^\uFEFF/, ' ')
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
