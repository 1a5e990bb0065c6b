import { usageError } from "../../errors.js";
import { type DType, type HostArray, hostArray, sizeOf, type Tensor } from "../../tensor/index.js";
import { describe, isCount } from "./basis.js";

export function checkTensor(tensor: Tensor): void {
  if (tensor.disposed)
    throw usageError(
      `a tensor ${describe(tensor)} was used after its end`,
      "return it from its scope, or keep it out of scopes",
    );
}

export function checkShape(operation: string, shape: readonly number[]): void {
  if (!shape.every(isCount) || !isCount(sizeOf(shape)))
    throw usageError(`${operation}: expected a shape of whole numbers from 0 on, got [${shape.join(", ")}]`);
}

/** Elements [offset, offset + count) of `size`. */
export function checkRange(operation: string, offset: number, count: number, size: number): void {
  if (!isCount(offset) || offset + count > size)
    throw usageError(`${operation}: expected a range within ${size} elements, got ${count} from ${offset} on`);
}

/** Host data of the right array type and, where given, length. */
export function checkDense<D extends DType>(operation: string, data: HostArray<D>, dtype: D, length?: number): void {
  const wanted = hostArray(dtype, 0).constructor;
  const came = data as ArrayLike<number> | undefined;
  if (!(came instanceof wanted) || (length !== undefined && came.length !== length))
    throw usageError(
      `${operation}: expected a ${wanted.name}${length === undefined ? "" : ` of ${length} elements`} for ${dtype}, ` +
        `got ${came?.constructor.name} of ${came?.length}`,
    );
}

const CASTS: Readonly<Record<DType, readonly DType[]>> = {
  f32: ["f16", "bf16", "i32", "u16", "u8"],
  f16: ["f32"],
  bf16: ["f32"],
  i32: ["f32"],
  u16: ["f32"],
  u8: ["f32"],
  u32: [],
};

export function checkCast(from: DType, to: DType): void {
  if (!CASTS[from].includes(to))
    throw usageError(`cast: expected ${from} to ${CASTS[from].join(" or ") || "nothing"}, got ${from} to ${to}`);
}
