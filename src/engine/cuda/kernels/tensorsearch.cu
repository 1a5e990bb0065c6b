// Nearest codewords by the tensor cores. Vectors and codewords are scaled by a power of two; a codeword is split into two f16,
// c = ch + cl, and a vector is rounded to one, x = xh + e. A score x.c - |c|^2 / 2 is then xh.ch + xh.cl, 2v terms of a product of
// matrices, padded to SLOTS, a multiple of 8, whose sums begin at -|c|^2 / 2. What e would add is nearly the same for all codewords
// near x, so that it rarely decides; where it may, the vector is searched again.

#define SLOTS ((2 * LENGTH + 7) / 8 * 8)
#define WIDE (SLOTS / 16)         // products of depth 16
#define NARROW (SLOTS % 16 / 8)   // and of depth 8
#define WORDS (2 * WIDE + NARROW) // of a lane, for 8 codewords
#define TILE_WORDS (32 * WORDS + 8) // of all lanes, and -|c|^2 / 2 of each codeword

/** The power of two that brings the largest element to 32 .. 64, so that all are finite in f16; 1 where there is none. */
__device__ inline float scaleOf(unsigned largestBits) {
  int exponent = (int)(largestBits >> 23) - 127;
  if (largestBits == 0 || exponent > 100) return 1.0f;
  return __uint_as_float((unsigned)(127 + min(120, 5 - exponent)) << 23);
}

__device__ inline unsigned halfBits(float value) {
  unsigned short half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}

__device__ inline float halfValue(unsigned bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"((unsigned short)bits));
  return value;
}

/** f16 of slot j of a vector: all elements, twice. */
struct VectorSlots {
  const float* values;
  __device__ inline unsigned operator()(unsigned j) const { return j < 2 * LENGTH ? halfBits(values[j % LENGTH]) : 0u; }
};

/** f16 of slot j of a codeword: high parts, low parts. */
struct CodewordSlots {
  const float* values;
  __device__ inline unsigned operator()(unsigned j) const {
    if (j >= 2 * LENGTH) return 0u;
    float value = values[j % LENGTH];
    unsigned high = halfBits(value);
    return j < LENGTH ? high : halfBits(value - halfValue(high));
  }
};

template <class Slots>
__device__ inline unsigned slotPair(const Slots& slots, unsigned j) {
  return slots(j) | slots(j + 1) << 16;
}

/** d = a b + c: 16 vectors by 8 codewords, 16 slots deep. c is not written over: it serves all vectors. */
__device__ inline void wideProduct(float* d, const unsigned* a, const unsigned* b, const float* c) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, %11, %12, %13};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/** The same, 8 slots deep. */
__device__ inline void narrowProduct(float* d, const unsigned* a, const unsigned* b, const float* c) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %9, %10};"
      : "=f"(d[0]), "=f"(d[1]), "=f"(d[2]), "=f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(b[0]), "f"(c[0]), "f"(c[1]), "f"(c[2]), "f"(c[3]));
}

/** In the steps of the contract. */
__device__ inline float contractDistance(const float* x, const float* codebook, unsigned c) {
  float sum = 0.0f;
#pragma unroll
  for (unsigned k = 0; k < LENGTH; k++) {
    float difference = __fsub_rn(x[k], codebook[(size_t)c * LENGTH + k]);
    sum = __fadd_rn(sum, __fmul_rn(difference, difference));
  }
  return sum;
}

//# largestBits
// Bits of the largest |x| of all elements; integers, so the order does not matter. `largest` starts at 0.
extern "C" __global__ void largestBits(const float* x, unsigned* largest, unsigned size) {
  unsigned most = 0;
  for (unsigned i = blockIdx.x * 4096 + threadIdx.x; i < min(blockIdx.x * 4096 + 4096, size); i += THREADS)
    most = max(most, __float_as_uint(x[i]) & 0x7fffffffu);
  most = __reduce_max_sync(0xffffffffu, most);
  if (threadIdx.x % 32 == 0) atomicMax(largest, most);
}

