// Modules: plain objects with parameters and submodules as fields. Calling forward() is a scope: what it
// makes and neither returns nor saves for backward is freed when it returns.

import { ZeroshardError } from '../binding/errors.js'
import { tidy, unscoped } from '../tensor/scope.js'
import { type DType, empty, runOp, type Tensor } from '../tensor/tensor.js'
import { Parameter } from './parameter.js'

/** Called around a module's forward; ZeRO fetches and releases a block's parameters here. */
export interface ForwardHooks {
  before(): void
  after(): void
}

/**
 * What models and layers are: a tree of modules with parameters as its leaves. Its call is a scope of memory.
 *
 * @example
 * class Mlp extends nn.Module {
 *   readonly up = new nn.Linear(4, 16)
 *   readonly down = new nn.Linear(16, 1)
 *   forward(x: Tensor): Tensor {
 *     return this.down.forward(ops.gelu(this.up.forward(x)))
 *   }
 * }
 * const mlp = new Mlp().materialize({ seed: 1 })
 * mlp.parameters().map(({ name }) => name) // ['up.weight', 'up.bias', 'down.weight', 'down.bias']
 * mlp.forward(tensor(new Float32Array(8), [2, 4])).shape // [2, 1]
 * mlp.dispose()
 */
export abstract class Module {
  training = true
  hooks: ForwardHooks | undefined
  /** Path in the model; the root's is empty. Set by `nameTree`. */
  path = ''

  constructor() {
    const { forward } = this
    Object.defineProperty(this, 'forward', {
      value: (...args: never[]) => {
        const { hooks } = this
        if (!hooks) return tidy(() => forward.apply(this, args))
        hooks.before()
        try {
          return tidy(() => forward.apply(this, args))
        } finally {
          hooks.after()
        }
      },
      enumerable: false,
      writable: true,
    })
  }

  abstract forward(...args: never[]): unknown

  /** Direct submodules by field name; arrays give name.0, name.1, … */
  children(): [string, Module][] {
    return fieldsOf(this, (value): value is Module => value instanceof Module)
  }

  /** Parameters that are fields of this very module. */
  ownParameters(): Parameter[] {
    return fieldsOf(this, (value): value is Parameter => value instanceof Parameter).map(([, parameter]) => parameter)
  }

  /** All parameters by path, each once: a shared one has the name of its first place. */
  namedParameters(): Map<string, Parameter> {
    const found = new Map<string, Parameter>()
    for (const [parameter, [name]] of this.parameterPlaces()) {
      parameter.name = name as string
      found.set(parameter.name, parameter)
    }
    return found
  }

  /** Every parameter with its paths, the first one first: a shared one has several. */
  parameterPlaces(): Map<Parameter, string[]> {
    const places = new Map<Parameter, string[]>()
    this.visit((module) => {
      for (const [field, parameter] of fieldsOf(module, (value): value is Parameter => value instanceof Parameter)) {
        const path = module.path ? `${module.path}.${field}` : field
        places.set(parameter, [...(places.get(parameter) ?? []), path])
      }
    })
    return places
  }

  parameters(): Parameter[] {
    return [...this.namedParameters().values()]
  }

  /** Parameters of this module and all below, but of `except`; names and paths stay, where parameters() gives new ones. */
  parametersBelow(except: ReadonlySet<Module> = new Set()): Set<Parameter> {
    if (except.has(this)) return new Set()
    const below = this.children().flatMap(([, child]) => [...child.parametersBelow(except)])
    return new Set([...this.ownParameters(), ...below])
  }

  /** Calls `fn` on this module and all below, parents first, after setting their paths. */
  visit(fn: (module: Module) => void, path = ''): void {
    this.path = path
    fn(this)
    for (const [field, child] of this.children()) child.visit(fn, path ? `${path}.${field}` : field)
  }

  /** Training mode (dropout on), or not. */
  train(mode = true): this {
    this.visit((module) => {
      module.training = mode
    }, this.path)
    return this
  }

  eval(): this {
    return this.train(false)
  }

  /**
   * Gives every parameter its own memory and initial values; for use without an engine. `values` false: memory
   * alone, where the values come from elsewhere.
   */
  materialize(options: { seed?: number; dtype?: DType; values?: boolean } = {}): this {
    const { seed = 0, dtype = 'f32', values = true } = options
    unscoped(() => {
      for (const parameter of this.namedParameters().values()) {
        if (parameter.materialized) continue
        const wide = empty(parameter.shape, { category: 'parameters' })
        if (values) parameter.fill(wide, seed)
        parameter.attach(dtype === 'f32' ? wide : narrowed(wide, dtype))
      }
    })
    return this
  }

  /** Frees what materialize() made, gradients included. */
  dispose(): void {
    for (const parameter of this.parameters()) {
      if (!parameter.materialized) continue
      parameter.tensor.grad?.dispose()
      parameter.tensor.dispose()
      parameter.detach()
    }
  }

  /** Names and tensors of all parameters; the tensors stay the model's. */
  stateDict(): Map<string, Tensor> {
    return new Map([...this.namedParameters()].map(([name, parameter]) => [name, parameter.tensor]))
  }

  /** Copies values by name into materialised parameters. `strict`: every name on both sides must match. */
  loadStateDict(state: ReadonlyMap<string, Tensor>, strict = true): void {
    const own = this.stateDict()
    const missing = [...own.keys()].filter((name) => !state.has(name))
    const unexpected = [...state.keys()].filter((name) => !own.has(name))
    if (strict && (missing.length || unexpected.length)) {
      throw new ZeroshardError(
        'CHECKPOINT',
        `[loadStateDict] missing: ${missing.join(', ') || 'none'}; unexpected: ${unexpected.join(', ') || 'none'}; load with strict = false to ignore them`,
      )
    }
    for (const [name, target] of own) {
      const source = state.get(name)
      if (!source) continue
      if (source.shape.join() !== target.shape.join()) {
        throw new ZeroshardError(
          'SHAPE',
          `[loadStateDict] ${name}: model ${target.describe()}, given ${source.describe()}`,
        )
      }
      runOp('cast', [target], [source])
    }
  }
}

function narrowed(wide: Tensor, dtype: DType): Tensor {
  const narrow = empty(wide.shape, { dtype, category: 'parameters' })
  runOp('cast', [narrow], [wide])
  wide.dispose()
  return narrow
}

function fieldsOf<T>(module: Module, is: (value: unknown) => value is T): [string, T][] {
  return Object.entries(module).flatMap(([name, value]): [string, T][] => {
    if (is(value)) return [[name, value]]
    if (!Array.isArray(value)) return []
    return value.flatMap((item, index): [string, T][] => (is(item) ? [[`${name}.${index}`, item]] : []))
  })
}
