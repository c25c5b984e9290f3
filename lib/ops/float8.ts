// Products of matrices in 8 bits, each with one scale, and a linear's forward and backward made of them. How operands
// get their scales is a Quantizer's business (lib/parallel/fp8). Nothing here is on the tape: `linear` records.

import type { BackwardContext } from '../autograd/tape.js'
import { ZeroshardError } from '../binding/errors.js'
import { empty, runOp, type Tensor } from '../tensor/tensor.js'
import { weightGradient } from './weight-gradient.js'

/** Element types of 8 bits: more precision, or more range. */
export type Float8 = 'f8e4m3' | 'f8e5m2'
export const largestOf: Record<Float8, number> = { f8e4m3: 448, f8e5m2: 57344 }

/** A product's sizes, but for its rows, divide by it. */
export const FP8_MULTIPLE = 16

/** Which copies are asked for: a product reads rows, so what reads columns needs the transpose. */
export interface Wanted {
  codes: boolean
  transposed: boolean
}

/** A matrix in 8 bits: (rows, cols), and (cols, rows rounded up to 16). */
export interface Quantized {
  codes: Tensor | undefined
  transposed: Tensor | undefined
  /** What a code's value is multiplied with; f32 (1). */
  inverse: Tensor
}

/** Brings the operands of one linear into 8 bits. */
export interface Quantizer {
  input(x: Tensor, rows: number, cols: number, wanted: Wanted): Quantized
  weight(weight: Tensor, wanted: Wanted): Quantized
  gradient(dy: Tensor, rows: number, cols: number, wanted: Wanted): Quantized
}

export const paddedRows = (rows: number): number => Math.ceil(rows / FP8_MULTIPLE) * FP8_MULTIPLE

/** One call of the kernel (native/ops/float8.h): amax becomes the larger of itself and the largest of |x|. */
export function quantizeInto(
  x: Tensor,
  scale: Tensor,
  amax: Tensor,
  dtype: Float8,
  [rows, cols]: readonly [number, number],
  wanted: Wanted,
): Omit<Quantized, 'inverse'> {
  const codes = wanted.codes ? empty([rows, cols], { dtype }) : undefined
  const transposed = wanted.transposed ? empty([cols, paddedRows(rows)], { dtype }) : undefined
  runOp('quantize', [amax, codes, transposed], [x, scale], [rows, cols])
  return { codes, transposed }
}

/** y (m, n) = a (m, k) · b (n, k)ᵀ, times both inverses. `fast`: sums may have fewer bits on the device. */
export function fp8Product(
  y: Tensor,
  [a, aInverse]: readonly [Tensor, Tensor],
  [b, bInverse]: readonly [Tensor, Tensor],
  {
    m,
    n,
    k,
    accumulate = false,
    fast = false,
  }: { m: number; n: number; k: number; accumulate?: boolean; fast?: boolean },
  bias?: Tensor,
): void {
  runOp('fp8_matmul', [y], [a, b, aInverse, bInverse, bias], [m, n, k, accumulate ? 1 : 0, fast ? 1 : 0])
}

/** Memory that comes and goes (a gathered parameter or sequence): what is made of it is made again in backward. */
const isLent = (tensor: Tensor): boolean => tensor.lender !== undefined

/**
 * x · weight (out, in)ᵀ, or weight (in, out) with `inFirst`: one forward and its backward. Backward reads the input's
 * transpose, the weight's other copy and both copies of the output's gradient.
 */
export class QuantizedLinear {
  readonly #sizes: { m: number; n: number; k: number }
  readonly #input: Quantized
  readonly #weight: Quantized