//# codebookFragments
// Operands for 8 codewords a warp, as the lanes take them, and the scores' beginnings; far below 0 beyond the last codeword.
extern "C" __global__ void codebookFragments(const float* codebook, const unsigned* largest, unsigned* fragments,
                                             unsigned codewords, unsigned tiles) {
  unsigned tile = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (tile >= tiles) return;
  float scale = scaleOf(*largest);
  unsigned codeword = tile * 8 + lane / 4;
  float values[LENGTH], norm = 0.0f;
  for (unsigned k = 0; k < LENGTH; k++) {
    values[k] = codeword < codewords ? codebook[(size_t)codeword * LENGTH + k] * scale : 0.0f;
    norm = fmaf(values[k], values[k], norm);
  }
  CodewordSlots slots{values};
  unsigned* to = fragments + (size_t)tile * TILE_WORDS;
  for (unsigned w = 0; w < WORDS; w++) to[lane * WORDS + w] = slotPair(slots, 8 * w + lane % 4 * 2);
  if (lane % 4 == 0) to[32 * WORDS + lane / 4] = __float_as_uint(codeword < codewords ? -0.5f * norm : -1e30f);
}

//# nearestTensor
// A warp holds HELD * 16 vectors as operands and goes through the codebook 8 codewords at a time, RUN times for a run: of the 2 RUN
// codewords of a run that a lane sees only the greatest score counts. Scores are compared as whole numbers, three in one instruction
// (Hopper): positive numbers are in order by their bits, and those below 0 count as 0, which is a vector's score of a zero codeword;
// a vector whose best is not above 0 fails the test. The best run of a vector is searched again in the steps of the contract, and
// the second best where it may matter, which gives codeword w and its distance. Vectors for which that may be another are listed.
//
// No codeword c of other runs is as near as w when their best score is below the best of all, that of a codeword t in one of the runs
// that were searched, by more than
//   bound = 2 |e| (sqrt d(w) + |e|) + BOUND (|x|^2 + d(w)) + 2^-19 (|x| + sqrt d(w)) / scale + 2^-40 / scale^2.
// The first term is what e adds, e.(t - c): |t - c| is at most sqrt d(t) + sqrt d(c). If c is as near as w, sqrt d(c) is at most
// sqrt d(w). The score of t without e is at least that of w, so d(t) - d(w) is at most 2 |e| |t - w|, and |t - w| at most sqrt d(t) +
// sqrt d(w): hence sqrt d(t) is at most sqrt d(w) + 2 |e|.
// The others are what rounding adds: u = 2^-24, r = |x| + sqrt d, so that |x| and |c| are at most r and r^2 at most
// 2 (|x|^2 + d). Splitting costs 2^-22 of each element of a codeword, 4 u r^2 together, or 2^-25 / scale where f16 is subnormal (the
// third term). A product of depth n adds n + 1 exact terms, each cut at 2^-23 of the greatest of terms and sums, which is at most
// r^2: 2 (n + 1) u r^2. |c|^2 / 2 is wrong by (v + 1) u r^2 / 2, and by 2^-46 / scale^2 at least (the fourth term). A score is then
// wrong by less than (2 (17 WIDE + 9 NARROW) + v / 2 + 5) u r^2; two of them, and distances of the contract, by (v + 2) u d each, stay
// below twice that with 16 for 5.
#define BOUND ((4 * (2 * (17 * WIDE + 9 * NARROW) + LENGTH / 2 + 16)) * 0x1p-24f)
#define RUN 16
#define TILES (WORDS > 2 ? 32 : 64) // of 8 codewords, in shared memory, while as many come
#define HELD 4 // tiles of 16 vectors that a warp holds: what the registers take

/** A lane's operands for 8 codewords, by the widest loads that they allow. */
__device__ inline void readWords(const unsigned* from, unsigned* b) {
#if (2 * LENGTH + 7) / 8 % 2 == 0
#pragma unroll
  for (unsigned w = 0; w < WORDS; w += 2) *(uint2*)(b + w) = *(const uint2*)(from + w);
#else
#pragma unroll
  for (unsigned w = 0; w < WORDS; w++) b[w] = from[w];
#endif
}

