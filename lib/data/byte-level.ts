// tokenizer.json contents for the two tokenizers that do not come from such a file, so that an
// exported model tokenizes in Hugging Face's libraries as it did in training. Byte-level BPE writes
// each byte as one printable character (GPT-2's encoder.py, bytes_to_unicode).

/** The printable character for each of the 256 bytes. */
function byteCharacters(): string[] {
  const printable = (b: number): boolean => (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || (b >= 174 && b <= 255)
  let next = 256
  return Array.from({ length: 256 }, (_, b) => String.fromCodePoint(printable(b) ? b : next++))
}

function tokenizerJson(parts: {
  vocab: Record<string, number>
  merges: [string, string][]
  splitWords: boolean
  endOfText?: { id: number; content: string }
}): string {
  const byteLevel = {
    type: 'ByteLevel',
    add_prefix_space: false,
    trim_offsets: true,
    use_regex: parts.splitWords,
  }
  const special = {
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  }
  return JSON.stringify({
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: parts.endOfText === undefined ? [] : [{ ...parts.endOfText, ...special }],
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: '',
      end_of_word_suffix: '',
      fuse_unk: false,
      byte_fallback: false,
      vocab: parts.vocab,
      merges: parts.merges,
    },
  })
}

/** The byte tokenizer as byte-level BPE with no merges: id = byte. */
export function byteTokenizerJson(): string {
  const vocab = Object.fromEntries(byteCharacters().map((character, byte) => [character, byte]))
  return tokenizerJson({ vocab, merges: [], splitWords: false })
}

/** GPT-2's tokenizer from its tokens' bytes in rank order; `<|endoftext|>` comes last. */
export function gpt2TokenizerJson(ranks: readonly Uint8Array[]): string {
  const characters = byteCharacters()
  const tokens = ranks.map((bytes) => Array.from(bytes, (b) => characters[b]).join(''))
  const rankOf = new Map(tokens.map((token, rank) => [token, rank]))
  const merges: [string, string][] = []
  for (const [rank, token] of tokens.entries()) {
    const parts = mergeBelow(token, rankOf, rank)
    if (parts.length === 2) merges.push([parts[0] as string, parts[1] as string])
  }
  const content = '<|endoftext|>'
  const vocab = Object.fromEntries([...rankOf, [content, tokens.length]])
  return tokenizerJson({
    vocab,
    merges,
    splitWords: true,
    endOfText: { id: tokens.length, content },
  })
}

/** The parts of `token` when only merges of lower rank are applied; two of them are its merge. */
function mergeBelow(token: string, rankOf: Map<string, number>, limit: number): string[] {
  const parts = [...token]
  while (parts.length > 2) {
    let best = -1
    let bestRank = limit
    for (let i = 0; i + 1 < parts.length; i++) {
      const rank = rankOf.get(`${parts[i]}${parts[i + 1]}`)
      if (rank !== undefined && rank < bestRank) {
        best = i
        bestRank = rank
      }
    }
    if (best < 0) break
    parts.splice(best, 2, `${parts[best]}${parts[best + 1]}`)
  }
  return parts
}