  constructor(
    readonly x: Tensor,
    readonly weight: Tensor,
    readonly inFirst: boolean,
    readonly quantizer: Quantizer,
    /** Whether a backward may follow. */
    recorded: boolean,
  ) {
    const [n, k] = (inFirst ? [...weight.shape].reverse() : weight.shape) as [number, number]
    if (x.dtype === 'f32' || n % FP8_MULTIPLE !== 0 || k % FP8_MULTIPLE !== 0)
      throw new ZeroshardError(
        'UNSUPPORTED',
        `[linear] ${x.describe()} and ${weight.describe()} in 8 bits: needs bf16 or f16, and sizes that divide by ${FP8_MULTIPLE}; leave the layer out (fp8.exclude)`,
      )
    this.#sizes = { m: x.count / k, n, k }
    this.#input = quantizer.input(x, x.count / k, k, {
      codes: true,
      transposed: recorded && weight.requiresGrad && !isLent(x),
    })
    const both = recorded && x.requiresGrad && !isLent(weight)
    this.#weight = quantizer.weight(weight, { codes: both || !inFirst, transposed: both || inFirst })
  }

  /** What the tape must hold. */
  get saved(): Tensor[] {
    const { codes, transposed, inverse } = this.#weight
    const weight = isLent(this.weight) ? [this.weight] : [inverse, this.inFirst ? codes : transposed]
    const input = isLent(this.x) ? [this.x] : [this.#input.inverse, this.#input.transposed]
    return [...weight, ...input].filter((tensor) => tensor !== undefined)
  }

  /** Rows [row, row + m) of the product. */
  multiply(y: Tensor, bias: Tensor | undefined, row = 0, m = this.#sizes.m): void {
    const { n, k } = this.#sizes
    const { codes, inverse } = this.#input
    const { codes: asIs, transposed, inverse: ofWeight } = this.#weight
    const a = (codes as Tensor).view([m, k], row * k)
    const b = (this.inFirst ? transposed : asIs) as Tensor
    fp8Product(y, [a, inverse], [b, ofWeight], { m, n, k, fast: true }, bias)
    a.dispose()
  }

  /** Gradients of x and of the weight, given y's. */
  backward(dy: Tensor, context: BackwardContext): [dx: Tensor | undefined, dw: Tensor | undefined] {
    const { m, n } = this.#sizes
    const [ofInput, ofWeight] = [context.needs(0), context.needs(1)]
    const gradient = this.quantizer.gradient(dy, m, n, { codes: ofInput, transposed: ofWeight })
    return [
      ofInput ? this.#inputGradient(gradient) : undefined,
      ofWeight ? this.#weightGradient(gradient, context) : undefined,
    ]
  }

  #inputGradient({ codes, inverse }: Quantized): Tensor {
    const { x, weight, inFirst, quantizer } = this
    const { m, n, k } = this.#sizes
    const dx = empty(x.shape, { dtype: x.dtype })
    const again = isLent(weight) ? quantizer.weight(weight, { codes: inFirst, transposed: !inFirst }) : this.#weight
    const b = (inFirst ? again.codes : again.transposed) as Tensor
    fp8Product(dx, [codes as Tensor, inverse], [b, again.inverse], { m, n: k, k: n })
    return dx
  }

  #weightGradient({ transposed, inverse }: Quantized, context: BackwardContext): Tensor | undefined {
    const { x, weight, inFirst, quantizer } = this
    const { m, k } = this.#sizes
    const ofGradient = [transposed as Tensor, inverse] as const
    const compute = (into: Tensor, accumulate: boolean): void => {
      const again = isLent(x) ? quantizer.input(x, m, k, { codes: false, transposed: true }) : this.#input
      const ofInput = [again.transposed as Tensor, again.inverse] as const
      const [a, b] = inFirst ? [ofInput, ofGradient] : [ofGradient, ofInput]
      const [rows, cols] = weight.shape as [number, number]
      fp8Product(into, a, b, { m: rows, n: cols, k: paddedRows(m), accumulate })
    }
    const own = isLent(x) ? [x] : [this.#input.transposed as Tensor, this.#input.inverse]
    return weightGradient(context, 1, weight, compute, [...own, ...ofGradient])
  }
}
