/** What is read before it is asked for: so many are in memory besides. */
const AHEAD = 2;

/**
 * What `load` gives, for names that are mostly asked for in this order: the next ones are read while the caller works on one.
 * Forgets the rest.
 */
export function readInOrder<T>(
  order: readonly string[],
  load: (name: string) => Promise<T>,
): (name: string) => Promise<T> {
  const places = new Map(order.map((name, place) => [name, place]));
  let under = new Map<string, Promise<T>>();
  const begin = (name: string) => {
    const own = load(name);
    own.catch(() => {}); // told when it is asked for
    return own;
  };
  return (name) => {
    const place = places.get(name) ?? order.length;
    const wanted = [name, ...order.slice(place + 1, place + 1 + AHEAD)];
    under = new Map(wanted.map((one) => [one, under.get(one) ?? begin(one)]));
    return under.get(name) as Promise<T>;
  };
}
