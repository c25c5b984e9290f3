// Valid JSON values and texts, changed so that readers may stumble.

import type { Random } from './random.js'

/** Values that have broken readers of JSON. */
const hostile: readonly unknown[] = [
  ...[null, true, false, 0, -0, -1, 0.5, 1e308, -1e308, 2 ** 31, 2 ** 32, 2 ** 53, 2 ** 53 - 1, 2 ** 63, 5e-324],
  ...['', 'auto', '..', '../../etc/passwd', '/etc/passwd', 'a\0b', '__proto__', 'constructor', '\ud800', '😀', '0'],
  ...['x'.repeat(5000), [], {}, [[]], [null], { toString: 1 }, { valueOf: null, length: -1 }, { enabled: true }],
  JSON.parse('{"__proto__": {"polluted": true}}'),
]
const keys = ['__proto__', 'constructor', 'prototype', 'toString', 'length', '', 'a.b', 'shape', 'enabled', 'stage']

const isObject = (v: unknown): v is Record<string, unknown> => typeof v === 'object' && v !== null
const copy = (v: unknown): unknown => JSON.parse(JSON.stringify(v))

/** Every object and list inside, itself first. */
function containers(value: unknown): Record<string, unknown>[] {
  return isObject(value) ? [value, ...Object.values(value).flatMap(containers)] : []
}

/** Sets an own key, __proto__ as well; of a list an element, the next one where the key is none. */
function setOwn(target: object, key: string, value: unknown): void {
  const place = Array.isArray(target) && !Object.hasOwn(target, key) ? target.length : key
  if (Array.isArray(target) && key === 'length') return
  Object.defineProperty(target, place, { value, enumerable: true, configurable: true, writable: true })
}

/** A copy with a few changes of structure: values, keys and whole parts replaced, removed, moved, added. */
export function mutateJson(random: Random, original: unknown): unknown {
  const root = [copy(original)]
  for (let i = 1 + random.below(1 + random.below(4)); i > 0; i--) {
    const all = containers(root)
    const target = random.pick(all)
    const names = Object.keys(target)
    const key = names.length ? random.pick(names) : random.pick(keys)
    const kind = random.below(7)
    if (kind === 0 && !Array.isArray(target)) delete target[key]
    else if (kind === 1) setOwn(target, random.pick(keys), copy(random.pick(hostile)))
    else if (kind === 2) setOwn(target, key, copy(random.pick(Object.values(random.pick(all))) ?? null))
    else if (kind === 3 && Array.isArray(target)) target.push(copy(random.pick(hostile)))
    else if (kind === 4 && names.includes(key) && typeof target[key] === 'number')
      target[key] += random.pick([1, -1, 0.5, 8, 1e9, 2 ** 52])
    else if (kind === 5) setOwn(target, key, copy(target))
    else setOwn(target, key, copy(random.pick(hostile)))
  }
  return root[0]
}

const fragments = [
  '"',
  '{',
  '}',
  '[',
  ']',
  ',',
  ':',
  '/*',
  '*/',
  '//',
  '#',
  '\\',
  '\\u',
  '\n',
  '\0',
  '\uFEFF',
  'null',
  '1e999',
]

/** Text with a few changes of characters: flipped, cut, doubled, moved, and pieces of syntax put in. */
export function mutateText(random: Random, original: string): string {
  let text = original
  for (let i = 1 + random.below(1 + random.below(4)); i > 0; i--) {
    const at = random.below(text.length + 1)
    const end = Math.min(text.length, at + random.below(20))
    const kind = random.below(6)
    if (kind === 0) text = text.slice(0, at)
    else if (kind === 1) text = text.slice(0, at) + text.slice(end)
    else if (kind === 2) text = text.slice(0, at) + text.slice(at, end) + text.slice(at)
    else if (kind === 3) text = text.slice(0, at) + random.pick(fragments) + text.slice(at)
    else if (kind === 4) text = text.slice(0, at) + String.fromCharCode(random.below(256)) + text.slice(at + 1)
    else text = text.slice(0, at) + random.pick(fragments).repeat(random.pick([2, 3, 70, 1000])) + text.slice(end)
  }
  return text
}
