import { unsupportedError } from "../errors.js";

// Regular expressions by which other programs' configurations name modules ("re:.*mlp\\.down_proj"). They come from files, so
// they are matched by sets of positions, never by backtracking: the work is bounded by the lengths whatever they say.

/** What a piece matches: the positions after it, for each of the positions before it. */
type Piece = (text: string, from: ReadonlySet<number>) => Set<number>;

const LIMITS = { length: 2000, depth: 6, repeats: 64 } as const;

/**
 * A test whether a name begins with a match of the pattern (Python's `re.match`); `whole` asks that nothing follows. Known are
 * literals, `.`, classes, groups, `|`, `* + ? {m,n}`, `^`, `$` and `\d \w \s` with their opposites. Throws "unsupported" for others.
 */
export function compilePattern(pattern: string, where: string, whole = false): (name: string) => boolean {
  const piece = new Parser(pattern, where).parse();
  return (name) => {
    const ends = piece(name, new Set([0]));
    return whole ? ends.has(name.length) : ends.size > 0;
  };
}

class Parser {
  private at = 0;
  private depth = 0;
  constructor(
    private readonly pattern: string,
    private readonly where: string,
  ) {}

  parse(): Piece {
    if (this.pattern.length > LIMITS.length) this.fail("it is too long");
    const piece = this.alternatives();
    if (this.at < this.pattern.length) this.fail(`unexpected ${this.pattern[this.at]}`);
    return piece;
  }

  private fail(why: string): never {
    throw unsupportedError(
      `${this.where}: the pattern ${JSON.stringify(this.pattern.slice(0, 80))} cannot be read: ${why} at ${this.at}`,
      "name the modules one by one, or in a simpler pattern",
    );
  }

  private alternatives(): Piece {
    if (++this.depth > LIMITS.depth) this.fail("groups too deep");
    const pieces = [this.sequence()];
    while (this.pattern[this.at] === "|") {
      this.at++;
      pieces.push(this.sequence());
    }
    this.depth--;
    return pieces.length === 1 ? pieces[0] : (text, from) => new Set(pieces.flatMap((piece) => [...piece(text, from)]));
  }

  private sequence(): Piece {
    const pieces: Piece[] = [];
    while (this.at < this.pattern.length && !"|)".includes(this.pattern[this.at])) pieces.push(this.repeated());
    return (text, from) => {
      let positions: ReadonlySet<number> = from;
      for (const piece of pieces) {
        if (positions.size === 0) break;
        positions = piece(text, positions);
      }
      return new Set(positions);
    };
  }

  private repeated(): Piece {
    const piece = this.atom();
    const [least, most] = this.repeats();
    if (this.pattern[this.at] === "?") this.at++; // lazy or greedy: the same set of positions
    if (/[*+?]/.test(this.pattern[this.at] ?? "")) this.fail("a repeat of a repeat");
    if (least === 1 && most === 1) return piece;
    return (text, from) => {
      let positions: ReadonlySet<number> = from;
      for (let i = 0; i < least; i++) positions = piece(text, positions);
      const seen = new Set(positions);
      for (let i = least; i < most && positions.size > 0; i++) {
        const next = [...piece(text, positions)].filter((position) => !seen.has(position));
        for (const position of next) seen.add(position);
        positions = new Set(next);
      }
      return seen;
    };
  }

  private repeats(): [least: number, most: number] {
    const counts = /^\{(\d{1,3})(?:(,)(\d{1,3})?)?\}/.exec(this.pattern.slice(this.at, this.at + 12));
    if (counts) {
      this.at += counts[0].length;
      const least = Number(counts[1]);
      const most =
        counts[2] === undefined ? least : counts[3] === undefined ? Number.POSITIVE_INFINITY : Number(counts[3]);
      if (least > LIMITS.repeats || (most !== Number.POSITIVE_INFINITY && most > LIMITS.repeats) || most < least)
        this.fail("such a number of repeats");
      return [least, most];
    }
    const mark = this.pattern[this.at];
    if (mark !== "*" && mark !== "+" && mark !== "?") return [1, 1];
    this.at++;
    return [mark === "+" ? 1 : 0, mark === "?" ? 1 : Number.POSITIVE_INFINITY];
  }

  private atom(): Piece {
    const mark = this.pattern[this.at++];
    switch (mark) {
      case "(": {
        if (this.pattern[this.at] === "?") {
          if (this.pattern[this.at + 1] !== ":") this.fail("a look-around or named group");
          this.at += 2;
        }
        const piece = this.alternatives();
        if (this.pattern[this.at++] !== ")") this.fail("a group without an end");
        return piece;
      }
      case "^":
        return (_text, from) => new Set([...from].filter((position) => position === 0));
      case "$":
        return (text, from) => new Set([...from].filter((position) => position === text.length));
      case ".":
        return character(() => true);
      case "[":
        return character(this.characters());
      case "\\":
        return character(this.escaped());
      case "*":
      case "+":
      case "?":
        return this.fail("nothing to repeat");
      default:
        return character((symbol) => symbol === mark);
    }
  }

  /** The rest of a class, "a-z_]". */
  private characters(): (symbol: string) => boolean {
    const negated = this.pattern[this.at] === "^";
    if (negated) this.at++;
    const tests: ((symbol: string) => boolean)[] = [];
    for (let first = true; first || this.pattern[this.at] !== "]"; first = false) {
      if (this.at >= this.pattern.length) this.fail("a class without an end");
      const low = this.pattern[this.at++];
      if (low === "\\") tests.push(this.escaped());
      else if (
        this.pattern[this.at] === "-" &&
        this.at + 1 < this.pattern.length &&
        this.pattern[this.at + 1] !== "]"
      ) {
        const high = this.pattern[this.at + 1];
        this.at += 2;
        if (high === "\\" || high < low) this.fail("such a range");
        tests.push((symbol) => symbol >= low && symbol <= high);
      } else tests.push((symbol) => symbol === low);
    }
    this.at++;
    return (symbol) => tests.some((test) => test(symbol)) !== negated;
  }

  private escaped(): (symbol: string) => boolean {
    const mark = this.pattern[this.at++];
    if (mark === undefined) this.fail("nothing after the backslash");
    const kinds: Readonly<Record<string, RegExp>> = { d: /\d/, D: /\D/, w: /\w/, W: /\W/, s: /\s/, S: /\S/ };
    const kind = kinds[mark];
    if (kind) return (symbol) => kind.test(symbol);
    if (/[A-Za-z0-9]/.test(mark)) this.fail(`\\${mark}`);
    return (symbol) => symbol === mark;
  }
}

const character =
  (test: (symbol: string) => boolean): Piece =>
  (text, from) =>
    new Set(
      [...from].filter((position) => position < text.length && test(text[position])).map((position) => position + 1),
    );