extern "C" __global__ void __launch_bounds__(256, 2)
    nearestTensor(const float* vectors, const float* codebook, const unsigned* largest, const unsigned* fragments,
                  int* indices, float* distances, int* list, unsigned* listed, unsigned count,
                  unsigned codewords, unsigned tiles) {
  __shared__ __align__(16) unsigned operands[2][TILES * TILE_WORDS];
  const float infinite = __uint_as_float(0x7f800000u);
  unsigned t = threadIdx.x, lane = t % 32, quad = lane % 4;
  unsigned first = blockIdx.x * (THREADS / 32 * HELD * 16), own = t / 32 * HELD * 16 + lane / 4;
  float scale = scaleOf(*largest);
  // a 0 that the compiler does not know: equal parts of an operand get registers of their own, where it would share them and copy
  // them for each product
  const unsigned zero = count >> 31;

  unsigned a[HELD][2 * WORDS];  // rows own and own + 8 of each tile, in turn
  int best[HELD][2], second[HELD][2], third[HELD][2];  // bits of the runs' scores
  unsigned where[HELD][2], next[HELD][2];              // the best and the second best run
#pragma unroll
  for (unsigned h = 0; h < HELD; h++)
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
      unsigned i = first + own + h * 16 + half * 8;
      float x[LENGTH];
#pragma unroll
      for (unsigned k = 0; k < LENGTH; k++) x[k] = i < count ? vectors[(size_t)i * LENGTH + k] * scale : 0.0f;
      VectorSlots slots{x};
#pragma unroll
      for (unsigned w = 0; w < WIDE; w++) {
        a[h][4 * w + half] = slotPair(slots, 16 * w + 2 * quad);
        a[h][4 * w + 2 + half] = slotPair(slots, 16 * w + 8 + 2 * quad);
      }
      if (NARROW) a[h][4 * WIDE + half] = slotPair(slots, 16 * WIDE + 2 * quad);
#pragma unroll
      for (unsigned w = 2 + half; w < 2 * WORDS; w += 2) a[h][w] ^= zero;
      best[h][half] = second[h][half] = third[h][half] = 0;
      where[h][half] = next[h][half] = 0;
    }

  auto load = [&](unsigned base, unsigned turn) {
    unsigned words = min((unsigned)TILES, tiles - base) * TILE_WORDS;
    for (unsigned e = t * 4; e < words; e += THREADS * 4)
      copyEight((unsigned short*)(operands[turn] + e), (const unsigned short*)(fragments + (size_t)base * TILE_WORDS + e), true);
  };
  load(0, 0);
  for (unsigned base = 0, turn = 0; base < tiles; base += TILES, turn ^= 1) {
    waitCopies();
    __syncthreads();  // these are there, those before were used
    if (base + TILES < tiles) load(base + TILES, turn ^ 1);
    unsigned have = min((unsigned)TILES, tiles - base);
    for (unsigned run = 0; run < have; run += RUN) {
      int most[HELD][2] = {};
#pragma unroll
      for (unsigned j = 0; j < RUN; j++) {
        const unsigned* from = operands[turn] + (run + j) * TILE_WORDS;
        __align__(16) unsigned b[WORDS];
        readWords(from + lane * WORDS, b);
        float2 start = *(const float2*)(from + 32 * WORDS + 2 * quad);
        float c[4] = {start.x, start.y, __uint_as_float(__float_as_uint(start.x) ^ zero), __uint_as_float(__float_as_uint(start.y) ^ zero)};
#pragma unroll
        for (unsigned h = 0; h < HELD; h++) {
          float s[4];
          if (WIDE > 0) wideProduct(s, a[h], b, c);
          if (NARROW) narrowProduct(s, a[h] + 4 * WIDE, b + 2 * WIDE, WIDE > 0 ? s : c);
          most[h][0] = max(max(__float_as_int(s[0]), __float_as_int(s[1])), most[h][0]);
          most[h][1] = max(max(__float_as_int(s[2]), __float_as_int(s[3])), most[h][1]);
        }
      }
#pragma unroll
      for (unsigned h = 0; h < HELD; h++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
          int own = most[h][half];
          bool first = own > best[h][half], other = own > second[h][half];
          third[h][half] = max(third[h][half], min(second[h][half], own));
          second[h][half] = max(second[h][half], min(best[h][half], own));
          best[h][half] = max(best[h][half], own);
          next[h][half] = first ? where[h][half] : other ? base + run : next[h][half];
          where[h][half] = first ? base + run : where[h][half];
        }
    }
  }

