// What a configuration value may be: each type has a label for messages and a reader that returns undefined where
// the value does not fit. Numbers take integral floats (5e8) where integers are wanted.

export interface ValueType<T> {
  /** "must be …" */
  readonly label: string
  read(value: unknown): T | undefined
  /** The words that fit, for the nearest one. */
  readonly words?: readonly string[]
}

export interface Range {
  min?: number
  above?: number
  max?: number
  below?: number
}

const rangeLabel = (r: Range): string =>
  [
    r.min !== undefined && `at least ${r.min}`,
    r.above !== undefined && `greater than ${r.above}`,
    r.max !== undefined && `at most ${r.max}`,
    r.below !== undefined && `less than ${r.below}`,
  ]
    .filter(Boolean)
    .join(' and ')

const within = (v: number, r: Range): boolean =>
  v >= (r.min ?? -Infinity) && v > (r.above ?? -Infinity) && v <= (r.max ?? Infinity) && v < (r.below ?? Infinity)

export function number(range: Range = {}): ValueType<number> {
  return {
    label: `a number ${rangeLabel(range)}`.trim(),
    read: (v) => (typeof v === 'number' && Number.isFinite(v) && within(v, range) ? v : undefined),
  }
}

/** Integers that a double holds exactly: 2^53 and more are refused. */
export function integer(range: Range = { min: 0 }): ValueType<number> {
  return {
    label: `an integer ${rangeLabel(range)}`.trim(),
    read: (v) => (typeof v === 'number' && Number.isSafeInteger(v) && within(v, range) ? v : undefined),
  }
}

export const boolean: ValueType<boolean> = {
  label: 'true or false',
  read: (v) => (typeof v === 'boolean' ? v : undefined),
}

export const string: ValueType<string> = {
  label: 'a text',
  read: (v) => (typeof v === 'string' ? v : undefined),
}

/** A null byte would end the path inside the operating system. */
export const path: ValueType<string> = {
  label: 'the path of a file or folder',
  read: (v) => (typeof v === 'string' && v !== '' && !v.includes('\0') ? v : undefined),
}

/** Any value: for keys whose content does not matter here. */
export const anything: ValueType<unknown> = { label: 'any value', read: (v) => v }

/** One of a few words; letter case does not matter where `anyCase`. */
export function oneOf<const W extends string>(words: readonly W[], anyCase = false): ValueType<W> {
  return {
    label: words.map((word) => `"${word}"`).join(words.length > 2 ? ', ' : ' or '),
    words,
    read: (v) =>
      words.find((word) => v === word || (anyCase && typeof v === 'string' && v.toLowerCase() === word.toLowerCase())),
  }
}

export function nullable<T>(type: ValueType<T>): ValueType<T | null> {
  return { ...type, label: `${type.label}, or null`, read: (v) => (v === null ? null : type.read(v)) }
}

/** null means `value`: for keys whose default DeepSpeed writes as null. */
export function orNull<T>(type: ValueType<T>, value: NoInfer<T>): ValueType<T> {
  return { ...type, label: `${type.label}, or null`, read: (v) => (v === null ? value : type.read(v)) }
}

/** "auto" means `value`: where DeepSpeed's own default is the word. */
export function orAuto<T, V>(type: ValueType<T>, value: V): ValueType<T | V> {
  return { ...type, label: `${type.label}, or "auto"`, read: (v) => (v === 'auto' ? value : type.read(v)) }
}

const floatNames = { fp32: ['float32', 'float'], bf16: ['bfloat16'], fp16: ['float16', 'half'] } as const
export type FloatName = keyof typeof floatNames

/** fp32, bf16 or fp16 by any of PyTorch's names. */
export const floatType: ValueType<FloatName> = {
  label: '"fp32", "bf16" or "fp16"',
  words: Object.keys(floatNames),
  read: (v) => {
    const word = typeof v === 'string' ? v.toLowerCase().replace(/^torch\./, '') : ''
    return (Object.keys(floatNames) as FloatName[]).find(
      (name) => word === name || (floatNames[name] as readonly string[]).includes(word),
    )
  },
}

/** A list; a single value counts as a list of one, unless `length` or `strict` says otherwise. */
export function list<T>(type: ValueType<T>, length?: number, strict = false): ValueType<T[]> {
  return {
    label: `a list of ${length ?? 'values'} (each ${type.label})`,
    read: (v) => {
      if (strict && !Array.isArray(v)) return undefined
      const read = (Array.isArray(v) ? v : [v]).map((item) => type.read(item))
      const fits = !read.includes(undefined) && (length === undefined || read.length === length)
      return fits ? (read as T[]) : undefined
    },
  }
}
