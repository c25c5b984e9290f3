// SIGINT and SIGTERM of a rank. While it starts, one ends it at once; from `defer()` on, the first one asks for the end
// of the step and a save, a second one ends at once.

/** Exit status after an interruption. */
export const INTERRUPTED = 130

/** ms in which a second signal is the first one again: sent to the launcher, who passes it on, and to all its ranks. */
const ECHO = 400

export class Interruption {
  /** This rank was asked to stop. */
  wanted = false
  /** True once no rank ends at its first signal any more. */
  allDefer = false
  #since = 0
  #deferred: (() => void) | undefined

  /** `onEarly`: says that the process ends with nothing saved. */
  constructor(readonly onEarly: () => void) {
    process.on('SIGINT', this.#onSignal).on('SIGTERM', this.#onSignal)
  }

  /** From now on the first signal is left to the caller, who looks at `wanted`; `onFirst` says so. */
  defer(onFirst: () => void): void {
    this.#deferred = onFirst
  }

  close(): void {
    process.off('SIGINT', this.#onSignal).off('SIGTERM', this.#onSignal)
  }

  readonly #onSignal = (): void => {
    const first = !this.wanted
    this.wanted = true
    if (!this.#deferred) {
      this.onEarly()
      process.exit(INTERRUPTED)
    }
    if (!first && performance.now() - this.#since > ECHO) process.exit(INTERRUPTED)
    if (!first) return
    this.#since = performance.now()
    this.#deferred()
  }
}