#pragma unroll
  for (unsigned h = 0; h < HELD; h++)
#pragma unroll
    for (unsigned half = 0; half < 2; half++) {
      // four lanes saw a vector: the best two of their runs, the first of equals, and the third best score
      int top = best[h][half], after = second[h][half], rest = third[h][half];
      unsigned place = where[h][half] * 8 + 2 * quad, behind = next[h][half] * 8 + 2 * quad;
#pragma unroll
      for (unsigned step = 1; step < 4; step *= 2) {
        int otherTop = __shfl_xor_sync(0xffffffffu, top, step), otherAfter = __shfl_xor_sync(0xffffffffu, after, step);
        int otherRest = __shfl_xor_sync(0xffffffffu, rest, step);
        unsigned otherPlace = __shfl_xor_sync(0xffffffffu, place, step), otherBehind = __shfl_xor_sync(0xffffffffu, behind, step);
        // the better top comes first; the second is the worse top or what follows the better
        bool swap = otherTop > top || (otherTop == top && otherPlace < place);
        int won = swap ? otherTop : top, lost = swap ? top : otherTop;
        int follows = swap ? otherAfter : after, left = swap ? after : otherAfter;
        unsigned wonPlace = swap ? otherPlace : place, lostPlace = swap ? place : otherPlace;
        unsigned followsPlace = swap ? otherBehind : behind;
        bool worse = lost > follows || (lost == follows && lostPlace < followsPlace);
        rest = max(max(rest, otherRest), worse ? max(follows, left) : lost);
        after = worse ? lost : follows;
        behind = worse ? lostPlace : followsPlace;
        top = won;
        place = wonPlace;
      }
      unsigned i = first + own + h * 16 + half * 8;
      if ((h * 2 + half) % 4 != quad || i >= count) continue;  // each lane finishes its share of the vectors
      float x[LENGTH], norm = 0.0f, error = 0.0f, least = infinite;
      unsigned index = 0;
#pragma unroll
      for (unsigned k = 0; k < LENGTH; k++) {
        x[k] = vectors[(size_t)i * LENGTH + k];
        norm = fmaf(x[k], x[k], norm);
        float lost = x[k] * scale - halfValue(halfBits(x[k] * scale));
        error = fmaf(lost, lost, error);
      }
      error = 1.0001f * sqrtf(error) / scale;
      auto search = [&](unsigned from) {
        for (unsigned j = 0; j < 2 * RUN; j++) {
          unsigned c = from + j / 2 * 8 + j % 2;
          if (c >= codewords) continue;
          float distance = contractDistance(x, codebook, c);
          if (distance < least || (distance == least && c < index)) {
            least = distance;
            index = c;
          }
        }
      };
      // whether runs whose best score this is have no codeword as near
      auto sure = [&](int score) {
        float size = norm + least, far = sqrtf(least);
        float bound = 2.0f * error * (far + error) + BOUND * size + (0x1p-19f * (sqrtf(norm) + far) + 0x1p-40f / scale) / scale + 1e-30f;
        // scores are of scaled vectors
        return size < 1e36f && (__int_as_float(top) - __int_as_float(score)) / scale / scale > bound;
      };
      search(place);
      bool found = sure(after);
      if (!found) {
        search(behind);
        found = sure(rest);
      }
      indices[i] = index;
      distances[i] = least;
      if (!found) list[atomicAdd(listed, 1u)] = i;
    }
}
