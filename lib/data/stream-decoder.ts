// Decoding token by token, safe for characters that span several tokens: what is not yet a whole
// character waits, and `end` gives out what is left.

/** Text of a growing list of tokens. */
export interface StreamDecoder {
  /** Takes the next id; returns the text that became certain, possibly ''. */
  push(id: number): string
  /** The text still held back; a cut character becomes U+FFFD. The decoder can be used again. */
  end(): string
}

/** For vocabularies whose tokens are byte strings. */
export function byteStreamDecoder(bytes: (id: number) => Uint8Array): StreamDecoder {
  // Without ignoreBOM a U+FEFF inside the text would be dropped.
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true })
  return {
    push: (id) => decoder.decode(bytes(id), { stream: true }),
    end: () => decoder.decode(),
  }
}

// A UTF-8 character is at most four byte tokens; longer waits mean that the bytes are no UTF-8.
const longestWait = 4

/** For vocabularies that only decode lists: decodes a short window twice, gives the difference. */
export function textStreamDecoder(decode: (ids: number[]) => string): StreamDecoder {
  let context: number[] = []
  let waiting: number[] = []
  const difference = (): string => {
    // The context in front makes decoders that strip a leading space behave as inside a text.
    const before = context.length === 0 ? '' : decode(context)
    return decode([...context, ...waiting]).slice(before.length)
  }
  return {
    push(id) {
      waiting.push(id)
      const text = difference()
      if (text.endsWith('\ufffd') && waiting.length < longestWait) return ''
      context = waiting
      waiting = []
      return text
    },
    end() {
      const text = waiting.length === 0 ? '' : difference()
      context = []
      waiting = []
      return text
    },
  }
}
